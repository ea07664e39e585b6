"""What counts as one unit of inference, where that is more than one call."""

import time
from collections import OrderedDict
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._observe import ObservedCall, Request, RequestContext
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import Folder, RowMaxima

_REMEMBERED: Final = 1 << 16
"""Sessions and keys that are remembered."""
_OPEN: Final = 1024
"""Requests that may go on at the same time; beyond, the oldest is taken to have ended."""
_PATIENCE_SECONDS: Final = 60.0
"""Time without an observed call after which a request is taken to have ended."""


@final
class UnitBook:
    """Decides what is a unit of inference, and puts units together that take several calls.

    A call is a unit of its own, except that

    * the calls of one session, or with one key, are one: the first observed of them;
    * a generated text is one: its first call and its observed steps, at the row that stands for
      it. Its largest magnitudes are those over all of these; it is counted when it has ended,
      which is when its cache is gone or serves another request.

    Used under the engine's lock.

    Args:
        folder: Adds units into windows.
        points: Number of points.
    """

    def __init__(self, folder: Folder, points: int) -> None:
        self._folder = folder
        self._points = points
        self.reset()

    def reset(self) -> None:
        """Forget everything, as the child of a fork must."""
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._open: OrderedDict[Request, _Unit] = OrderedDict()

    def is_unit(self, context: RequestContext) -> bool:
        """Whether a call is a unit: the first observed one of its session or key."""
        name = context.unit
        if name is None:
            return True
        mark = hash(name)
        if mark in self._seen:
            self._seen.move_to_end(mark)
            return False
        self._seen[mark] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def add(self, call: ObservedCall, found: RowMaxima | None, *, whole: bool) -> bool:
        """Take in a call; one that is no request's that may go on is passed over.

        Args:
            call: The call.
            found: Maxima of its rows, None where nothing fired.
            whole: Whether all points could be read; else the request is no unit.

        Returns:
            Whether it is the first call of a unit.
        """
        request = call.request
        if request is None:
            return False
        unit = self._open.get(request)
        if unit is None:
            if call.step:
                return False  # it was counted already, or its first call could not be
            unit = self._open[request] = _Unit(
                np.full(self._points, np.nan), self.is_unit(call.context), call.context.segment
            )
        self._open.move_to_end(request)
        unit.last = time.monotonic()
        unit.counts = unit.counts and whole and call.inclusion_rows * call.rows == request.rows
        if found is not None and unit.counts:
            absmax = unit.absmax
            absmax[found.points] = np.fmax(absmax[found.points], found.absmax[:, call.unit])
        return unit.counts and not call.step

    def settle(self, buffer: WindowBuffer, *, everything: bool = False) -> int:
        """Count the requests that have ended.

        Args:
            buffer: The open window.
            everything: Count all others too: no call of theirs will be waited for.

        Returns:
            Forward time of their steps that were not observed, in nanoseconds.
        """
        spent = 0
        oldest = time.monotonic() - _PATIENCE_SECONDS
        for request in list(self._open):
            unit = self._open[request]
            late = everything or unit.last < oldest or len(self._open) > _OPEN
            if not (late or request.ended):
                continue
            del self._open[request]
            spent += request.forward_ns
            points = np.flatnonzero(~np.isnan(unit.absmax))
            if unit.counts and points.size:
                self._folder.fold_unit(points, unit.absmax[points], unit.segment, buffer)
        return spent


@final
class _Unit:
    """A request that may go on: its largest magnitudes so far."""

    __slots__ = ("absmax", "counts", "last", "segment")

    def __init__(self, absmax: NDArray[np.float64], counts: bool, segment: str | None) -> None:
        self.absmax = absmax
        self.counts = counts
        self.segment = segment
        self.last = 0.0
