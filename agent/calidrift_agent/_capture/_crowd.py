"""Bounds over the captures of all processes of a state directory: those of the oldest dead go.

A process of which only some captures can stay loses some at random, so that the rest remains a
sample, and its index is brought up to date: a row is there with the probability that it had,
times the share that was kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from calidrift_agent._capture._file import CAPTURE_SUFFIX, write_privately
from calidrift_agent._capture._index import INDEX_NAME, read_index
from calidrift_agent._capture._sealing import SEALED_SUFFIX
from calidrift_agent.errors import CaptureError

_TMP = ".tmp"


@final
@dataclass(frozen=True, slots=True)
class Crowd:
    """What was done about too many captures.

    Attributes:
        removed: Captures that were unlinked.
        complaints: One sentence for each thing that could not be looked at or unlinked.
    """

    removed: int = 0
    complaints: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class _Kept:
    """One capture, whole or half written."""

    written_ns: int
    path: Path
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether it was written to its end."""
        return not self.path.name.endswith(_TMP)

    @property
    def turn(self) -> tuple[bool, bytes]:
        """Order in which those of a folder go: half-written ones, then at random.

        The same each time, so that what is left after two rounds is what one would have left; and
        drawn apart from everything that had a part in keeping it.
        """
        drawn = hashlib.blake2b(os.fsencode(self.path.name), digest_size=8, person=b"thin")
        drawn.update(os.fsencode(self.path.parent.name))
        return self.is_whole, drawn.digest()


def thin_out(
    captures: Path, most_bytes: int, most_files: int, is_living: Callable[[str], bool]
) -> Crowd:
    """Unlink captures of dead processes until all captures together keep the bounds.

    The process that captured last comes last; of one that keeps some, they go at random.

    Those of living processes count, and stay. A process lives while the lock on its folder is held
    (see `hold`), or while the caller knows it to; where that cannot be told, it lives. A reader
    that has opened a capture reads it to its end.

    Args:
        captures: `<state_dir>/captures`; one that does not exist has nothing.
        most_bytes: Size of all captures together.
        most_files: Number of all captures together.
        is_living: Whether a process, by its identity, is known to live.

    Cost: about 3 us per capture; the locks of dead folders are looked at only beyond a bound.
    """
    complaints: list[str] = []
    folders = {folder: list(_captures_in(folder, complaints)) for folder in _folders_in(captures)}
    size = sum(one.size for kept in folders.values() for one in kept)
    count = sum(len(kept) for kept in folders.values())
    if size <= most_bytes and count <= most_files:
        return Crowd(0, tuple(complaints))
    dead = [folder for folder in folders if not (is_living(folder.name) or _is_held(folder))]
    removed = 0
    dead.sort(key=lambda folder: max((one.written_ns for one in folders[folder]), default=0))
    for folder in dead:
        gone: list[_Kept] = []
        for one in sorted(folders[folder], key=lambda one: one.turn):
            if size <= most_bytes and count <= most_files:
                break
            try:
                one.path.unlink(missing_ok=True)
            except OSError as error:
                complaints.append(f"capture {one.path} cannot be removed ({error.strerror})")
                continue
            gone.append(one)
            size, count = size - one.size, count - 1
        removed += len(gone)
        _thin_index(folder, folders[folder], gone, complaints)
        _remove_if_empty(folder)
    return Crowd(removed, tuple(complaints))


def hold(folder: Path) -> int | None:
    """Lock a folder of captures, as its process does for as long as it writes there.

    Returns:
        What to close to let go; None where it cannot be locked now.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_held(folder: Path) -> bool:
    """Whether a process writes there, or may: a folder that cannot be asked is left alone."""
    descriptor = hold(folder)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _folders_in(captures: Path) -> list[Path]:
    try:
        names = sorted(captures.iterdir())
    except OSError:
        return []
    return [folder for folder in names if folder.is_dir() and not folder.is_symlink()]


def _captures_in(folder: Path, complaints: list[str]) -> Iterator[_Kept]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.removesuffix(_TMP).endswith((CAPTURE_SUFFIX, SEALED_SUFFIX)):
                    continue
                with contextlib.suppress(FileNotFoundError):  # its process removed it
                    status = entry.stat(follow_symlinks=False)
                    yield _Kept(status.st_mtime_ns, folder / entry.name, status.st_size)
    except FileNotFoundError:
        return
    except OSError as error:
        complaints.append(f"captures in {folder} cannot be listed ({error.strerror})")


def _thin_index(folder: Path, had: list[_Kept], gone: list[_Kept], complaints: list[str]) -> None:
    """Have the index of a folder say what is left of its captures."""
    before = sum(one.is_whole for one in had)
    lost = sum(one.is_whole for one in gone)
    if not 0 < lost < before:
        return
    names = {one.path.name for one in had if one.is_whole} - {one.path.name for one in gone}
    left = [name.partition(".")[0] for name in sorted(names)]
    try:
        index = read_index(folder)
        if index is not None:
            thinned = index.thinned((before - lost) / before, left)
            write_privately(folder / INDEX_NAME, thinned.to_json().encode())
    except (CaptureError, OSError) as error:
        complaints.append(
            f"{lost} of {before} captures in {folder} were removed, but its index cannot be "
            f"brought up to date, so that it promises too much ({error})"
        )


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a dead process that has no captures left."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [INDEX_NAME]:
            (folder / INDEX_NAME).unlink()
            folder.rmdir()
