"""What the units of a reference promise: the tolerance in force, of all traffic and by segment.

A declared tolerance that traffic breaks although nothing has changed is no alarm. How much leaves
the bounds by chance alone is known for random reference units only (`reference_tolerance`); the
proofs for segments stand in `assess/README.md`, claims 9 to 11.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.assess._tolerance import lower_shares, reference_tolerance

__all__ = ["Promise", "promise_of"]

_NOTHING: Final = 1.0
"""The share that is promised where nothing is."""


@final
@dataclass(frozen=True, slots=True)
class Promise:
    """What the reference of a profile lets one say about new units.

    Attributes:
        blocks: Sum of the ranks of the observed bounds.
        units: n, the units that the bounds are of.
        is_random: Whether they are random units.
    """

    blocks: int
    units: int
    is_random: bool

    def whole(self, declared: float, alpha: float) -> float:
        """The tolerance in force for all traffic.

        Provisional bounds promise nothing, so it is the declared share alone that all traffic is
        held against: it is what can alarm until a reference is learned.

        Args:
            declared: The share that the configuration tolerates.
            alpha: Probability, over references, that more is left than is said here.

        Returns:
            The share, in (0, 1]; 1 where none below it is promised.
        """
        return max(declared, self._of_all(alpha)) if self.is_random else declared

    def segment(self, declared: float, alpha: float, reference_units: int) -> float:
        """The tolerance in force for a segment of which so many reference units were.

        Within a segment new units are exchangeable with the reference units of that segment, and
        no bound is below the one that these alone would give.
        """
        return max(declared, reference_tolerance(self.blocks, reference_units, 1.0 - alpha))

    def unknown_segment(
        self,
        declared: float,
        alphas: tuple[float, float],
        units: NDArray[np.int64],
        of: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """The tolerance in force for a segment, look by look, where its units were not counted.

        A share of all units that leave the bounds cannot be more than what all traffic is promised;
        so of the units of a segment it is at most that, divided by the share of the segment.

        Args:
            declared: The share that the configuration tolerates.
            alphas: Probability that the reference promises too much, as given to `whole`; and that
                the share of the segment is overestimated at any look.
            units: Units of the segment up to each look, (V,).
            of: Units of all traffic up to it, (V,).

        Returns:
            Shares in (0, 1], (V,).
        """
        least = lower_shares(units, of, alphas[1])
        promised = np.full(least.shape, _NOTHING)
        np.divide(self._of_all(alphas[0]), least, out=promised, where=least > 0.0)
        return np.asarray(np.clip(promised, declared, _NOTHING), np.float64)

    def _of_all(self, alpha: float) -> float:
        return reference_tolerance(self.blocks, self.units, 1.0 - alpha)


def promise_of(profile: CalibrationProfile | None) -> Promise | None:
    """Give what a profile promises; `None` where it has no observed bound."""
    points = [] if profile is None else profile.points.values()
    bounds = [one.observed_bound for one in points if one.observed_bound is not None]
    if profile is None or not bounds:
        return None
    # A point that few units reach has few of its own; the reference has all of them.
    units = profile.units or min(bound.units for bound in bounds)
    return Promise(sum(bound.rank for bound in bounds), units, profile.reference.is_random)
