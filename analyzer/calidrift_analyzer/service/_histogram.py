"""A point's values by magnitude: calibration beside production."""

import math
from dataclasses import dataclass
from typing import Final, final

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.assess import judged
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.service._reading import ViewContext, require_model
from calidrift_analyzer.store import Store

__all__ = ["Bar", "Histogram", "view_histogram"]

_SCALE: Final = 1
"""Two bars per octave."""


@final
@dataclass(frozen=True, slots=True)
class Bar:
    """The values with a magnitude in (low, high], as shares of all finite values.

    Attributes:
        low: Lower end.
        high: Upper end.
        calibration: Share of the calibration set; `None` where the profile has no sketch.
        production: Share of production.
    """

    low: float
    high: float
    calibration: float | None
    production: float | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One point, over everything that was recorded under the profile in use.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile.
        point: Name of the point.
        bars: Ascending, without gaps; empty where nothing but zeros was seen.
        clip_lo: Lower end of the quantizer's range; `None` where it is not known.
        clip_hi: Its upper end.
        observed_bound: Largest magnitude that the reference calls normal.
        lowest: Smallest value in production.
        highest: Largest value in production.
        elements: Finite values in production.
    """

    model: str
    profile: str
    point: str
    bars: tuple[Bar, ...]
    clip_lo: float | None
    clip_hi: float | None
    observed_bound: float | None
    lowest: float | None
    highest: float | None
    elements: int


def view_histogram(store: Store, context: ViewContext, model: str, point: str) -> Histogram:
    """Tell how the values of a point are spread.

    Raises:
        NoDataError: There is no such model or point, or nothing was recorded of it.
    """
    require_model(store, context.config, model)
    chosen = judged(store, model, context.config.models.get(model))
    if chosen is None:
        raise NoDataError(f"nothing was recorded about model {model!r} yet")
    totals = store.totals(model, chosen.profile, instrument=chosen.instrument)
    found = next((one for one in totals.points if one.name == point), None)
    if found is None:
        raise NoDataError(f"model {model!r} has no point {point!r}; see its points")
    production = found.sketch()
    reference = store.profile(chosen.profile)
    known = None if reference is None else reference.find(point)
    clip = None if known is None else known.clip_bound
    bound = None if known is None else known.observed_bound
    return Histogram(
        model=model,
        profile=chosen.profile,
        point=point,
        bars=_bars(None if known is None else known.sketch, production),
        clip_lo=None if clip is None else clip.lo,
        clip_hi=None if clip is None else clip.hi,
        observed_bound=None if bound is None else bound.value,
        lowest=_finite(production.minimum),
        highest=_finite(production.maximum),
        elements=production.count,
    )


def _bars(calibration: MagnitudeSketch | None, production: MagnitudeSketch) -> tuple[Bar, ...]:
    before = _shares(calibration)
    now = _shares(production)
    indexes = sorted({*(before or {}), *(now or {})})
    if not indexes:
        return ()
    width = 1 << _SCALE
    return tuple(
        Bar(
            low=2.0 ** (index / width),
            high=2.0 ** ((index + 1) / width),
            calibration=None if before is None else before.get(index, 0.0),
            production=None if now is None else now.get(index, 0.0),
        )
        for index in range(indexes[0], indexes[-1] + 1)
    )


def _shares(sketch: MagnitudeSketch | None) -> dict[int, float] | None:
    if sketch is None or not sketch.count:
        return None
    indexes, counts = sketch.downscale(_SCALE)
    shares = counts / sketch.count
    return dict(zip(indexes.tolist(), shares.tolist(), strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
