"""What INT8 ranges that are chosen from a calibration set would do to other inputs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.ranges import Estimator, Prediction, estimate_range, grid_of, predict

__all__ = ["PREDICTED_LOSS_DB", "EstimatorOutlook", "PointOutlook", "outlooks_of"]

PREDICTED_LOSS_DB: Final = 1.0
"""Fall of predicted SQNR that counts as a loss, dB; what `assess` calls harm."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PointOutlook:
    """One point under one estimator: uint8, affine, per tensor.

    Attributes:
        name: Name of the point.
        estimator: How the range would be chosen.
        low: Lower end of the range that the calibration set gives.
        high: Upper end.
        calibration_db: Predicted SQNR on the calibration set, dB; `None` where it is not finite.
        inputs_db: The same on the inputs.
        change_db: Inputs minus calibration set; negative is worse.
        clipped: Share of the inputs' values outside the range.
        clipped_calibration: Share of the calibration set's values outside: what the estimator
            gives away on purpose.
    """

    name: str
    estimator: Estimator
    low: float
    high: float
    calibration_db: float | None
    inputs_db: float | None
    change_db: float | None
    clipped: float
    clipped_calibration: float

    @property
    def falls(self) -> bool:
        """Whether predicted SQNR falls by `PREDICTED_LOSS_DB` or more, whatever the cause."""
        return self.change_db is not None and self.change_db <= -PREDICTED_LOSS_DB

    @property
    def loses(self) -> bool:
        """Whether it falls, and a larger share of values is clipped than in the calibration set."""
        return self.falls and self.clipped > self.clipped_calibration


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorOutlook:
    """One estimator over all points.

    Attributes:
        estimator: How ranges would be chosen.
        points: Points that it could be predicted for.
        losing: Those of them at which SQNR falls and more values are clipped; a wider calibration
            set would help there.
        worst_point: Where predicted SQNR on the inputs is lowest.
        calibration_db: Predicted SQNR of the calibration set there, dB.
        inputs_db: Predicted SQNR of the inputs there, dB.
        clipped: Share of the inputs' values that would be clipped there.
        falling: Points at which SQNR falls by `PREDICTED_LOSS_DB`, whatever the cause.
    """

    estimator: Estimator
    points: int
    losing: int
    worst_point: str | None
    calibration_db: float | None
    inputs_db: float | None
    clipped: float | None
    falling: int


def outlooks_of(
    profile: CalibrationProfile, inputs: Mapping[str, MagnitudeSketch]
) -> tuple[tuple[EstimatorOutlook, ...], tuple[PointOutlook, ...]]:
    """Predict every estimator at every point that has values on both sides.

    Args:
        profile: What was measured on the calibration set.
        inputs: What was measured on the inputs, by point.

    Returns:
        One outlook per estimator, and those per point and estimator with the largest falls first.
    """
    found = [one for estimator in Estimator for one in _points(profile, inputs, estimator)]
    whole = tuple(
        _whole(estimator, [one for one in found if one.estimator is estimator])
        for estimator in Estimator
    )
    return whole, tuple(sorted(found, key=lambda one: (_order(one.change_db), one.name)))


def _points(
    profile: CalibrationProfile, inputs: Mapping[str, MagnitudeSketch], estimator: Estimator
) -> Iterator[PointOutlook]:
    for point in profile.points.values():
        reference, given = point.sketch, inputs.get(point.name)
        if reference is None or given is None or not (reference.count and given.count):
            continue
        if reference.absmax == 0.0:
            continue  # there is no range to be chosen
        chosen = estimate_range(reference, estimator)
        bound = grid_of(chosen)
        before, after = predict(reference, bound), predict(given, bound)
        first, second = _finite(before.sqnr_db), _finite(after.sqnr_db)
        yield PointOutlook(
            name=point.name,
            estimator=estimator,
            low=chosen.lo,
            high=chosen.hi,
            calibration_db=first,
            inputs_db=second,
            change_db=None if first is None or second is None else second - first,
            clipped=_clipped(after),
            clipped_calibration=_clipped(before),
        )


def _whole(estimator: Estimator, points: Sequence[PointOutlook]) -> EstimatorOutlook:
    worst = min(points, key=lambda one: _order(one.inputs_db), default=None)
    return EstimatorOutlook(
        estimator=estimator,
        points=len(points),
        losing=sum(one.loses for one in points),
        worst_point=worst.name if worst else None,
        calibration_db=worst.calibration_db if worst else None,
        inputs_db=worst.inputs_db if worst else None,
        clipped=worst.clipped if worst else None,
        falling=sum(one.falls for one in points),
    )


def _clipped(found: Prediction) -> float:
    return found.clip_low_rate + found.clip_high_rate


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _order(value: float | None) -> float:
    return math.inf if value is None else value
