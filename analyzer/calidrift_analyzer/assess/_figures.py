"""Figures of a point beside its verdict: decision figures, explanations and an advisory one."""

from dataclasses import replace
from typing import Final

from calidrift_agent._profile import PointProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.assess._harm import Harm
from calidrift_analyzer.assess._return_level import return_level
from calidrift_analyzer.ranges import distances, tail_shift
from calidrift_analyzer.records import PointAssessment, PointTotals

__all__ = ["described"]

_TAIL: Final = 0.999
_FAR_TAIL: Final = 0.9999


def described(
    point: PointAssessment, totals: PointTotals, reference: PointProfile, harm: Harm
) -> PointAssessment:
    """Add the figures that come from sketches and counts.

    Args:
        point: The judged point.
        totals: What its harm was judged on.
        reference: Its profile.
        harm: The predictions.

    Cost: about 1.5 ms.
    """
    sketch, bound = totals.sketch(), reference.observed_bound
    before, after = harm.calibration, harm.production
    return replace(
        _moved(point, reference.sketch, sketch),
        sqnr_calibration_db=before.sqnr_db if before else None,
        sqnr_production_db=after.sqnr_db if after else None,
        sqnr_change_db=harm.change_db,
        clipped_energy=harm.clipped_energy,
        overload_calibration=before.clipped_energy_share if before else None,
        overload_production=after.clipped_energy_share if after else None,
        mass_coverage=1.0 - after.clip_rate if after else None,
        clip_assumed=harm.assumed and before is not None,
        lowest=sketch.minimum if sketch.count else None,
        highest=sketch.maximum if sketch.count else None,
        over_range_octaves=after.over_range_octaves if after else None,
        return_level=None if bound is None else return_level(totals, bound.value),
    )


def _moved(
    point: PointAssessment, calibration: MagnitudeSketch | None, production: MagnitudeSketch
) -> PointAssessment:
    """Add how the values moved since calibration, where both sides have some."""
    if calibration is None or not calibration.count or not production.count:
        return point
    return replace(
        point,
        tail_shift_octaves=tail_shift(calibration, production, _TAIL),
        far_tail_shift_octaves=tail_shift(calibration, production, _FAR_TAIL),
        explanatory=distances(calibration, production),
    )
