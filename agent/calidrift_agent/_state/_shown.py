"""Which points of a large model appear one by one: one choice for all who read a directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

SHOWN_SUFFIX: Final = ".shown"
_MOST_BYTES: Final = 1 << 20
"""Beyond this size nothing is added: a file that grew so large has named every point of some
hundred versions of a model."""
_MODE: Final = 0o600


@final
@dataclass(frozen=True, slots=True)
class ShownEntry:
    """One point that was chosen.

    Attributes:
        time_ns: When, UTC nanoseconds; orders entries of several directories only.
        free: Whether it may also take one of the places that are kept free at first.
        name: The point.
    """

    time_ns: int
    free: bool
    name: str


@final
class ShownLog:
    """Points that were chosen, in the order in which they were, for everybody who reads this.

    Each model has a file that is only ever appended to, in whole lines by one `write`. So all
    readers find the same entries in the same order, whoever chose, and any two of them that apply
    the same rule to it (`admitted`) come to the same points, without a lock. Where nothing may be
    written, what this process chose comes last, for itself alone.

    Args:
        folders: The state directories; what is chosen is written into each of them.

    Cost of a look: 30 us per directory.
    """

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._folders = tuple(folders)
        self._unwritten: dict[str, list[ShownEntry]] = {}

    def entries(self, model: str) -> list[ShownEntry]:
        """What was chosen of a model, first things first. Never raises an `OSError`."""
        found: list[ShownEntry] = []
        for folder in self._folders:
            found += _read(shown_path(folder, model))
        if len(self._folders) > 1:
            found.sort(key=lambda entry: entry.time_ns)
        return [*found, *self._unwritten.get(model, ())]

    def add(self, model: str, names: Sequence[str], *, free: bool) -> None:
        """Add points that were chosen. Never raises an `OSError`."""
        if not names:
            return
        now = time.time_ns()
        written = [_append(shown_path(one, model), now, names, free) for one in self._folders]
        if not any(written):
            kept = self._unwritten.setdefault(model, [])
            kept += [ShownEntry(now, free, name) for name in names]


def admitted(
    entries: Iterable[ShownEntry], limit: int, at_once: int, present: Collection[str]
) -> set[str]:
    """The points that entries give a place to.

    Args:
        entries: What was chosen, in order.
        limit: Places.
        at_once: Places for entries that are not `free`.
        present: Points that may have one; others take no place.
    """
    names: set[str] = set()
    for entry in entries:
        if len(names) < (limit if entry.free else at_once) and entry.name in present:
            names.add(entry.name)
    return names


def shown_path(directory: Path, model: str) -> Path:
    """Path of the file of a model."""
    digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return directory / f"{digest}{SHOWN_SUFFIX}"


def _read(path: Path) -> list[ShownEntry]:
    content = b""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                content = os.pread(descriptor, _MOST_BYTES, 0)
        finally:
            os.close(descriptor)
    return [entry for line in content.split(b"\n") if line and (entry := _entry(line)) is not None]


def _entry(line: bytes) -> ShownEntry | None:
    """One line; None for one that a full disk cut short, or that somebody else wrote."""
    try:
        time_ns, free, name = json.loads(line)
    except (RecursionError, TypeError, ValueError):
        return None
    wanted = type(time_ns) is int and type(free) is bool and type(name) is str
    return ShownEntry(time_ns, free, name) if wanted else None


def _append(path: Path, now_ns: int, names: Sequence[str], free: bool) -> bool:
    """Whether the lines were written whole."""
    # A line break first: the line before may have been cut short.
    lines = "".join(f"\n{json.dumps([now_ns, free, name])}" for name in names).encode() + b"\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, _MODE)
        try:
            if os.fstat(descriptor).st_size + len(lines) > _MOST_BYTES:
                return False
            return os.write(descriptor, lines) == len(lines)
        finally:
            os.close(descriptor)
    except OSError:
        return False
