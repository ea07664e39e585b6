"""From codes to clipping: what stands on the outermost codes and should not."""

import math
from collections.abc import Sequence
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._profile import ClipBound
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps._codes import CodeReading
from calidrift_agent._taps._table import PointTable
from calidrift_agent._vocabulary import CountColumn

_NEIGHBOURS: Final = 4
"""Codes next to a rail whose mean tells how many values a rail holds without clipping."""
_MEMORY: Final = 1.0 - 1.0 / 64.0
"""Calls in which the rail held less than expected are forgotten at this rate."""
_COLUMNS: Final = (CountColumn.CLIP_LOW, CountColumn.CLIP_HIGH)


def rail_excess(
    histogram: NDArray[np.int64], lowest: int, bound: ClipBound, rates: Sequence[float]
) -> tuple[float, float]:
    """Return by how much the outermost codes hold more values than they should.

    A value on a rail is not yet clipped: a rail is also the code of the values within half a step
    of it, and what calibration itself clipped (a percentile range) or put there (a constant) is no
    drift. So from the values on a rail is taken what is expected there, the larger of

    * the mean of the 4 codes next to it: values within half a step, if the values go on beyond the
      rail as they came;
    * the rate at calibration, where it is known.

    The rest estimates the values that lie beyond the range by more than half a step, which is what
    the exact instruments count as clipped. A rail that is the code of zero is never clipping by
    itself: behind a ReLU it holds the real zeros.

    Args:
        histogram: int64 (256,), how often each code occurs.
        lowest: The code that stands first in it.
        bound: The quantizer's range; `qmin` and `qmax` are the operation's own rails.
        rates: Share of the calibration's values on the lowest and the highest code; NaN unknown.

    Returns:
        Excess at the low and at the high rail; below 0 where there are fewer than expected.

    Example:
        >>> codes = np.zeros(256, np.int64)
        >>> codes[250:256] = 10, 10, 10, 10, 10, 1010
        >>> rail_excess(codes, 0, ClipBound.of_quantizer(1.0, 0, 0, 255, "quint8"), (0.0, 0.0))
        (0.0, 1000.0)
    """
    low, high = bound.qmin - lowest, bound.qmax - lowest
    width = min(_NEIGHBOURS, high - low - 1)
    total = float(histogram.sum())
    excess = [0.0, 0.0]
    for side, (rail, first) in enumerate(((low, low + 1), (high, high - width))):
        if bound.zero_point - lowest == rail or width < 1:
            continue
        inside = float(histogram[first : first + width].mean())
        known = 0.0 if math.isnan(rates[side]) else rates[side] * total
        excess[side] = float(histogram[rail]) - max(inside, known)
    return excess[0], excess[1]


@final
class RailFolder:
    """Adds estimated clip counts of quantized tensors into windows; under the owner's lock.

    Counters only rise, estimates are as often below zero as above: adding the positive ones alone
    would count noise as clipping. So what a call was below is taken from the calls after it, and
    forgotten within about 64 calls, so that a long calm time does not hide what comes then.

    Args:
        table: Points and bounds.
    """

    __slots__ = ("_carry", "_table")

    def __init__(self, table: PointTable) -> None:
        self._table = table
        self._carry = np.zeros((len(table), 2))

    def fold(self, readings: Sequence[CodeReading], buffer: WindowBuffer) -> None:
        """Add the codes of one call. Clipped energy is not known: it is not added.

        Cost: 10 us for each tensor, and counting its codes.
        """
        carry = self._carry
        for reading in readings:
            clip = self._table.clips[reading.point]
            if clip is None:
                continue
            counts = buffer.counts[reading.point]
            counts[CountColumn.CLIP_ELEMENTS] += reading.numel
            excess = rail_excess(
                reading.histogram(), reading.lowest, clip, self._table.rail_rates[reading.point]
            )
            for side, column in enumerate(_COLUMNS):
                left = carry[reading.point, side] + excess[side]
                whole = max(math.floor(left), 0)
                counts[column] += whole
                left -= whole
                carry[reading.point, side] = left * _MEMORY if left < 0.0 else left
