"""How often a request may be observed, so that the agent stays within its budget."""

from dataclasses import dataclass
from typing import Final, final

FLOOR: Final = 1e-5
"""Lowest sampling ratio: one request in 100,000."""
PASS_LIMIT: Final = 20.0
"""Forward times that observing one request may take before the ratio is cut to fit at once."""
OVERRUN: Final = 3.0
"""Times the budget that makes a window one too many."""
OVERRUN_WINDOWS: Final = 3
"""Windows in a row over `OVERRUN` times the budget after which a watch gives up."""
_WARM_UP: Final = 2
"""Observed calls that do not count: the first ones make plans and fill caches."""
_MEMORY: Final = 0.3
"""Weight of the newest measurement in the running means."""
_SLACK: Final = 0.8
"""Below this share of the target the ratio is raised."""
_STEP: Final = 0.05
"""Largest rise per update, as a share of the upper limit."""


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """What observed calls took.

    Attributes:
        calls: Observed calls.
        own_ns: Time that observing them took, in requests and beside them.
        forward_ns: Forward time of these calls.
        dearest_ns: The largest own time of one of them.
    """

    calls: int
    own_ns: int
    forward_ns: int
    dearest_ns: int = 0


@final
class BudgetController:
    """Additive increase, multiplicative decrease of the sampling ratio.

    The cost of observing one request divided by the time of one request, times the ratio, is the
    share of the forward time that observing takes. Where it is above the target the ratio is cut
    at once (at most by half per update), where it is well below it rises in small steps. One
    single pass that takes more than 20 forward times has the ratio cut to what fits it, by any
    factor: there may not be many more of them before half after half would have got there.

    Args:
        target: Share of the forward time, e.g. 0.01; None for no control.
        limit: Upper limit of the ratio, and where it begins.

    Example:
        >>> controller = BudgetController(0.01, 0.01)
        >>> for _ in range(40):  # one observed request costs as much as two requests
        ...     ratio = controller.update(Cost(5, own_ns=10_000_000, forward_ns=5_000_000))
        >>> 0.004 <= ratio <= 0.005
        True
        >>> controller.update(Cost(1, 100_000_000, 1_000_000, dearest_ns=100_000_000)) <= 0.0001
        True
    """

    __slots__ = ("_cost", "_forward", "_limit", "_skipped", "_target", "ratio")

    def __init__(self, target: float | None, limit: float) -> None:
        self._target = target
        self._limit = limit
        self.ratio = limit
        self.reset()

    def reset(self) -> None:
        """Measure anew, with the ratio that was reached."""
        self._skipped = 0
        self._cost = 0.0
        self._forward = 0.0

    @property
    def mean_forward_ns(self) -> float:
        """Running mean of the forward time of one request; 0 before the first measurement."""
        return self._forward

    @property
    def mean_own_ns(self) -> float:
        """Running mean of what observing one request takes; 0 before the first measurement."""
        return self._cost

    def update(self, cost: Cost) -> float:
        """Take in what was measured since the last update and return the new ratio."""
        if cost.calls <= 0:
            return self.ratio
        self._forward = _mean(self._forward, cost.forward_ns / cost.calls)
        if self._skipped < _WARM_UP:
            self._skipped += cost.calls
            return self.ratio
        self._cost = _mean(self._cost, cost.own_ns / cost.calls)
        if self._target is None or self._forward <= 0.0:
            return self.ratio
        share = self.ratio * self._cost / self._forward
        if share > self._target:
            self.ratio *= max(0.5, self._target / share)
        elif share < _SLACK * self._target:
            fitting = self._target / share * self.ratio if share > 0.0 else self._limit
            self.ratio = min(self._limit, fitting, self.ratio + _STEP * self._limit)
        if cost.dearest_ns > PASS_LIMIT * self._forward:
            self.ratio = min(self.ratio, self._target * self._forward / cost.dearest_ns)
        self.ratio = min(max(self.ratio, FLOOR), self._limit)
        return self.ratio


@final
class OverrunGuard:
    """Notices that the budget cannot be kept at any sampling ratio.

    A window is over when the agent's own time in it was more than three times the budget, and
    more than the budget's share of the wall time as well: a service with one short request a
    minute is not worth giving up for, although writing its window takes longer than the request.

    Args:
        target: The budget, as a share of the forward time; None for none.

    Example:
        >>> guard = OverrunGuard(0.01)
        >>> [guard.over(own_ns=40, forward_ns=1_000, wall_ns=2_000) for _ in range(3)]
        [False, False, True]
    """

    __slots__ = ("_row", "_target")

    def __init__(self, target: float | None) -> None:
        self._target = target
        self._row = 0

    def reset(self) -> None:
        """Begin anew, as the child of a fork must."""
        self._row = 0

    def over(self, own_ns: int, forward_ns: int, wall_ns: int) -> bool:
        """Take in a window and return whether it was one too many in a row.

        Args:
            own_ns: The agent's own time.
            forward_ns: Forward time of all requests; a window without any has no say.
            wall_ns: Length of the window.
        """
        if self._target is None or forward_ns <= 0:
            return False
        over = own_ns > OVERRUN * self._target * forward_ns and own_ns > self._target * wall_ns
        self._row = self._row + 1 if over else 0
        return self._row >= OVERRUN_WINDOWS


def _mean(old: float, new: float) -> float:
    return new if old == 0.0 else old + _MEMORY * (new - old)
