"""Which points a broken service level of provisional bounds is known to be about.

While bounds are provisional no point has evidence of its own. A service level that breaks says that
units leave *some* bound. A point is named only where its own count would have broken that level:

- of all traffic, the units that exceeded this point;
- of a segment, whose units are not counted by point, those of its units outside that no other point
  can account for: outside, less all that any other point was exceeded, by whatever traffic.

Either is at most the number of units outside, and evidence grows with that number: so a point is
never named without the level being broken, and the promise of the level is that of the name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from calidrift_analyzer.assess._service_level import Stream, crossing, log_evidence_of
from calidrift_analyzer.records import ModelHistory

__all__ = ["Named", "named_looks", "named_points"]


@final
@dataclass(frozen=True, slots=True)
class Named:
    """A point that broke a service level by itself.

    Attributes:
        look: Row of the history at which it did.
        begun: Row of the look at which its evidence was lowest before, after which the drift is
            said to have begun; -1 where it rose from the first look on.
        largest: Row of the look at which it was largest.
        log_evidence: Natural logarithm of the largest evidence.
    """

    look: int
    begun: int
    largest: int
    log_evidence: float


def named_points(history: ModelHistory, found: Sequence[Stream]) -> Mapping[str, Named]:
    """Name the points that broke a service level by themselves, each at its first such look.

    Args:
        history: Windows in the order of looks.
        found: Service levels of the same windows.

    Cost: 0.5 us per window and point for each level that is broken.
    """
    named: dict[str, Named] = {}
    for stream in found:
        if stream.breach is None:
            continue
        for point, one in _named(history, stream):
            if point not in named or one.look < named[point].look:
                named[point] = one
    return named


def named_looks(named: Mapping[str, Named]) -> tuple[int, ...]:
    """Give the looks at which named points spent evidence."""
    spent = {row for one in named.values() for row in (one.look, one.begun, one.largest)}
    return tuple(sorted(spent - {-1}))


def _named(history: ModelHistory, stream: Stream) -> Iterator[tuple[str, Named]]:
    units, outside = np.cumsum(stream.units), np.cumsum(stream.outside)
    exceeded = np.cumsum(history.exceedances, axis=0)[stream.looks]
    others = exceeded.sum(axis=1)[:, None] - exceeded
    counts = exceeded if stream.segment is None else outside[:, None] - others
    for column, point in enumerate(history.points):
        count = np.clip(counts[:, column], 0, outside)
        evidence = log_evidence_of(count, units, stream.tolerance)
        first = crossing(evidence, stream.log_threshold)
        if first is not None:
            yield point, _of(stream.looks, evidence, first)


def _of(looks: NDArray[np.int64], evidence: NDArray[np.float64], first: int) -> Named:
    lowest, largest = int(evidence[: first + 1].argmin()), int(evidence.argmax())
    return Named(
        look=int(looks[first]),
        begun=int(looks[lowest]) if evidence[lowest] < 0.0 else -1,
        largest=int(looks[largest]),
        log_evidence=float(evidence[largest]),
    )
