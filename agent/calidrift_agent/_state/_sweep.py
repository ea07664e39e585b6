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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from calidrift_agent._environment import folder_at
from calidrift_agent._state._alone import alone_in
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
from calidrift_agent._state._reader import (
    StateReader,
    copy_complaint,
    is_own_name,
    scan,
    state_paths,
)
from calidrift_agent._state._writer import STATE_SUFFIX
from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent.errors import ConfigurationError, StateError, StateFormatError

LOCK_NAME: Final = ".sweep.lock"
CAPTURES: Final = "captures"
"""Folder in a state directory that holds a folder of captures per process."""
DAY_SECONDS: Final = 86_400.0
"""How long files are kept that another boot of the machine wrote, or that cannot be read."""
_LITTER_SECONDS: Final = 60.0
_NEEDED_SECONDS: Final = 60.0
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
        capture_bytes: Disk space that captures may take, of all processes together; beyond it the
            processes that died first lose theirs; one that can keep some loses the others at
            random, and its index says so. Those of living ones never go: each keeps within its
            own `CaptureOptions`.
        capture_count: The same for their number.
    """

    retention_seconds: float = 3_600.0
    dead_bytes: int = 256 * 1024 * 1024
    capture_bytes: int = 2 * 1024 * 1024 * 1024
    capture_count: int = 4_096

    def __post_init__(self) -> None:
        if not 0.0 <= self.retention_seconds <= 366 * DAY_SECONDS:
            raise ConfigurationError(
                f"retention_seconds is {self.retention_seconds!r}, but must be 0 to 31622400 (a "
                "year); 3600 suits an analyzer that comes by every few minutes"
            )
        for name in ("dead_bytes", "capture_bytes", "capture_count"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ConfigurationError(
                    f"{name} must be a whole number of at least 0, got {value!r}"
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
        captures: Captures of dead processes that were unlinked.
        complaints: One sentence for each thing that could not be read, written or unlinked.
    """

    busy: bool = False
    merged: int = 0
    removed: int = 0
    kept: int = 0
    captures: int = 0
    complaints: tuple[str, ...] = ()


def sweep(
    directory: Path | str,
    options: SweepOptions | None = None,
    *,
    pause_seconds: float = 0.0,
    now_ns: int | None = None,
    needed: Callable[[str], bool] | None = None,
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
        needed: Says of a process whether somebody has not read all of its windows yet. Such a file
            stays for a minute at the least, and is the last one to make room for others.

    Raises:
        StateError: The directory cannot be used.

    Cost: about 0.2 ms per file, and 2 ms per file that is merged (40 points).
    """
    folder = folder_at(directory)
    if not folder.exists():
        return SweepReport()
    now = time.time_ns() if now_ns is None else now_ns
    if pause_seconds and 0 <= now - _last_swept_ns(folder) < pause_seconds * _NS:
        return SweepReport(busy=True)
    with alone_in(folder, LOCK_NAME) as alone:
        if not alone:
            return SweepReport(busy=True)
        wanted = needed or _nobody_needs
        report = _Sweep(folder, options or SweepOptions(), now, wanted).run()
        with contextlib.suppress(OSError):
            os.utime(folder / LOCK_NAME)
        return report


def _nobody_needs(process: str) -> bool:
    return False


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
    needed: Callable[[str], bool] = _nobody_needs
    boot: str = field(default_factory=boot_id)
    merged: int = 0
    removed: int = 0
    kept: int = 0
    complaints: list[str] = field(default_factory=list)

    def run(self) -> SweepReport:
        self._remove_litter()
        readers = [one for one in scan(self.folder, self._unreadable) if self._is_its_own(one)]
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
            thinned = self._thin_out({one.meta.process for one in readers if one.alive})
        finally:
            for reader in readers:
                reader.close()
        return SweepReport(
            merged=self.merged,
            removed=self.removed,
            kept=self.kept,
            captures=thinned,
            complaints=tuple(self.complaints),
        )

    def _is_its_own(self, reader: StateReader) -> bool:
        """Whether a file has its own name: a copy of one must not count, nor be taken for it."""
        if is_own_name(reader):
            return True
        self.complaints.append(copy_complaint(reader))
        reader.close()
        return False

    def _thin_out(self, living: set[str]) -> int:
        """Keep the captures of all processes within bounds; returns how many went."""
        captures = self.folder / CAPTURES
        if not captures.is_dir():
            return 0
        from calidrift_agent._capture import thin_out  # most sweepers never need it

        options = self.options
        bounds = options.capture_bytes, options.capture_count
        found = thin_out(captures, *bounds, living.__contains__)
        self.complaints.extend(found.complaints)
        return found.removed

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
        if self.needed(reader.meta.process):
            wanted = max(wanted, _NEEDED_SECONDS)
        boot = reader.meta.boot
        return max(wanted, DAY_SECONDS) if boot and self.boot and boot != self.boot else wanted

    def _crowded_out(self, waiting: list[_Dead]) -> list[_Dead]:
        """Those of the waiting that there is no room for, the oldest first."""
        excess = sum(dead.size for dead in waiting) - self.options.dead_bytes
        crowded: list[_Dead] = []
        for dead in sorted(waiting, key=self._dispensable, reverse=True):
            if excess <= 0:
                break
            if self._retention(dead.reader) <= self.options.retention_seconds:
                crowded.append(dead)
                excess -= dead.size
        return crowded

    def _dispensable(self, dead: _Dead) -> tuple[bool, float]:
        return not self.needed(dead.reader.meta.process), dead.age_seconds

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
        # Never one that a file of this name had before: readers know the content by it.
        generation = max(self.now_ns, 1) if carried is None else carried.generation + 1
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
