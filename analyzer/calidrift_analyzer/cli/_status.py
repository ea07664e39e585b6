"""`calidrift status`."""

from collections.abc import Iterator, Mapping
from time import time_ns
from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_agent._vocabulary import DropReason
from calidrift_analyzer.cli._annotated import annotation_lines
from calidrift_analyzer.cli._assessed import assess_models
from calidrift_analyzer.cli._explained import (
    WIDE_HEADINGS,
    detectable_line,
    duration,
    limit_lines,
    show_explanations,
    wide_row,
)
from calidrift_analyzer.cli._levels import harm_line, level_lines, season_line
from calidrift_analyzer.cli._output import Output, count, decibels, moment, share
from calidrift_analyzer.config import load_config
from calidrift_analyzer.records import ModelAssessment, PointAssessment, Verdict

__all__ = ["show_status", "status"]

_HEADINGS: Final = ("point", "verdict", "ΔSQNR dB", "exceedance")
_TOLD: Final = 3
"""Points with a sentence of their own, and segments; a model that drifted has drifted nearly
everywhere, and the table says where."""
_LISTED: Final = 10
"""Points in a table that is not wide."""
_EXPECTED: Final = frozenset({DropReason.CAPTURE_LIMIT, DropReason.RATE_LIMIT})
"""Drops that limits ask for."""


def status(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one that is known).")
    ] = None,
    *,
    wide: Annotated[
        bool,
        typer.Option(
            "--wide",
            help="All points, bounds, limits of the test and distances that explain (default in a "
            "file, and in a terminal of 140 columns).",
        ),
    ] = False,
) -> None:
    """Say for each model whether it drifted: what, where, how bad, since when, what to do.

    Reads the state directories first. Exceedances are judged against the finite calibration set,
    with one false alarm probability for the whole life of the watch; the cost is the change of
    predicted SQNR at the frozen ranges. Predicted figures are about each range alone; `clipped
    (measured)` is what the served model cuts off, which is little behind a layer that clips.

    While `calidrift serve` runs it holds the database: look at its page instead.
    """
    output = Output(invocation)
    assessed = assess_models(load_config(invocation.config), model, output)
    for assessment in assessed.models:
        show_status(output, assessment, wide=wide or output.wide)
    output.document(assessed.document())


def show_status(output: Output, assessment: ModelAssessment, *, wide: bool = False) -> None:
    """Write one model for people: what it comes to and what to do, then its points."""
    output.show(
        f"{assessment.model}: {assessment.verdict}",
        assessment.sentence,
        f"next: {assessment.next_step}",
        *annotation_lines(assessment),
    )
    if not assessment.points:
        return
    output.show(*_observed(assessment, time_ns()), *_traffic(assessment, wide=wide))
    listed = assessment.points if wide else _listed(assessment.points)
    output.table(
        "points, worst first",
        [*_HEADINGS, *(WIDE_HEADINGS if wide else ())],
        [[*_row(point), *(wide_row(point) if wide else ())] for point in listed],
    )
    if len(listed) < len(assessment.points):
        left = len(assessment.points) - len(listed)
        output.show(f"and {count(left, 'point')} more: --wide, or --json")
    said = [point for point in assessment.points if _is_notable(point)]
    for point in said[:_TOLD] or assessment.points[:1]:
        output.show(f"- {point.name}: {point.sentence}")
    if len(said) > _TOLD:
        output.show(f"- and {count(len(said) - _TOLD, 'point')} more: see the table, or --json")
    if wide:
        show_explanations(output, assessment)
        output.show(*limit_lines(assessment))


def _listed(points: tuple[PointAssessment, ...]) -> tuple[PointAssessment, ...]:
    """One point more than fits is no reason to leave it out."""
    return points if len(points) <= _LISTED + 1 else points[:_LISTED]


def _traffic(assessment: ModelAssessment, *, wide: bool) -> Iterator[str]:
    """Say what traffic suffers as a whole, where, and when."""
    yield from level_lines(assessment, wide=wide)
    least = [one for one in assessment.segments if one.coverage and one.coverage.estimate < 1]
    if least:
        named = (f"{one.name} {share(one.coverage.estimate)}" for one in least if one.coverage)
        yield f"least covered segments: {', '.join(list(named)[:_TOLD])}"
    if assessment.harm is not None:
        drifted = assessment.alarm is not None
        yield harm_line(assessment.harm, wide=wide, drifted=drifted)
    season = None if assessment.seasons is None else season_line(assessment.seasons)
    if season is not None:
        yield season
    detectable = detectable_line(assessment)
    if detectable is not None and (wide or assessment.alarm is None):
        yield detectable


def _observed(assessment: ModelAssessment, now_ns: int) -> list[str]:
    """Say how much of the traffic the figures are about, and what went wrong with the rest."""
    seen = f"{assessment.observed:,} of {count(assessment.served, 'request')}"
    units = f", {count(assessment.units, 'unit')}"
    lines = [
        f"observed: {seen} ({share(assessment.sampling_ratio)})"
        f"{'' if assessment.units in (0, assessment.observed) else units}, until "
        f"{moment(assessment.last_ns)}{_ago(assessment.last_ns, now_ns)}"
    ]
    if assessment.errors:
        lines.append(f"errors of the agent, see the service's log: {_counted(assessment.errors)}")
    dropped = {why: times for why, times in assessment.dropped.items() if why not in _EXPECTED}
    if dropped:
        lines.append(f"dropped by the agent: {_counted(dropped)}")
    return lines


def _counted(found: Mapping[str, int]) -> str:
    return ", ".join(f"{word.replace('_', ' ')} {times:,}" for word, times in found.items())


def _ago(time_ns: int, now_ns: int) -> str:
    """Say how old the figures are, from a minute on: calm figures of yesterday are no comfort.

    >>> _ago(0, 59 * 10**9), _ago(0, 7200 * 10**9)
    ('', ' (2 h ago)')
    """
    seconds = (now_ns - time_ns) / 1e9
    return f" ({duration(seconds)} ago)" if seconds >= 60 else ""


def _is_notable(point: PointAssessment) -> bool:
    """Whether the table alone does not say enough about a point."""
    return (
        point.alarm is not None
        or point.suspected
        or point.nan_elements + point.infinite_elements > 0
        or point.verdict is Verdict.BLIND
    )


def _row(point: PointAssessment) -> tuple[object, ...]:
    verdict = point.verdict.replace("_", " ")
    return (
        point.name,
        f"{verdict}, suspected" if point.suspected else verdict,
        decibels(point.sqnr_change_db, sign="+"),
        share(point.exceedance.estimate) if point.exceedance else None,
    )
