"""Service levels in words."""

from collections.abc import Iterator
from typing import Final

from calidrift_analyzer.cli._output import moment, share
from calidrift_analyzer.records import ModelAssessment, ServiceLevel

__all__ = ["level_lines"]

_TOLD: Final = 3
"""Broken segments with a sentence of their own."""


def level_lines(assessment: ModelAssessment) -> Iterator[str]:
    """Write how much of the traffic leaves the ranges, beside what is tolerated.

    All traffic has a line always, a segment where it breaks the level.
    """
    levels = assessment.service_levels
    broken = [one for one in levels if one.segment is not None and one.breach is not None]
    for level in levels:
        if level.segment is None:
            yield _line(level)
    for level in broken[:_TOLD]:
        yield _line(level)
    if len(broken) > _TOLD:
        yield f"and {len(broken) - _TOLD} more segments break the service level"


def _line(level: ServiceLevel) -> str:
    found = level.share
    estimate = share(found.estimate) if found else "-"
    bounds = f", between {share(found.low)} and {share(found.high)} at all looks" if found else ""
    whose = "all traffic" if level.segment is None else f"segment {level.segment}"
    line = f"service level, {whose}: {estimate} of the units leave a range{bounds}; "
    line += f"tolerated: {share(level.tolerance)}"
    if level.tolerance > level.declared:
        line += " (the reference is too small to promise less)"
    if level.breach is not None:
        line += (
            f"; BROKEN since {moment(level.breach.end_ns)} ({level.breach.outside:,} of "
            f"{level.breach.units:,} units then)"
        )
    if level.changes_ns:
        line += f"; last raised {moment(level.changes_ns[-1])}"
    return line
