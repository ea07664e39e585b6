"""How often a request may be observed, so that the agent stays within its budget."""

from typing import Final, final

FLOOR: Final = 1e-5
"""Lowest sampling ratio: one request in 100,000."""
_WARM_UP: Final = 2
"""Observed calls that do not count: the first ones make plans and fill caches."""
_MEMORY: Final = 0.3
"""Weight of the newest measurement in the running means."""
_SLACK: Final = 0.8
"""Below this share of the target the ratio is raised."""
_STEP: Final = 0.05
"""Largest rise per update, as a share of the upper limit."""


@final
class BudgetController:
    """Additive increase, multiplicative decrease of the sampling ratio.

    The cost of observing one request divided by the time of one request, times the ratio, is the
    share of the forward time that observing takes. Where it is above the target the ratio is cut
    at once (at most by half per update), where it is well below it rises in small steps.

    Args:
        target: Share of the forward time, e.g. 0.01; None for no control.
        limit: Upper limit of the ratio, and where it begins.

    Example:
        >>> controller = BudgetController(0.01, 0.01)
        >>> for _ in range(40):  # one observed request costs as much as two requests
        ...     ratio = controller.update(calls=5, own_ns=10_000_000, forward_ns=5_000_000)
        >>> 0.004 <= ratio <= 0.005
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

    def update(self, calls: int, own_ns: int, forward_ns: int) -> float:
        """Take in what was measured since the last update.

        Args:
            calls: Observed calls.
            own_ns: Time that observing them took, in requests and beside them.
            forward_ns: Forward time of these calls.

        Returns:
            The new ratio.
        """
        if calls <= 0:
            return self.ratio
        self._forward = _mean(self._forward, forward_ns / calls)
        if self._skipped < _WARM_UP:
            self._skipped += calls
            return self.ratio
        self._cost = _mean(self._cost, own_ns / calls)
        if self._target is None or self._forward <= 0.0:
            return self.ratio
        share = self.ratio * self._cost / self._forward
        if share > self._target:
            self.ratio = max(FLOOR, self.ratio * max(0.5, self._target / share))
        elif share < _SLACK * self._target:
            fitting = self._target / share * self.ratio if share > 0.0 else self._limit
            self.ratio = min(self._limit, fitting, self.ratio + _STEP * self._limit)
        return self.ratio


def _mean(old: float, new: float) -> float:
    return new if old == 0.0 else old + _MEMORY * (new - old)
