"""What the frozen quantizer does to a point: in calibration, in production, and the change."""

import math
from dataclasses import dataclass
from typing import Final, final

from calidrift_agent._profile import ClipBound, PointProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import CountColumn, ValueColumn
from calidrift_analyzer.ranges import Prediction, Range, grid_of, predict
from calidrift_analyzer.records import PointTotals

__all__ = ["Harm", "harm_of"]

_NON_FINITE: Final = (CountColumn.NAN, CountColumn.INF, CountColumn.UNITS_NOT_FINITE)


@final
@dataclass(frozen=True, slots=True)
class Harm:
    """Figures of the clip range; `None` is "cannot be said".

    Attributes:
        calibration: Prediction from the calibration sketch.
        production: Prediction from the production sketch.
        change_db: SQNR in production minus SQNR in calibration, dB.
        clipped_energy: Measured squared distance to the range ÷ measured energy.
        assumed: The profile has no range; that of an absmax quantizer stands in.
        non_finite: There was NaN or Inf, which none of these figures is about.
    """

    calibration: Prediction | None = None
    production: Prediction | None = None
    change_db: float | None = None
    clipped_energy: float | None = None
    assumed: bool = False
    non_finite: bool = False

    def is_harmful(self, harm_db: float) -> bool | None:
        """Whether quantization got worse through clipping; `None` where it cannot be said.

        Harmful: SQNR fell by at least `harm_db`, and a larger share of the energy is clipped than
        in calibration. A fall without more clipping (weaker signals on the same grid) is not what
        an exceedance alarm is about. What NaN and Inf cost cannot be said: sketches, and so all
        figures, are of finite values.
        """
        if self.change_db is None or self.calibration is None or self.production is None:
            return None
        more = self.production.clipped_energy_share > self.calibration.clipped_energy_share
        harmful = self.change_db <= -harm_db and more
        return None if self.non_finite and not harmful else harmful


def harm_of(totals: PointTotals, profile: PointProfile) -> Harm:
    """Predict the frozen quantizer on both sketches of a point.

    Without a clip range in the profile (an FP32 model) the range is assumed that an absmax
    quantizer would take from the calibration sketch: uint8, affine.
    """
    reference = profile.sketch
    assumed = profile.clip_bound is None
    bound = profile.clip_bound or _absmax_bound(reference)
    non_finite = _is_non_finite(totals)
    if bound is None:
        return Harm(non_finite=non_finite)
    calibration = _predict(reference, bound)
    production = _predict(totals.sketch(), bound)
    return Harm(
        calibration=calibration,
        production=production,
        change_db=_change(calibration, production),
        clipped_energy=None if assumed else _clipped_energy(totals),
        assumed=assumed,
        non_finite=non_finite,
    )


def _is_non_finite(totals: PointTotals) -> bool:
    return any(totals.counts[one] > 0 for one in _NON_FINITE)


def _absmax_bound(reference: MagnitudeSketch | None) -> ClipBound | None:
    if reference is None or reference.count == 0 or reference.absmax == 0.0:
        return None
    return grid_of(Range(reference.minimum, reference.maximum))


def _predict(sketch: MagnitudeSketch | None, bound: ClipBound) -> Prediction | None:
    return predict(sketch, bound) if sketch is not None and sketch.count else None


def _change(calibration: Prediction | None, production: Prediction | None) -> float | None:
    if calibration is None or production is None:
        return None
    before, after = calibration.sqnr_db, production.sqnr_db
    if before is None or after is None:
        return None
    change = after - before
    return change if math.isfinite(change) else None


def _clipped_energy(totals: PointTotals) -> float | None:
    clipped = float(totals.values[ValueColumn.CLIPPED_ENERGY])
    energy = float(totals.values[ValueColumn.ENERGY])
    if not energy > 0.0 or not math.isfinite(energy) or math.isnan(clipped):
        return None
    return clipped / energy
