"""What all traffic and its segments suffer, in words: service levels, measured harm, seasons."""

from collections.abc import Iterator, Sequence
from typing import Final

from calidrift_analyzer.cli._output import count, moment, share
from calidrift_analyzer.records import (
    HarmLoss,
    MeasuredHarm,
    ModelAssessment,
    Season,
    Seasons,
    ServiceLevel,
)

__all__ = ["harm_line", "level_lines", "season_line"]

_TOLD: Final = 3
"""Broken segments with a sentence of their own."""
_LISTED: Final = 8
"""Other segments of which the tolerance is told."""
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def level_lines(assessment: ModelAssessment, *, wide: bool = True) -> Iterator[str]:
    """Write how much of the traffic leaves the ranges, beside what is tolerated.

    All traffic has a line always, a segment where it breaks the level. What is tolerated of the
    other segments has one line together, where that is not the declared share or all is told.

    Args:
        assessment: The model.
        wide: Whether bounds and the renewable alarm are told as well.
    """
    levels = assessment.service_levels
    broken = [one for one in levels if one.segment is not None and one.breach is not None]
    for level in levels:
        if level.segment is None:
            yield _line(level, wide=wide)
    for level in broken[:_TOLD]:
        yield _line(level, wide=wide)
    if len(broken) > _TOLD:
        yield f"and {len(broken) - _TOLD} more segments break the service level"
    others = [one for one in levels if one.segment is not None and one.breach is None]
    if others and (wide or any(one.tolerance > one.declared for one in others)):
        yield _tolerated(others)


def _tolerated(segments: Sequence[ServiceLevel]) -> str:
    """Write what is tolerated of segments that keep it; the strictest first.

    >>> _tolerated([])
    'tolerated of single segments: '
    """
    ordered = sorted(segments, key=lambda one: (one.tolerance, one.segment or ""))
    said = ", ".join(f"{one.segment} {_in_force(one)}" for one in ordered[:_LISTED])
    more = f", and {len(ordered) - _LISTED} more: --json" if len(ordered) > _LISTED else ""
    return f"tolerated of single segments: {said}{more}"


def _in_force(level: ServiceLevel) -> str:
    """Write the share that is tolerated, and what it rests on where that is little."""
    said = share(level.tolerance) if level.tolerance < 1.0 else "any share"
    if level.tolerance <= level.declared or level.reference_units is None:
        return said
    return f"{said} ({count(level.reference_units, 'reference unit')})"


def _line(level: ServiceLevel, *, wide: bool) -> str:
    found = level.share
    estimate = share(found.estimate) if found else "-"
    bounds = ""
    if wide and found:
        bounds = f", between {share(found.low)} and {share(found.high)} at all looks"
    whose = "all traffic" if level.segment is None else f"segment {level.segment}"
    line = f"service level, {whose}: {estimate} of the units leave a range{bounds}; "
    line += f"tolerated: {share(level.tolerance) if level.tolerance < 1.0 else 'any share'}"
    if level.tolerance > level.declared:
        line += " (the reference is too small to promise less)"
    if level.breach is not None:
        line += (
            f"; BROKEN since {moment(level.breach.end_ns)} ({level.breach.outside:,} of "
            f"{level.breach.units:,} units then)"
        )
    if wide and level.changes_ns:
        line += f"; last raised {moment(level.changes_ns[-1])}"
    return line


def harm_line(harm: MeasuredHarm, *, wide: bool = True, drifted: bool = False) -> str:
    """Write what served outputs suffer beside FP32, measured without labels.

    Args:
        harm: What was measured.
        wide: Whether bounds are told as well.
        drifted: Whether a drift has begun, so that it matters what was compared since.
    """
    line = f"measured beside FP32: {_loss(harm.loss, harm.mean.estimate)}"
    if wide:
        line += f", between {share(harm.mean.low)} and {share(harm.mean.high)} at all looks"
    if harm.recent is not None:
        line += f"; since the drift began {share(harm.recent.estimate)}"
    elif drifted:
        line += "; none compared since the drift began"
    line += f" ({harm.units:,} compared); tolerated: {share(harm.tolerance)}"
    if harm.breach is not None:
        line += (
            f"; BROKEN since {moment(harm.breach.end_ns)} ({harm.breach.total:.3g} of "
            f"{harm.breach.units:,} then)"
        )
    elif wide and harm.units_to_breach is not None:
        line += f"; twice that would be found after about {harm.units_to_breach:,}"
    return line


def _loss(loss: HarmLoss, mean: float) -> str:
    if loss is HarmLoss.DISAGREEMENT:
        return f"{share(mean)} of the answers differ"
    return f"noise of {share(mean)} of the signal in the outputs"


def season_line(seasons: Seasons) -> str | None:
    """Write when most units leave the ranges; None where none does.

    >>> worst = Season(2, 400, 30)
    >>> season_line(Seasons(hours=(worst,), worst_hour=worst))
    'worst hour 02:00-03:00 UTC: 7.5 % of 400 units leave a range (a description, no alarm)'
    """
    worst = seasons.worst_hour
    if worst is None:
        return None
    line = f"worst hour {worst.slot:02}:00-{(worst.slot + 1) % 24:02}:00 UTC: {_left(worst)}"
    day = seasons.worst_weekday
    if day is not None:
        line += f"; worst day {_DAYS[day.slot]}: {_left(day)}"
    return f"{line} (a description, no alarm)"


def _left(season: Season) -> str:
    return f"{share(season.share)} of {season.units:,} units leave a range"
