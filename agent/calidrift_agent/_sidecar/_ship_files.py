"""Files of the sidecar's own, written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

PARTIAL_SUFFIX: Final = ".tmp"


def replace_file(path: Path, blob: bytes) -> None:
    """Write a file by one atomic replacement, for this user alone, and make it durable.

    A reader, or a sidecar that was killed in between, finds the old content or the new one.

    Raises:
        OSError: It could not be written; what was there is untouched.
    """
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(blob)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def remove_partial(folder: Path) -> None:
    """Remove what a sidecar left that was killed while it wrote."""
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        with suppress(OSError):
            path.unlink()


__all__ = ["remove_partial", "replace_file"]
