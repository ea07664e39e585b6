"""Windows that wait on disk for the analyzer, within a bound of bytes.

    <process>.<first>-<last>.push      a body for the analyzer, ready to be sent
    <process>.total-<number>.push      the sum of everything up to a window

The sum is what makes dropping safe: what the analyzer already has, taken from it, leaves one
coarse window with every count, whatever became of the windows in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, final

from calidrift_agent._sidecar._ship_files import remove_partial, replace_file
from calidrift_agent._state import Push, StateMeta, Window, encode_push

_BATCH: Final = re.compile(r"([0-9a-f]{32})\.([0-9]{1,16})-([0-9]{1,16})\.push")
_TOTAL: Final = re.compile(r"([0-9a-f]{32})\.total-([0-9]{1,16})\.push")

TotalOf: TypeAlias = Callable[[str], tuple[StateMeta, Window] | None]


@final
@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """One file of the spool.

    Attributes:
        path: The file.
        process: The process.
        first: Number of its first window; of a sum 0.
        last: Number of its last window.
        is_total: Whether it is the sum of everything up to `last`.
        size: Bytes.
        at_ns: When it was written.
    """

    path: Path
    process: str
    first: int
    last: int
    is_total: bool
    size: int
    at_ns: int

    def read(self) -> bytes:
        """The body.

        Raises:
            OSError: It cannot be read.
        """
        return self.path.read_bytes()


@final
class Spool:
    """The folder; everything it knows, it knows from the names of the files.

    Args:
        folder: Made when it is first written to.
        most_bytes: Bound on the bytes of all files.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most = most_bytes
        self._entries: dict[Path, SpoolEntry] = {}
        if folder.is_dir():
            remove_partial(folder)
            for path in sorted(folder.glob("[0-9a-f]*.push")):
                self._note(path)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self._entries.values())

    def processes(self) -> set[str]:
        """Processes that have a file here."""
        return {entry.process for entry in self._entries.values()}

    def batches(self, process: str) -> list[SpoolEntry]:
        """Windows of a process, in the order of their numbers."""
        found = [one for one in self._of(process) if not one.is_total]
        return sorted(found, key=lambda entry: entry.first)

    def total(self, process: str) -> SpoolEntry | None:
        """The newest sum of a process."""
        found = [one for one in self._of(process) if one.is_total]
        return max(found, key=lambda entry: entry.last, default=None)

    def last(self, process: str, default: int) -> int:
        """Number of the last window that is safe here, at least `default`."""
        return max([default, *(one.last for one in self._of(process))])

    def add(self, meta: StateMeta, windows: Iterable[Window]) -> None:
        """Keep windows of a process.

        Raises:
            OSError: There is no room, or no permission.
        """
        batch = tuple(windows)
        name = f"{meta.process}.{batch[0].number}-{batch[-1].number}.push"
        self._write(name, encode_push(Push(meta, batch)))

    def put_total(self, meta: StateMeta, total: Window) -> None:
        """Keep the sum of a process in the place of any older one.

        Raises:
            OSError: There is no room, or no permission.
        """
        name = f"{meta.process}.total-{total.number}.push"
        self._write(name, encode_push(Push(meta, (total,))))
        for entry in self._of(meta.process):
            if entry.is_total and entry.last < total.number:
                self.remove(entry)

    def remove(self, entry: SpoolEntry) -> None:
        """Delete a file."""
        with suppress(OSError):
            entry.path.unlink()
        if not entry.path.exists():
            self._entries.pop(entry.path, None)

    def prune(self, process: str, last: int) -> None:
        """Delete what lies at or before a window."""
        for entry in self._of(process):
            if entry.last <= last:
                self.remove(entry)

    def bound(self, total_of: TotalOf, last_of: Callable[[str], int]) -> int:
        """Come back within the bound, with as few counts lost as can be.

        First the windows of the process that has waited longest become one sum; only where no sum
        can be had, and when nothing but sums is left, the oldest files go.

        Args:
            total_of: The current sum of a process from its state file; None where that is gone.
            last_of: Number of the last window of a process that need not be sent.

        Returns:
            Windows whose counts are lost.
        """
        lost = 0
        while self.size_bytes > self._most:
            before = len(self._entries), self.size_bytes
            batches = [entry for entry in self._entries.values() if not entry.is_total]
            oldest = min(batches or self._entries.values(), key=lambda one: (one.at_ns, one.first))
            if not batches or not self._summed(oldest.process, total_of):
                gone = self._lose(oldest, last_of(oldest.process))
                # Where the state file is there, its sum still has them.
                lost += 0 if total_of(oldest.process) is not None else gone
            if (len(self._entries), self.size_bytes) == before:
                break  # nothing can be deleted here
        return lost

    def _summed(self, process: str, total_of: TotalOf) -> bool:
        """Delete the windows of a process that a sum speaks for; whether there were any."""
        batches = self.batches(process)
        total = self.total(process)
        if total is None or total.last < batches[0].last:
            current = total_of(process)
            if current is None or current[1].number < batches[0].last:
                return False
            with suppress(OSError):
                self.put_total(*current)
            total = self.total(process)
        covered = [one for one in batches if total is not None and one.last <= total.last]
        for entry in covered:
            self.remove(entry)
        return bool(covered)

    def _lose(self, entry: SpoolEntry, sent: int) -> int:
        self.remove(entry)
        return max(0, entry.last - max(sent, entry.first - 1))

    def _of(self, process: str) -> list[SpoolEntry]:
        return [entry for entry in self._entries.values() if entry.process == process]

    def _write(self, name: str, body: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._folder / name, body)
        self._note(self._folder / name)

    def _note(self, path: Path) -> None:
        batch, total = _BATCH.fullmatch(path.name), _TOTAL.fullmatch(path.name)
        try:
            found = path.lstat()
        except OSError:
            return
        if batch is not None:
            process, first, last = batch[1], int(batch[2]), int(batch[3])
        elif total is not None:
            process, first, last = total[1], 0, int(total[2])
        else:
            return
        self._entries[path] = SpoolEntry(
            path, process, first, last, total is not None, found.st_size, found.st_mtime_ns
        )


__all__ = ["Spool", "SpoolEntry"]
