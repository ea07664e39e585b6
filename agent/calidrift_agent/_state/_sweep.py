"""Dead processes: their counts move into one carry-over file per model, their files go.

No count is lost or doubled, wherever a sweeper is killed:

1. One sweeper per directory at a time (a record lock on `.sweep.lock`, which the kernel takes
   back from a dead process and which no forked child inherits).
2. The sums of the dead are added to the carry-over file together with the identities of those
   processes, in one atomic replacement, fsynced. From this moment on their files do not count.
3. The files are unlinked. A sweeper killed before or during this leaves files that do not count;
   the next one unlinks them without adding them again.

Whether a process is dead is asked from the lock on its state file, never from its pid: pids mean
nothing across containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from calidrift_agent._state._carry import (
    CARRY_SUFFIX,
    Carried,
    carry_path,
    read_carried,
    write_carried,
)
from calidrift_agent._state._combine import FleetSum
from calidrift_agent._state._layout import MAGIC
from calidrift_agent._state._meta import boot_id
from calidrift_agent._state._reader import StateReader, scan, state_paths
from calidrift_agent._state._writer import STATE_SUFFIX
from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent.errors import ConfigurationError, StateError, StateFormatError

LOCK_NAME: Final = ".sweep.lock"
DAY_SECONDS: Final = 86_400.0
"""How long files are kept that another boot of the machine wrote, or that cannot be read."""
_LITTER_SECONDS: Final = 60.0
_NS: Final = 1_000_000_000


@final
@dataclass(frozen=True, slots=True)
class SweepOptions:
    """Which files of dead processes stay for a while, so that the analyzer reads their windows.

    What is swept is never lost for counters: only its division into windows is, for an analyzer
    that did not come by in this time. A file in which no request was ever counted stays not at
    all.

    Attributes:
        retention_seconds: Time after its last window for which a dead process's file is kept.
        dead_bytes: Disk space that files of dead processes may take; beyond it the oldest go
            before their time. A file of 40 points takes 15 MB, one of 400 points 33 MB.
    """

    retention_seconds: float = 3_600.0
    dead_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 0.0 <= self.retention_seconds <= 366 * DAY_SECONDS:
            raise ConfigurationError(
                f"retention_seconds is {self.retention_seconds!r}, but must be 0 to 31622400 (a "
                "year); 3600 suits an analyzer that comes by every few minutes"
            )
        if type(self.dead_bytes) is not int or self.dead_bytes < 0:
            raise ConfigurationError(
                f"dead_bytes must be 0 or more whole bytes, got {self.dead_bytes!r}"
            )


@final
@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did.

    Attributes:
        busy: Another sweeper is at work, or was just now; nothing was done.
        merged: Processes whose counts moved into a carry-over file.
        removed: Files that were unlinked.
        kept: Files of dead processes that stay until their time has come.
        complaints: One sentence for each thing that could not be read, written or unlinked.
    """

    busy: bool = False
    merged: int = 0
    removed: int = 0
    kept: int = 0
    complaints: tuple[str, ...] = ()


def sweep(
    directory: Path | str,
    options: SweepOptions | None = None,
    *,
    pause_seconds: float = 0.0,
    now_ns: int | None = None,
) -> SweepReport:
    """Merge and unlink the files of dead processes whose time has come.

    May be called from any process and at any time; several at once do no harm. Living processes
    are not disturbed.

    Args:
        directory: The state directory; one that does not exist has nothing to sweep.
        options: What is kept, and for how long.
        pause_seconds: Do nothing where anybody's sweep ended less than this ago, so that many
            workers together sweep no more often than one.
        now_ns: Current UTC time in nanoseconds; default: the clock.

    Raises:
        StateError: The directory cannot be used.

    Cost: about 0.2 ms per file, and 2 ms per file that is merged (40 points).
    """
    folder = Path(directory)
    if not folder.exists():
        return SweepReport()
    now = time.time_ns() if now_ns is None else now_ns
    if pause_seconds and 0 <= now - _last_swept_ns(folder) < pause_seconds * _NS:
        return SweepReport(busy=True)
    with _alone(folder) as alone:
        if not alone:
            return SweepReport(busy=True)
        report = _Sweep(folder, options or SweepOptions(), now).run()
        with contextlib.suppress(OSError):
            os.utime(folder / LOCK_NAME)
        return report


def _last_swept_ns(folder: Path) -> int:
    try:
        return (folder / LOCK_NAME).stat().st_mtime_ns
    except OSError:
        return 0


@final
@dataclass(slots=True, eq=False)
class _Dead:
    """One file of a dead process."""

    reader: StateReader
    age_seconds: float
    size: int
    counted_nothing: bool


@final
@dataclass(slots=True, eq=False)
class _Sweep:
    """One sweep, under the lock."""

    folder: Path
    options: SweepOptions
    now_ns: int
    boot: str = field(default_factory=boot_id)
    merged: int = 0
    removed: int = 0
    kept: int = 0
    complaints: list[str] = field(default_factory=list)

    def run(self) -> SweepReport:
        self._remove_litter()
        readers = scan(self.folder, self._unreadable)
        try:
            by_model: dict[str, list[StateReader]] = {}
            for reader in readers:
                by_model.setdefault(reader.meta.model, []).append(reader)
            waiting: list[_Dead] = []
            plans = [
                (model, *self._triage(model, of_model, waiting))
                for model, of_model in by_model.items()
            ]
            crowded = self._crowded_out(waiting)
            for model, carried, due in plans:
                due += [dead for dead in crowded if dead.reader.meta.model == model]
                self._merge(model, carried, due)
            self.kept = len(waiting) - len(crowded)
        finally:
            for reader in readers:
                reader.close()
        return SweepReport(
            merged=self.merged,
            removed=self.removed,
            kept=self.kept,
            complaints=tuple(self.complaints),
        )

    def _triage(
        self, model: str, readers: Sequence[StateReader], waiting: list[_Dead]
    ) -> tuple[Carried | None, list[_Dead]]:
        """Unlink what was absorbed before, find out what is due and what has to wait."""
        carried = self._carried(model)
        due: list[_Dead] = []
        for reader in readers:
            if reader.alive:
                continue
            if carried is not None and reader.meta.process in carried.absorbed:
                self._unlink(reader.path)
                continue
            dead = self._examine(reader)
            if dead is None:
                continue
            if dead.counted_nothing or dead.age_seconds >= self._retention(reader):
                due.append(dead)
            else:
                waiting.append(dead)
        return carried, due

    def _carried(self, model: str) -> Carried | None:
        path = carry_path(self.folder, model)
        try:
            return read_carried(path)
        except StateFormatError as error:
            self.complaints.append(str(error))
            with contextlib.suppress(OSError):
                path.replace(path.with_name(f"{path.name}.unreadable"))
            return None

    def _examine(self, reader: StateReader) -> _Dead | None:
        try:
            total = reader.total()
            size = reader.path.stat().st_size
        except FileNotFoundError:
            return None  # somebody removed it
        except StateError as error:
            self._unreadable(reader.path, error)
            return None
        ended_ns = max(total.end_ns, reader.meta.started_ns)
        nothing = int(total.requests.sum()) == int(total.requests[RequestColumn.OVERHEAD_NS])
        return _Dead(reader, (self.now_ns - ended_ns) / _NS, size, nothing)

    def _retention(self, reader: StateReader) -> float:
        """How long the file is kept, in seconds.

        The lock on a file of another boot may be that of another machine, on a file system that
        does not carry locks across: that nothing was written for a day is what counts there.
        """
        wanted = self.options.retention_seconds
        boot = reader.meta.boot
        return max(wanted, DAY_SECONDS) if boot and self.boot and boot != self.boot else wanted

    def _crowded_out(self, waiting: list[_Dead]) -> list[_Dead]:
        """Those of the waiting that there is no room for, the oldest first."""
        excess = sum(dead.size for dead in waiting) - self.options.dead_bytes
        crowded: list[_Dead] = []
        for dead in sorted(waiting, key=lambda dead: dead.age_seconds, reverse=True):
            if excess <= 0:
                break
            if self._retention(dead.reader) <= self.options.retention_seconds:
                crowded.append(dead)
                excess -= dead.size
        return crowded

    def _merge(self, model: str, carried: Carried | None, due: list[_Dead]) -> None:
        if not due:
            return
        metas = [dead.reader.meta for dead in due]
        absorbed = frozenset(meta.process for meta in metas)
        if carried is not None:
            metas.append(carried.meta)
            absorbed |= carried.absorbed & self._present()  # the files of the others are gone
        fleet = FleetSum(max(metas, key=lambda meta: meta.started_ns), metas)
        if carried is not None:
            fleet.add(carried.meta, carried.total)
        for dead in due:
            fleet.add(dead.reader.meta, dead.reader.total())
        generation = 1 if carried is None else carried.generation + 1
        new = Carried(generation, fleet.meta, fleet.total(), absorbed)
        try:
            write_carried(carry_path(self.folder, model), new)
        except StateError as error:
            self.complaints.append(str(error))
            return
        self.merged += len(due)
        for dead in due:
            self._unlink(dead.reader.path)

    def _present(self) -> frozenset[str]:
        """Processes that have a file here, by its name: it need not be readable."""
        return frozenset(path.name.partition("-")[0] for path in state_paths(self.folder))

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink()
            self.removed += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            self.complaints.append(f"{path} cannot be removed ({error.strerror})")

    def _unreadable(self, path: Path, error: StateError) -> None:
        """Note a file that cannot be read; after a day without its writer it goes."""
        self.complaints.append(str(error))
        with contextlib.suppress(OSError):
            if self._abandoned(path, DAY_SECONDS, MAGIC):
                self._unlink(path)

    def _remove_litter(self) -> None:
        """Unlink what processes left that were killed while they created a file."""
        for path in self.folder.glob(f".*{STATE_SUFFIX}.tmp"):
            with contextlib.suppress(OSError):
                if self._abandoned(path, _LITTER_SECONDS, b""):
                    self._unlink(path)
        for path in self.folder.glob(f".*{CARRY_SUFFIX}.tmp"):
            self._unlink(path)

    def _abandoned(self, path: Path, seconds: float, mark: bytes) -> bool:
        """Whether a file of ours has no living writer and was last written long ago."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            age = self.now_ns - os.fstat(descriptor).st_mtime_ns
            if age < seconds * _NS or os.pread(descriptor, len(mark), 0) != mark:
                return False
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return True
        finally:
            os.close(descriptor)


_sweeping = threading.Lock()
_fork_hook_set = False


def _renew() -> None:
    global _sweeping
    _sweeping = threading.Lock()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether this is the only sweeper of a directory, for as long as the block lasts."""
    global _fork_hook_set
    if not _fork_hook_set:
        _fork_hook_set = True
        os.register_at_fork(after_in_child=_renew)
    mine = _sweeping  # a record lock does not keep out other threads of this process
    if not mine.acquire(blocking=False):
        yield False
        return
    try:
        try:
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
        except OSError as error:
            raise StateError(
                f"state_dir {folder} cannot be swept ({error.strerror}); files of dead processes "
                "are removed only where this process may write"
            ) from error
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)
    finally:
        mine.release()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
