"""Reads state files of other processes without disturbing them (`pread`, no mapping)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from calidrift_agent._state._layout import HEADER_BYTES, checksum, read_layout
from calidrift_agent._state._meta import StateMeta
from calidrift_agent._state._slots import SlotReader
from calidrift_agent._state._window import NO_WINDOW, Window
from calidrift_agent._state._writer import STATE_SUFFIX
from calidrift_agent._vocabulary import WindowFlag
from calidrift_agent.errors import ConfigurationError, StateError, StateFormatError

_ATTEMPTS: Final = 100


@final
@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a reader got.

    Attributes:
        windows: New windows, by number. Their numbers follow each other, except that a COARSE
            window stands for all numbers up to its own that are not here.
        overrun: Whether the ring had lost windows that the caller did not have yet.
        missing: First and last number that could be neither read nor made up; None when complete.
        damaged: One sentence per damaged slot.
        final: The process is dead and this is all there will ever be.
        last: Number to hand in as `after` next time.
    """

    windows: tuple[Window, ...]
    overrun: bool
    missing: tuple[int, int] | None
    damaged: tuple[str, ...]
    final: bool
    last: int


@final
class StateReader:
    """Reads one state file; open it with `StateReader.open`, use it as a context manager.

    Example:
        >>> import tempfile
        >>> from calidrift_agent._state import StateMeta, StateWriter, WindowBuffer
        >>> from calidrift_agent._vocabulary import Instrument, Strategy
        >>> meta = StateMeta("0" * 32, "", 1, 0, "net", "", Instrument.RANGE, Strategy.INSTEAD,
        ...                  "0.1.0", 10.0, ())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = StateWriter.create(folder, meta)
        ...     buffer = WindowBuffer(0, window_seconds=10.0, now_ns=0)
        ...     buffer.requests[0] += 5
        ...     writer.write_closed(buffer.close(10_000_000_000))
        ...     writer.write_cumulative(buffer.cumulative())
        ...     with StateReader.open(writer.path) as reader:
        ...         result = reader.windows()
        ...         print(reader.alive, [int(w.requests[0]) for w in result.windows], result.last)
        ...     writer.close()
        True [5] 0
    """

    def __init__(self, path: Path, descriptor: int, meta: StateMeta, slots: SlotReader) -> None:
        self._path = path
        self._descriptor = descriptor
        self._meta = meta
        self._slots = slots

    @classmethod
    def open(cls, path: Path | str) -> StateReader:
        """Open a state file and check its header.

        Raises:
            StateFormatError: Damaged, cut short, foreign, or written by a newer version.
            StateError: The file cannot be opened.
        """
        path = Path(path)
        try:
            # O_NONBLOCK: somebody's pipe in the directory must not hang the reader.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StateError(f"state file {path} cannot be opened ({reason})") from error
        try:
            size = os.fstat(descriptor).st_size
            layout, check = read_layout(os.pread(descriptor, HEADER_BYTES, 0), size)
            slots = SlotReader(descriptor, layout)
            description = slots.pread(layout.meta_bytes, HEADER_BYTES)
            if checksum(description) != check:
                raise StateFormatError("its description is damaged (checksum does not fit)")
            meta = StateMeta.from_json(description.decode())
            if len(meta.points) != layout.points:
                raise StateFormatError(
                    f"its header says {layout.points} points, its description names "
                    f"{len(meta.points)}"
                )
        except (OSError, UnicodeDecodeError) as error:
            os.close(descriptor)
            raise StateFormatError(f"state file {path}: {error}") from error
        return cls(path, descriptor, meta, slots)

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._path

    @property
    def meta(self) -> StateMeta:
        """Identity of process and model, and the points in row order."""
        return self._meta

    @property
    def alive(self) -> bool:
        """Whether the writing process lives and has not closed the file.

        Asked from the lock on the file, never from the pid. On a network file system without
        `flock` across hosts the answer is only right on the writer's host.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    def cumulative(self) -> Window | None:
        """Sum of all closed windows; None before the first one was closed.

        Raises:
            StateFormatError: Both slots are damaged.
        """
        return self._newest("cumulative")[0]

    def live(self) -> Window | None:
        """The open window as last written (of a dead process: its last one); None before that.

        It may be one that was closed since: compare its number with `cumulative()`.

        Raises:
            StateFormatError: Both slots are damaged.
        """
        return self._newest("live")[0]

    def total(self) -> Window:
        """Sum of everything, the open window included; for exporters of monotone counters.

        Of a dead process it is the sum of `windows()`, whatever moment it died at.

        Raises:
            StateFormatError: Slots are damaged, or the writer closes windows faster than they
                can be read.
        """
        for _ in range(_ATTEMPTS):
            alive = self.alive
            total = self.cumulative() or Window.empty(
                len(self._meta.points), at_ns=self._meta.started_ns
            )
            if not alive:
                for window in self.windows(after=total.number).windows:
                    total = total.plus(window)
                return total
            live = self.live()
            if live is None or live.number <= total.number:
                return total
            if live.number == total.number + 1:
                return total.plus(live)
        raise StateFormatError(f"state file {self._path}: live and cumulative slots do not meet")

    def windows(self, after: int | None = None, already: Window | None = None) -> ReadResult:
        """All windows after number `after`, each exactly once over repeated calls.

        The ring keeps a few minutes. Windows that it lost before the caller came are made up as
        one COARSE window: the cumulative sum minus `already` minus the windows that are here, so
        that no count is lost or doubled. Of a dead process the open window comes last.

        Args:
            after: Number of the last window the caller has; default: that of `already`, or none.
            already: Sum of all windows the caller has of this file, numbered `after`. Without
                it, an overrun after window 0 or later is reported in `missing`.

        Raises:
            ConfigurationError: `after` and the number of `already` differ.
            StateFormatError: `already` is not a part of this file's sum, or the file was cut.
        """
        after, base = self._starting_point(after, already)
        alive = self.alive
        total, complaints = self._try_newest("cumulative")
        intact, ring_complaints = self._slots.ring(after)
        through = NO_WINDOW if total is None else total.number
        last = _deliverable_end(max(through, after), intact, alive=alive)
        chosen = {number: window for number, window in intact.items() if number <= last}
        overrun = last - after > len(chosen)
        summed = _gap(after + 1, through, chosen)
        beyond = _gap(max(through, after) + 1, last, chosen)
        if summed is not None and total is not None and base is not None:
            chosen[summed[1]] = _coarse(total, base, chosen, summed[1])
            summed = None
        live_complaints: tuple[str, ...] = ()
        if not alive:
            live, live_complaints = self._try_newest("live")
            if live is not None and live.number > last and not live.is_empty:
                chosen[live.number] = live
                last = live.number
        return ReadResult(
            windows=tuple(chosen[number] for number in sorted(chosen)),
            overrun=overrun,
            missing=_span(summed, beyond),
            damaged=complaints + ring_complaints + live_complaints,
            final=not alive,
            last=last,
        )

    def remove(self) -> None:
        """Unlink the file of a dead process. Files are unlinked, never truncated.

        Raises:
            StateError: The process lives, or the file cannot be unlinked.
        """
        if self.alive:
            raise StateError(
                f"state file {self._path} belongs to a living process and is not removed; stop "
                "the process or close its watch first"
            )
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(
                f"state file {self._path} cannot be removed ({error.strerror})"
            ) from error

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _starting_point(
        self, after: int | None, already: Window | None
    ) -> tuple[int, Window | None]:
        if already is None:
            after = NO_WINDOW if after is None else after
            nothing = Window.empty(len(self._meta.points), at_ns=self._meta.started_ns)
            return after, (nothing if after == NO_WINDOW else None)
        if after is not None and after != already.number:
            raise ConfigurationError(
                f"after={after} but the sum that was handed in goes through window "
                f"{already.number}; both must name the same window"
            )
        return already.number, already

    def _newest(self, what: str) -> tuple[Window | None, tuple[str, ...]]:
        offsets = self._slots.layout.live if what == "live" else self._slots.layout.cumulative
        try:
            return self._slots.newest(offsets, what, lambda: self.alive)
        except StateFormatError as error:
            raise StateFormatError(f"state file {self._path}: {error}") from error

    def _try_newest(self, what: str) -> tuple[Window | None, tuple[str, ...]]:
        try:
            return self._newest(what)
        except StateFormatError as error:
            return None, (str(error),)


def scan(
    directory: Path | str, on_damaged: Callable[[Path, StateError], None] | None = None
) -> list[StateReader]:
    """Open all state files of a directory, by name. The caller closes the readers.

    Files that cannot be read are handed to `on_damaged` and left out; a directory that does not
    exist (no process has started yet) has no files.

    Raises:
        StateError: The directory cannot be listed.
    """
    readers: list[StateReader] = []
    for path in state_paths(directory):
        try:
            readers.append(StateReader.open(path))
        except StateError as error:
            if on_damaged is not None:
                on_damaged(path, error)
    return readers


def state_paths(directory: Path | str) -> list[Path]:
    """Paths of all state files of a directory, by name; none where it does not exist.

    Raises:
        StateError: The directory cannot be listed.
    """
    try:
        return sorted(Path(directory).glob(f"[!.]*{STATE_SUFFIX}"))
    except OSError as error:
        raise StateError(f"state_dir {directory} cannot be listed ({error.strerror})") from error


def is_own_name(reader: StateReader) -> bool:
    """Whether a file has the name that its process gave it: a copy has the same content.

    A process that two files speak of would count twice.
    """
    return reader.path.name.startswith(f"{reader.meta.process}-")


def copy_complaint(reader: StateReader) -> str:
    """Say of a file that it has not the name that its process gave it."""
    return (
        f"state file {reader.path} is a copy, or was renamed: it is not counted; its name must "
        f"begin with {reader.meta.process}-"
    )


def _deliverable_end(number: int, intact: Mapping[int, Window], *, alive: bool) -> int:
    """Last window that can be handed out: those behind a hole wait for the next sum to fill it."""
    while number + 1 in intact:
        number += 1
    return number if alive else max([number, *intact])


def _gap(first: int, last: int, present: Mapping[int, Window]) -> tuple[int, int] | None:
    """First and last number of first..last that is not present."""
    while first <= last and first in present:
        first += 1
    while last >= first and last in present:
        last -= 1
    return (first, last) if first <= last else None


def _span(*gaps: tuple[int, int] | None) -> tuple[int, int] | None:
    found = [number for gap in gaps if gap is not None for number in gap]
    return (min(found), max(found)) if found else None


def _coarse(total: Window, base: Window, intact: Mapping[int, Window], number: int) -> Window:
    """The windows up to `number` that are neither in `base` nor intact, as one."""
    rest = total.minus(base)
    for window in intact.values():
        if window.number <= total.number:
            rest = rest.minus(window)
    follower = intact.get(number + 1)
    end_ns = total.end_ns if follower is None else follower.start_ns
    start_ns = total.start_ns if base.number == NO_WINDOW else base.end_ns
    return replace(
        rest,
        number=number,
        start_ns=min(start_ns, end_ns),
        end_ns=end_ns,
        flags=WindowFlag.COARSE,
    )
