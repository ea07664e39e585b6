"""Reading a text file, and replacing it in one step."""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from calidrift_agent.errors import ProfileError, ProfileFormatError

_LARGEST: Final = 1 << 30


def read_text(path: Path) -> str:
    """Return the text of a profile file.

    Raises:
        ProfileError: It cannot be read.
        ProfileFormatError: It is not a text file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ProfileFormatError(
                f"{path} is a pipe or a device and not a Calidrift profile; give a file that "
                "CalibrationProfile.save wrote"
            )
        if status.st_size > _LARGEST:
            raise ProfileFormatError(
                f"{path} is larger than 1 GiB and not a Calidrift profile; give a file that "
                "CalibrationProfile.save wrote"
            )
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProfileFormatError(
            f"{path} is not a Calidrift profile or is damaged: it is not UTF-8 text; give a file "
            "that CalibrationProfile.save wrote"
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ProfileFormatError):
            raise
        raise ProfileError(
            f"{path} cannot be read ({_reason(error)}); give the path of a profile that "
            "CalibrationProfile.save wrote"
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader, and a crash at any moment, sees the old or the new one whole.

    Temporary file in the same directory, fsync, rename, fsync of the directory.

    Raises:
        ProfileError: It cannot be written; an older file is untouched.
    """
    # Not made of the file's own name, which may be as long as a name can be.
    temporary = path.parent / f".calidrift-profile.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except (OSError, ValueError) as error:
        raise ProfileError(
            f"the profile cannot be written to {path} ({_reason(error)}); choose a directory that "
            "exists, is writable and has room"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _reason(error: OSError | ValueError) -> str:
    """What the system says, or Python of a path that cannot be one (a NUL in it)."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
