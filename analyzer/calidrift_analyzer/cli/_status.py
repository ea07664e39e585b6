"""`calidrift status`."""

from collections.abc import Mapping
from time import time_ns
from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_agent._state import ReferenceFigures
from calidrift_agent._vocabulary import DropReason
from calidrift_analyzer.cli._assessed import assess_models, interval_text
from calidrift_analyzer.cli._levels import level_lines
from calidrift_analyzer.cli._output import Output, count, decibels, moment, share
from calidrift_analyzer.config import load_config
from calidrift_analyzer.records import Interval, ModelAssessment, PointAssessment, Verdict

__all__ = ["show_status", "status"]

_HEADINGS: Final = ("point", "verdict", "ΔSQNR dB", "exceedance", "evidence")
_WIDE_HEADINGS: Final = ("95 % interval", "SQNR dB", "clipped (measured)")
_TOLD: Final = 3
"""Points with a sentence of their own, and segments; a model that drifted has drifted nearly
everywhere, and the table says where."""
_EXPECTED: Final = frozenset({DropReason.CAPTURE_LIMIT, DropReason.RATE_LIMIT})
"""Drops that limits ask for."""


def status(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one that is known).")
    ] = None,
) -> None:
    """Say for each model and point whether it drifted, worst point first.

    Reads the state directories first. Exceedances are judged against the finite calibration set,
    with one false alarm probability for the whole life of the watch; the cost is the change of
    predicted SQNR at the frozen ranges. Predicted figures are about each range alone; `clipped
    (measured)` is what the served model cuts off, which is little behind a layer that clips.
    """
    output = Output(invocation)
    assessed = assess_models(load_config(invocation.config), model, output)
    for assessment in assessed.models:
        show_status(output, assessment)
    output.document(assessed.document())


def show_status(output: Output, assessment: ModelAssessment) -> None:
    """Write one model for people: its verdict in words, then its points, worst first."""
    output.show(f"{assessment.model}: {assessment.verdict}", assessment.sentence)
    if assessment.points:
        output.show(*_observed(assessment, time_ns()))
        output.table(
            "points, worst first",
            [*_HEADINGS, *(_WIDE_HEADINGS if output.wide else ())],
            [
                [*_row(point), *(_wide_row(point) if output.wide else ())]
                for point in assessment.points
            ],
        )
        said = [point for point in assessment.points if _is_notable(point)]
        for point in said[:_TOLD] or assessment.points[:1]:
            output.show(f"- {point.name}: {point.sentence}")
        if len(said) > _TOLD:
            output.show(f"- and {count(len(said) - _TOLD, 'point')} more: see the table, or --json")
    for line in (*_limits(assessment), f"next: {assessment.next_step}"):
        output.show(line)


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
    return f" ({_duration(seconds)} ago)" if seconds >= 60 else ""


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
        None if point.log10_evidence is None else f"10^{point.log10_evidence:.1f}",
    )


def _wide_row(point: PointAssessment) -> tuple[object, ...]:
    return (
        _bounds(point.exceedance),
        decibels(point.sqnr_production_db),
        share(point.clipped_energy),
    )


def _bounds(found: Interval | None) -> str | None:
    return None if found is None else interval_text(found.low, found.high)


def _limits(assessment: ModelAssessment) -> list[str]:
    lines: list[str] = []
    if assessment.request_coverage is not None:
        lines.append(
            f"request coverage {share(assessment.request_coverage.estimate)} "
            f"(lower 95 % bound {share(assessment.request_coverage_low)})"
        )
    least = [one for one in assessment.segments if one.coverage and one.coverage.estimate < 1]
    if least:
        named = (f"{one.name} {share(one.coverage.estimate)}" for one in least if one.coverage)
        lines.append(f"least covered segments: {', '.join(list(named)[:_TOLD])}")
    lines.extend(level_lines(assessment))
    if assessment.reference is not None:
        lines.append(_beside_reference(assessment.reference))
    if assessment.alarm is not None:
        alarm = assessment.alarm
        lines.append(
            f"first alarm at {moment(alarm.end_ns)}, after {alarm.observed:,} observed units "
            f"of {alarm.served:,} served requests"
        )
    if any(point.log10_evidence is not None for point in assessment.points):
        lines.append(
            f"alarm where evidence reaches 10^{assessment.log10_threshold:.1f} (at most "
            f"{share(assessment.alpha)} false alarms over the whole life, all points together)"
        )
    if assessment.detectable_exceedance is not None:
        line = f"smallest exceedance that can ever alarm: {share(assessment.detectable_exceedance)}"
        if assessment.units_to_detect is not None:
            line += f"; twice that alarms after about {assessment.units_to_detect:,} units"
        if assessment.seconds_to_detect is not None:
            line += f" ({_duration(assessment.seconds_to_detect)} at this traffic)"
        lines.append(line)
    return lines


def _beside_reference(found: ReferenceFigures) -> str:
    line = f"beside the FP32 reference: output SQNR {decibels(found.sqnr_db)} dB, "
    line += f"cosine {found.cosine:.4f}"
    if found.agreement is not None:
        line += f", the same top-1 in {share(found.agreement)}"
    return f"{line} ({count(found.compared, 'unit')} compared)"


def _duration(seconds: float) -> str:
    """Write a span of time.

    >>> _duration(42), _duration(600), _duration(7200), _duration(200_000)
    ('42 s', '10 min', '2 h', '2.3 days')
    """
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
