"""What service levels add to the first sentence about a model, and what to do about them."""

from collections.abc import Sequence
from typing import Final

from calidrift_analyzer.assess._words import moment, percent
from calidrift_analyzer.records import ServiceLevel

__all__ = [
    "broken_levels",
    "confined",
    "step_of_levels",
    "step_of_unjudged",
    "unjudged_segments",
]

_LOUD: Final = 10.0
"""So many times the declared share surely leaves a segment before it is told without an alarm."""
_MOSTLY: Final = 0.8
"""Share of all units outside that a drift of one segment explains."""


def confined(levels: Sequence[ServiceLevel]) -> str:
    """Name the only segment that breaks the level while the rest of the traffic keeps it."""
    broken = [level for level in levels if level.segment is not None and level.breach is not None]
    if len(broken) != 1 or not levels or levels[0].segment is not None:
        return ""
    whole, one = levels[0], broken[0]
    units, outside = whole.units - one.units, whole.outside - one.outside
    if units <= 0 or outside > whole.tolerance * units or one.outside < _MOSTLY * whole.outside:
        return ""
    share = percent(one.units / whole.units)
    return f"segment {one.segment} ({share} of the traffic; the rest is in order)"


def broken_levels(levels: Sequence[ServiceLevel]) -> str:
    """Say which level is broken: the worst segment before all traffic; "" where none is."""
    worst, segments = _worst(levels)
    if worst is None or worst.breach is None:
        return ""
    more = f" (and {segments - 1} more)" if segments > 1 else ""
    when, then = moment(worst.breach.end_ns), worst.breach
    if _is_over(worst):
        return (
            f"{_stream(worst)}{more} broke the service level on {when} ({then.outside:,} of "
            f"{then.units:,} units then); {percent(worst.outside / worst.units)} overall, "
            f"{percent(worst.tolerance)} tolerated"
        )
    return (
        f"{_stream(worst)}{more} breaks the service level since {when}: {worst.outside:,} of "
        f"{worst.units:,} units left a range, {percent(worst.tolerance)} tolerated"
    )


def step_of_levels(levels: Sequence[ServiceLevel]) -> str:
    """Say what to do about a broken level; "" where none is."""
    worst, _ = _worst(levels)
    if worst is None or worst.breach is None:
        return ""
    whose = "this traffic" if worst.segment is None else f"the traffic of segment {worst.segment}"
    if _is_over(worst):
        return (
            f"no more is outside by now than is tolerated: find out what {whose} was until "
            f"{moment(worst.breach.end_ns)}; if it may come again, run `calidrift select`, then "
            "`calidrift recalibrate`"
        )
    return (
        f"look with `calidrift coverage` which points {whose} leaves; if it is here to stay, "
        "run `calidrift select`, then `calidrift recalibrate`"
    )


def unjudged_segments(levels: Sequence[ServiceLevel]) -> str:
    """Name the segment that leaves the ranges most, of those about which no alarm can be raised.

    A reference with few units of a segment cannot tell whether it was always so; silence about a
    segment of which nearly all is outside would be worse than saying just that.
    """
    loud = _unjudged(levels)
    if not loud:
        return ""
    more = f" (and {len(loud) - 1} more)" if len(loud) > 1 else ""
    return (
        f"segment {loud[0].segment}{more}: {loud[0].outside:,} of {loud[0].units:,} units left a "
        "range, and the reference has too few units of it to tell whether that is new"
    )


def step_of_unjudged(levels: Sequence[ServiceLevel]) -> str:
    """Say what to do about such a segment; "" where there is none."""
    loud = _unjudged(levels)
    if not loud:
        return ""
    return (
        f"look with `calidrift coverage` which points segment {loud[0].segment} leaves; if that "
        "is new, run `calidrift select`, then `calidrift recalibrate`; a larger reference "
        "(`calidrift reference learn --units`) lets an alarm tell"
    )


def _unjudged(levels: Sequence[ServiceLevel]) -> list[ServiceLevel]:
    found = [
        level
        for level in levels
        if level.segment is not None
        and level.breach is None
        and level.tolerance > level.declared
        and level.share is not None
        and level.share.low >= min(0.5, _LOUD * level.declared)
    ]
    return sorted(found, key=lambda level: -level.outside / level.units)


def _worst(levels: Sequence[ServiceLevel]) -> tuple[ServiceLevel | None, int]:
    """Give the level to tell, one that is still broken first, and how many segments are."""
    broken = sorted((one for one in levels if one.breach is not None), key=_is_over)
    segments = [level for level in broken if level.segment is not None]
    return next(iter(segments or broken), None), len(segments)


def _is_over(level: ServiceLevel) -> bool:
    """Whether no more units were outside, all in all, than is tolerated: a breach is for ever."""
    return level.outside <= level.tolerance * level.units


def _stream(level: ServiceLevel) -> str:
    return "all traffic" if level.segment is None else f"segment {level.segment}"
