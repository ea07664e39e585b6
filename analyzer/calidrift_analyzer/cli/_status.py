"""`calidrift status`."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._assessed import assess_models, interval_text
from calidrift_analyzer.cli._output import Output, count, decibels, number, share
from calidrift_analyzer.config import load_config
from calidrift_analyzer.records import Interval, ModelAssessment, PointAssessment, Verdict

__all__ = ["show_status", "status"]

_HEADINGS: Final = ("point", "verdict", "ΔSQNR dB", "exceedance", "evidence")
_WIDE_HEADINGS: Final = ("95 % interval", "SQNR dB", "clipped energy")


def status(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one that is known).")
    ] = None,
) -> None:
    """Say for each model and point whether it drifted, worst point first.

    Reads the state directories first. Exceedances are judged against the finite calibration set,
    with one false alarm probability for the whole life of the watch; the cost is the change of
    predicted SQNR at the frozen ranges.
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
        output.show(_observed(assessment))
        output.table(
            "points, worst first",
            [*_HEADINGS, *(_WIDE_HEADINGS if output.wide else ())],
            [
                [*_row(point), *(_wide_row(point) if output.wide else ())]
                for point in assessment.points
            ],
        )
        said = [point for point in assessment.points if _is_notable(point)]
        for point in said or assessment.points[:1]:
            output.show(f"- {point.name}: {point.sentence}")
    for line in (*_limits(assessment), f"next: {assessment.next_step}"):
        output.show(line)


def _observed(assessment: ModelAssessment) -> str:
    ratio = share(assessment.sampling_ratio)
    return (
        f"observed: {count(assessment.units, 'unit')} of {count(assessment.served, 'request')} "
        f"({ratio} sampled), until {_moment(assessment.last_ns)}"
    )


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
    if assessment.alarm is not None:
        alarm = assessment.alarm
        lines.append(
            f"first alarm at {_moment(alarm.end_ns)}, after {alarm.observed:,} observed units "
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


def _moment(time_ns: int) -> str:
    if not time_ns:
        return number(None)
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    """Write a span of time.

    >>> _duration(42), _duration(600), _duration(7200), _duration(200_000)
    ('42 s', '10 min', '2 h', '2.3 days')
    """
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
