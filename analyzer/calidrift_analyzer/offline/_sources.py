"""Which files hold recorded inputs; nothing is opened here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from calidrift_analyzer.errors import ConfigurationError

__all__ = ["DATABASE", "PROFILE", "SUFFIXES", "Source", "find_sources"]

DATABASE: Final = "offline.duckdb"
"""Where a child leaves its windows for its parent, who throws them away."""
PROFILE: Final = "profile.json"
"""Where it leaves the profile that it measured."""

SUFFIXES: Final = (".npy", ".npz", ".safetensors", ".safetensors.fernet")
_KINDS: Final = (
    "recorded inputs are .safetensors files (captures, or one tensor per input), .npy files (a "
    "model with one input) and .npz files (one array per input)"
)


@final
@dataclass(frozen=True, slots=True)
class Source:
    """One file of recorded inputs.

    Attributes:
        path: The file.
        name: How it is called in a report: its path below the folder that was given.
        folder: The folder it lies in, below the folder that was given; empty at the top.
    """

    path: Path
    name: str
    folder: str = ""


def find_sources(path: Path) -> tuple[Source, ...]:
    """List the recorded inputs under a path, by name.

    Args:
        path: A file, or a folder that is searched with all folders below it.

    Raises:
        ConfigurationError: It does not exist, is no such file, or the folder holds none.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise ConfigurationError(f"--inputs {path} is of another kind; {_KINDS}")
        return (Source(path.absolute(), path.name),)
    if not path.is_dir():
        raise ConfigurationError(
            f"--inputs {path} does not exist; give a file or a folder of recorded inputs"
        )
    try:
        found = sorted(one for one in path.rglob("*") if _is_input(one))
    except OSError as error:
        raise ConfigurationError(
            f"--inputs {path} cannot be listed ({error.strerror}); correct its permissions"
        ) from error
    if not found:
        raise ConfigurationError(f"--inputs {path} holds no recorded inputs; {_KINDS}")
    return tuple(_source(one, path) for one in found)


def _is_input(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


def _source(path: Path, root: Path) -> Source:
    relative = path.relative_to(root)
    folder = relative.parent.as_posix()
    return Source(path.absolute(), relative.as_posix(), "" if folder == "." else folder)
