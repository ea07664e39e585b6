"""Verdicts in words: what was found, with the figures that decided it, and what to do next."""

from calidrift_agent._profile import ObservedBound
from calidrift_analyzer.assess._harm import Harm
from calidrift_analyzer.records import Alarm, PointAssessment, PointTotals, Verdict

__all__ = ["model_sentence", "next_step", "percent", "point_sentence"]

_NEXT = {
    Verdict.DRIFTED_HARMFUL: (
        "run `calidrift select`, then `calidrift recalibrate`: the calibration set lacks this "
        "traffic"
    ),
    Verdict.DRIFTED_HARMLESS: (
        "nothing to repair; calibrate again on recent traffic when convenient, so that the alarm "
        "is about new drift only"
    ),
    Verdict.NOT_DRIFTED: "nothing to do",
    Verdict.LEARNING: "calibrate on more random units of traffic",
    Verdict.NO_REFERENCE: (
        "run `calidrift calibrate` on random units of representative traffic and give its profile "
        "to watch(..., profile=...)"
    ),
    Verdict.NO_DATA: (
        "check that the service runs under watch(...), that its state_dir is listed under "
        "state_dirs, and that requests arrive"
    ),
    Verdict.BLIND: (
        "check that the served model still runs these modules, and that the profile belongs to it"
    ),
}


def next_step(verdict: Verdict) -> str:
    """Say what to do about a verdict."""
    return _NEXT[verdict]


def percent(value: float) -> str:
    """Write a proportion.

    >>> percent(0.0179), percent(0.0), percent(3e-6)
    ('1.8 %', '0 %', '0.0003 %')
    """
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.1f} %"


def _exceeded(totals: PointTotals) -> str:
    return f"{totals.exceedances:,} of {totals.units:,} units left the calibrated range"


def _cost(harm: Harm) -> str:
    if harm.change_db is None or harm.production is None:
        return "what that costs cannot be predicted, because a sketch or a range is missing"
    moved = "fell" if harm.change_db < 0 else "rose"
    clipped = percent(harm.production.clipped_energy_share)
    where = "the range an absmax quantizer would have" if harm.assumed else "the frozen range"
    return (
        f"at {where} predicted SQNR {moved} by {abs(harm.change_db):.1f} dB and {clipped} of the "
        "energy is clipped"
    )


def point_sentence(
    verdict: Verdict,
    totals: PointTotals,
    bound: ObservedBound | None,
    harm: Harm,
    detectable: float | None,
) -> str:
    """Say what was found at one point."""
    if verdict is Verdict.NO_DATA:
        return "no unit was observed here"
    if verdict is Verdict.BLIND:
        return "it fired in calibration, but never in production while requests were observed"
    if bound is None:
        return f"{totals.units:,} units were observed, but there is no bound to compare them with"
    if verdict is Verdict.DRIFTED_HARMFUL:
        return f"{_exceeded(totals)}, more than bad luck explains; {_cost(harm)}"
    if verdict is Verdict.DRIFTED_HARMLESS:
        return (
            f"{_exceeded(totals)}, more than bad luck explains, but it does little harm: "
            f"{_cost(harm)}"
        )
    if verdict is Verdict.LEARNING:
        floor = "at any rate" if detectable is None else f"below {percent(detectable)}"
        return (
            f"the reference has only {bound.units:,} units: exceedances {floor} can never be "
            f"told from bad luck; {_exceeded(totals)}"
        )
    seen = "" if detectable is None else f", and below {percent(detectable)} none could be seen"
    return f"{_exceeded(totals)}: as chance has it with {bound.units:,} reference units{seen}"


def model_sentence(
    verdict: Verdict, points: tuple[PointAssessment, ...], alarm: Alarm | None, why_not: str
) -> str:
    """Say what was found in the model; `why_not` explains a missing reference."""
    count = {one: sum(point.verdict is one for point in points) for one in Verdict}
    drifted = count[Verdict.DRIFTED_HARMFUL] + count[Verdict.DRIFTED_HARMLESS]
    blind = count[Verdict.BLIND]
    parts: list[str] = []
    if verdict is Verdict.NO_DATA:
        parts.append("nothing was observed")
    elif verdict is Verdict.NO_REFERENCE:
        parts.append(f"traffic was observed, but {why_not}")
    elif verdict is Verdict.LEARNING:
        parts.append(
            f"the reference is too small to judge {_points(count[Verdict.LEARNING])} of "
            f"{len(points)}"
        )
    elif verdict is Verdict.NOT_DRIFTED:
        parts.append("traffic stays inside the calibrated ranges as far as chance allows")
    if drifted and alarm is not None:
        harmful = count[Verdict.DRIFTED_HARMFUL]
        kind = f"{harmful} of them with harm" if harmful else "none of them with harm"
        parts.append(
            f"traffic left the calibrated range at {_points(drifted)} of {len(points)}, {kind}; "
            f"the first alarm came after {alarm.observed:,} observed units"
        )
    if blind:
        parts.append(f"{_points(blind)} of {len(points)} never fired and cannot be judged")
    if count[Verdict.NO_REFERENCE] and verdict is not Verdict.NO_REFERENCE:
        parts.append(f"{_points(count[Verdict.NO_REFERENCE])} have no reference")
    return "; ".join(parts)


def _points(count: int) -> str:
    return f"{count} point" if count == 1 else f"{count} points"
