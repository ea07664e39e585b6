"""The open window and the sum of all closed ones, owned by the drain thread."""

from __future__ import annotations

from collections import deque
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import CELLS
from calidrift_agent._state._window import SegmentCount, Window, absmax_of, empty_values
from calidrift_agent._vocabulary import COUNT_COLUMNS, REQUEST_COLUMNS, WindowFlag
from calidrift_agent.errors import ConfigurationError

MAX_SEGMENTS: Final = 64
"""Segment names a process keeps apart; later ones are counted under `OVERFLOW_SEGMENT`."""
MAX_SEGMENT_BYTES: Final = 128
"""UTF-8 bytes of a segment name that are kept."""
OVERFLOW_SEGMENT: Final = "(other)"
RECENT_SECONDS: Final = 120.0
"""How long a maximum stays in `recent_absmax`: two scrapes a minute apart both see it."""
_NS: Final = 1_000_000_000
_RECENT_STEP_NS: Final = 10 * _NS


@final
class WindowBuffer:
    """Accumulates the open window in place and closes it at UTC-aligned ends.

    The arrays `requests`, `counts`, `values` and `cells` keep their identity for the life of the
    buffer: add into them. Who adds to `cells` and counts that in `additions`, each time, saves the
    writer of the state file looking through all of them when nothing was added. One thread owns
    the buffer; a scrape from another thread must take the owner's lock around `total()`.

    Windows are numbered from 0 without gaps. The reported start never lies before the end of the
    window before it, even when the host's clock is set back: until the clock has caught up,
    windows still close at their usual pace but report zero length.

    `standing` holds flags that the open window and all later ones carry.

    Args:
        points: Number of points P.
        window_seconds: Length of a window, at least 0.001; ends fall on its multiples in UTC.
        now_ns: Current UTC time in nanoseconds.

    Raises:
        ConfigurationError: `window_seconds` or `points` is not usable.

    Example:
        >>> buffer = WindowBuffer(1, window_seconds=10.0, now_ns=12_000_000_000)
        >>> buffer.requests[0] += 3
        >>> window = buffer.close(21_000_000_000)
        >>> window.number, window.start_ns // 10**9, window.end_ns // 10**9
        (0, 12, 20)
        >>> int(window.requests[0]), int(buffer.requests[0])
        (3, 0)
    """

    def __init__(self, points: int, *, window_seconds: float, now_ns: int) -> None:
        if points < 0:
            raise ConfigurationError(f"points must be 0 or more, got {points}")
        if not 0.001 <= window_seconds <= 86_400.0:
            raise ConfigurationError(
                f"window_seconds must be between 0.001 and 86400, got {window_seconds}"
            )
        self.requests: NDArray[np.int64] = np.zeros(REQUEST_COLUMNS, np.int64)
        self.counts: NDArray[np.int64] = np.zeros((points, COUNT_COLUMNS), np.int64)
        self.values: NDArray[np.float64] = empty_values(points)
        self.cells: NDArray[np.int64] = np.zeros((points, CELLS), np.int64)
        self.sampling_ratio: float = 0.0
        self.additions = 0
        self.standing = WindowFlag.NONE
        self._segment_rows: dict[str, int] = {}
        self._segment_counts = np.zeros((MAX_SEGMENTS + 1, 2), np.int64)
        self._length_ns = round(window_seconds * _NS)
        self._number = 0
        # A full deque forgets the oldest entry by itself; 16 steps are 160 seconds.
        self._recent: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=16)
        self._closed = Window.empty(points, at_ns=now_ns)
        self._reported_ns = now_ns
        self._opened_ns = now_ns
        self._due_ns = self._next_end(now_ns)

    @property
    def number(self) -> int:
        """Number of the open window."""
        return self._number

    @property
    def points(self) -> int:
        """Number of points P."""
        return int(self.cells.shape[0])

    def due(self, now_ns: int) -> bool:
        """Whether the open window must be closed before anything is added at `now_ns`."""
        return now_ns >= self._due_ns or now_ns < self._opened_ns

    def add_segment(self, name: str, units: int, covered: int) -> None:
        """Count `units` units of a segment, `covered` of them inside every observed bound.

        Only the first `MAX_SEGMENTS` names of the process are kept apart (a host that puts a
        request id here must not grow the file); the rest is counted under `(other)`.
        """
        row = self._segment_rows.get(name)
        if row is None:
            row = self._new_segment(name)
        pair = self._segment_counts[row]
        pair[0] += units
        pair[1] += covered

    def _new_segment(self, name: str) -> int:
        shortened = name.encode("utf-8", "replace")[:MAX_SEGMENT_BYTES].decode("utf-8", "ignore")
        rows = self._segment_rows
        if shortened in rows:
            return rows[shortened]
        if len(rows) >= MAX_SEGMENTS:
            return rows.setdefault(OVERFLOW_SEGMENT, len(rows))
        return rows.setdefault(shortened, len(rows))

    def open_window(self, now_ns: int) -> Window:
        """The open window as it stands, ending now. Its arrays are the live ones, not copies."""
        return self._view(max(now_ns, self._reported_ns), WindowFlag.EARLY)

    def close(self, now_ns: int, flags: WindowFlag = WindowFlag.NONE) -> Window:
        """Close the open window, add it to the sum, and open the next one.

        Args:
            now_ns: Current UTC time in nanoseconds.
            flags: Added to the flags of the closed window; EARLY is set where it ends before its
                aligned end.

        Returns:
            The closed window with its own copies of the arrays. It ends at the aligned end where
            that has passed, else now; never before its start.
        """
        early = now_ns < self._due_ns
        end_ns = max(min(now_ns, self._due_ns), self._reported_ns)
        view = self._view(end_ns, flags | (WindowFlag.EARLY if early else WindowFlag.NONE))
        window = Window(
            number=view.number,
            start_ns=view.start_ns,
            end_ns=view.end_ns,
            flags=view.flags,
            sampling_ratio=view.sampling_ratio,
            requests=view.requests.copy(),
            segments=view.segments,
            counts=view.counts.copy(),
            values=view.values.copy(),
            cells=view.cells.copy(),
        )
        self._closed = self._closed.plus(window)
        self._remember(window, now_ns)
        self._reset()
        self._number += 1
        start = now_ns if early else now_ns - now_ns % self._length_ns
        self._reported_ns = max(start, end_ns)
        self._opened_ns = now_ns
        self._due_ns = self._next_end(now_ns)
        return window

    def cumulative(self) -> Window:
        """Sum of all *closed* windows, numbered as the last of them; `NO_WINDOW` before that.

        The returned window never changes: closing replaces it.
        """
        return self._closed

    def total(self) -> Window:
        """Sum of everything so far, the open window included, numbered as the open one."""
        return self._closed.plus(self.open_window(self._opened_ns))

    def recent_absmax(self, now_ns: int) -> NDArray[np.float64]:
        """Largest magnitude per point over the last two minutes and the open window.

        Windows that were closed more than `RECENT_SECONDS` and ten seconds ago do not count.

        Returns:
            float64 (P,), -inf for a point that saw no finite value in that time. Exact: every
            element of every observed row counts, not only the sampled ones.
        """
        highest = absmax_of(self.values)
        oldest = now_ns - round(RECENT_SECONDS * _NS)
        for closed_ns, absmax in self._recent:
            if closed_ns + _RECENT_STEP_NS >= oldest:
                np.maximum(highest, absmax, out=highest)
        return highest

    def _view(self, end_ns: int, flags: WindowFlag) -> Window:
        return Window(
            number=self._number,
            start_ns=self._reported_ns,
            end_ns=end_ns,
            flags=flags | self.standing,
            sampling_ratio=self.sampling_ratio,
            requests=self.requests,
            segments=self._open_segments(),
            counts=self.counts,
            values=self.values,
            cells=self.cells,
        )

    def _open_segments(self) -> tuple[SegmentCount, ...]:
        counted = zip(self._segment_rows, self._segment_counts.tolist(), strict=False)
        return tuple(SegmentCount(name, *pair) for name, pair in counted if pair[0])

    def _remember(self, window: Window, now_ns: int) -> None:
        """Keep the maxima of a closed window, in a dozen entries however often windows close."""
        absmax = absmax_of(window.values)
        if self._recent and 0 <= now_ns - self._recent[-1][0] < _RECENT_STEP_NS:
            started_ns, older = self._recent[-1]
            self._recent[-1] = (started_ns, np.maximum(older, absmax))
        else:
            self._recent.append((now_ns, absmax))

    def _reset(self) -> None:
        self.requests.fill(0)
        self.counts.fill(0)
        self.cells.fill(0)
        self.values[:] = empty_values(self.points)
        self._segment_counts.fill(0)

    def _next_end(self, now_ns: int) -> int:
        return (now_ns // self._length_ns + 1) * self._length_ns
