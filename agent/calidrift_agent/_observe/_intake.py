"""The bounded way from requests to the drain."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final

from calidrift_agent._observe._autocast import Autocast
from calidrift_agent._observe._compare import Comparison
from calidrift_agent._observe._context import RequestContext
from calidrift_agent._observe._row_check import WantsWhole
from calidrift_agent._observe._steps import Request
from calidrift_agent._points import Frame
from calidrift_agent._taps import Recorder
from calidrift_agent._vocabulary import DropReason

PENDING_CALLS: Final = 64
"""Observed calls that may wait for the drain."""
PENDING_BYTES: Final = 64 * 1024 * 1024
"""Memory that waiting calls may hold; one call is always let in."""
_ATTEMPTS: Final = 100
"""Times that a request drains the queue for itself and finds it full again, with other threads."""
_WAKE_SHARE: Final = 4
"""The drain is woken when 1 / 4 of either limit waits; earlier it comes by itself."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """All rows of a request, kept when the call was cut down to one of them.

    Attributes:
        args: Positional inputs.
        kwargs: Keyword inputs.
        rows: Rows.
        unit: The row that the call stands for now.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rows: int
    unit: int


@final
@dataclass(slots=True, eq=False)
class ObservedCall:
    """One observed call, waiting for the drain.

    Attributes:
        rows: Rows of the request.
        unit: Row that stands for the request.
        context: Segment and session.
        time_ns: When it ran, UTC nanoseconds.
        forward_ns: Time of the host's forward, without the agent's.
        own_ns: The agent's own time inside the request.
        ranges: Readings of the range instrument; None where a shadow pass makes them.
        clips: Readings of the clip instrument; the same recorder where one pass served both.
        args: Copied positional inputs, for a shadow pass or a capture; None where not needed.
        kwargs: Copied keyword inputs.
        copied: Rows that were copied.
        output: Copied row of the output's first tensor, where it is needed.
        size: Bytes that the call holds while it waits.
        inclusion_rows: Rows of the request for each one that was observed.
        comparison: Served output beside that of the reference model.
        autocast: Autocast of the request's thread.
        frame: Where the rows and the padded positions of what was copied are; None for a call
            whose rows alone say it all.
        request: The request that the call belongs to, where further calls of it may come.
        step: Whether it is one of these further calls.
        batch: All rows of it, where they were copied and the call was cut down to one since.
    """

    rows: int
    unit: int
    context: RequestContext
    time_ns: int
    forward_ns: int = 0
    own_ns: int = 0
    ranges: Recorder | None = None
    clips: Recorder | None = None
    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    copied: int = 0
    output: Any = None
    size: int = 0
    inclusion_rows: int = 1
    comparison: Comparison | None = None
    autocast: Autocast = ()
    frame: Frame | None = None
    request: Request | None = None
    step: bool = False
    batch: Batch | None = None

    def narrow(self) -> None:
        """Stand for one row only from now on: the one that stands for the request."""
        if self.frame is not None and self.frame.rows > 1:
            frame = self.frame.row(self.unit)
            self.frame = None if frame.is_plain else frame
        self.inclusion_rows *= self.rows
        self.rows, self.unit = 1, 0

    @property
    def real_rows(self) -> int:
        """Rows that are not padding altogether."""
        if self.frame is None or not self.frame.masks:
            return self.rows
        return int(self.frame.real.sum())


@final
@dataclass(frozen=True, slots=True)
class Keep:
    """What is copied of an observed call beside its readings.

    Attributes:
        inputs: The inputs of the row that stands for the request.
        batch: The inputs of all rows (for captures).
        output: That row of the output's first tensor.
        whole: Says of which calls the inputs of all rows are copied; None for none.
    """

    inputs: bool = False
    batch: bool = False
    output: bool = False
    whole: WantsWhole | None = None

    def takes_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """Whether the inputs of all rows of a call are copied."""
        return self.batch or (self.whole is not None and self.whole(args, kwargs, rows))


NOTHING: Final = Keep()


class Desk(Protocol):
    """What an observer needs from the watch it works for."""

    def arrived(self, *, crowded: bool) -> None:
        """A call waits; `crowded` asks the drain to come now."""

    def relieve(self) -> bool:
        """Drain here and now if the watch may not drop anything; whether it did."""


@final
class Intake:
    """Calls that wait for the drain.

    Args:
        desk: The watch.
        dropped: Called for each call that finds no room.
        limit: Calls that may wait.
    """

    __slots__ = ("_bytes", "_calls", "_desk", "_dropped", "_limit", "_lock")

    def __init__(
        self, desk: Desk, dropped: Callable[[DropReason], None], limit: int = PENDING_CALLS
    ) -> None:
        self._desk = desk
        self._dropped = dropped
        self._limit = limit
        self.reset()

    def reset(self) -> None:
        """Forget all calls, with a new lock, as the child of a fork must."""
        # Re-entrant: a signal handler of this thread may call the model while it is held.
        self._lock = threading.RLock()
        self._calls: deque[ObservedCall] = deque()
        self._bytes = 0

    def has_room(self) -> bool:
        """Whether another call may come; if not, one is counted as dropped.

        Asked before a call is observed, so that nothing is measured in vain.
        """
        for _ in range(_ATTEMPTS):
            if self._open():
                return True
            if not self._desk.relieve():
                break
        self._dropped(DropReason.QUEUE_FULL)
        return False

    def put(self, call: ObservedCall) -> None:
        """Leave an observed call; never blocks, and the limits may be passed by racing threads."""
        with self._lock:
            self._calls.append(call)
            self._bytes += call.size
            crowded = (
                len(self._calls) * _WAKE_SHARE >= self._limit
                or self._bytes * _WAKE_SHARE >= PENDING_BYTES
            )
        self._desk.arrived(crowded=crowded)

    def take(self) -> ObservedCall | None:
        """Return the oldest call, or None."""
        with self._lock:
            if not self._calls:
                return None
            call = self._calls.popleft()
            self._bytes -= call.size
            return call

    def __len__(self) -> int:
        return len(self._calls)

    def _open(self) -> bool:
        return len(self._calls) < self._limit and self._bytes < PENDING_BYTES
