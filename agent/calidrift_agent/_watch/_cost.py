"""What a watch costs, apart from what it observes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from calidrift_agent._sketch import CELLS
from calidrift_agent._state import PointMeta
from calidrift_agent._vocabulary import COUNT_COLUMNS, VALUE_COLUMNS
from calidrift_agent._watch._detection import ReferenceUnits
from calidrift_agent._watch._engine import Engine
from calidrift_agent._watch._storage import Storage
from calidrift_agent.errors import ConfigurationError

_COPIES: Final = 2
"""The open window, and the sum of the closed ones."""
_RECENT: Final = 16
"""Maxima of closed windows that are kept for a scrape."""
POINT_BYTES: Final = 8 * (_COPIES * (COUNT_COLUMNS + VALUE_COLUMNS + CELLS) + _RECENT)
"""Memory of one point in one process."""


@final
@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a watch costs in one process.

    Attributes:
        points: Number of points.
        point_bytes: Memory that one point takes for what was counted: sketches, counts, extremes.
        file_bytes: Size of the state file, which stays as it is; None where there is none.
        copy_bytes: Memory kept for copies of tensors, as far as calls have asked for it by now;
            64 MiB at most for each of the two threads of a watch that copy.
        weight_bytes: Memory kept for weights of a quantized graph that its shadow pass dequantized,
            once per process and 256 MiB at most, and for copies of those that were made in
            inference mode; 0 before the first pass.
        own_seconds: The agent's own time per observed request, in the request and beside it, a
            running mean; None before it was measured (the first two observed requests do not
            count).
        forward_seconds: Time of the forward of an observed request, the same way.
    """

    points: int
    point_bytes: int = POINT_BYTES
    file_bytes: int | None = None
    copy_bytes: int = 0
    weight_bytes: int = 0
    own_seconds: float | None = None
    forward_seconds: float | None = None

    @property
    def state_bytes(self) -> int:
        """Memory that all points take."""
        return self.points * self.point_bytes

    @property
    def series(self) -> int:
        """Most Prometheus series of this watch; loads the Prometheus client."""
        from calidrift_agent._export import series_of

        return series_of(self.points)

    def ratio_within(self, budget: float) -> float | None:
        """Largest sampling ratio at which observing takes no more than a share of the forward time.

        Args:
            budget: The share, e.g. 0.01 for 1 %.

        Returns:
            In (0, 1]; None before it was measured.

        Raises:
            ConfigurationError: `budget` is no share.

        Example:
            >>> CostEstimate(3, own_seconds=0.004, forward_seconds=0.002).ratio_within(0.01)
            0.005
        """
        if not 0.0 < budget <= 1.0:
            raise ConfigurationError(
                f"budget is {budget!r}, but is a share of the forward time above 0 and up to 1"
            )
        if self.own_seconds is None or self.forward_seconds is None:
            return None
        return min(1.0, budget * self.forward_seconds / self.own_seconds)


def cost_of(engine: Engine, storage: Storage) -> CostEstimate:
    """What a watch costs in this process, as far as it is known by now."""
    own, forward = (ns / 1e9 if ns > 0.0 else None for ns in engine.books.price)
    path = storage.path
    try:
        size = None if path is None else path.stat().st_size
    except OSError:  # somebody removed it
        size = None
    points = len(engine.books.meta.points)
    return CostEstimate(
        points,
        file_bytes=size,
        copy_bytes=engine.books.copy_bytes,
        weight_bytes=engine.books.weight_bytes,
        own_seconds=own,
        forward_seconds=forward,
    )


def reference_units(storage: Storage, points: Iterable[PointMeta]) -> tuple[ReferenceUnits, ...]:
    """What the observed bounds of points rest on, in the order of those that have one."""
    profile = storage.profile
    if profile is None:
        return ()
    bounded = (point for point in points if point.observed_bound is not None)
    found = (
        next(filter(None, map(profile.find, (point.name, *point.aliases))), None)
        for point in bounded
    )
    bounds = (entry.observed_bound for entry in found if entry is not None)
    return tuple(ReferenceUnits(one.rank, one.units) for one in bounds if one is not None)
