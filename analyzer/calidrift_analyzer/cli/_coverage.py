"""`calidrift coverage`."""

from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._assessed import assess_models, interval_text
from calidrift_analyzer.cli._output import Output, count, share
from calidrift_analyzer.config import load_config
from calidrift_analyzer.records import Interval, ModelAssessment, PointAssessment

__all__ = ["coverage", "show_coverage"]

_WIDE_HEADINGS: Final = ("elements in the clip range", "clipped (measured)", "reference units")


def coverage(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one that is known).")
    ] = None,
) -> None:
    """Say how much of the traffic the calibration covers.

    A request is covered when it stays inside the observed bound of every point. Reads the state
    directories first.
    """
    output = Output(invocation)
    assessed = assess_models(load_config(invocation.config), model, output)
    for assessment in assessed.models:
        show_coverage(output, assessment)
    output.document(assessed.document())


def show_coverage(output: Output, assessment: ModelAssessment) -> None:
    """Write one model for people: requests, then segments, then points, least covered first."""
    whole = assessment.request_coverage
    if whole is None:
        output.show(f"{assessment.model}: {assessment.verdict}", assessment.sentence)
        output.show(f"next: {assessment.next_step}")
        return
    output.show(
        f"{assessment.model}: {share(whole.estimate)} of "
        f"{count(assessment.units, 'observed unit')} stayed inside the observed bounds of all "
        f"points (lower 95 % bound "
        f"{share(assessment.request_coverage_low)})"
    )
    if assessment.segments:
        output.table(
            "segments",
            ("segment", "units", "covered", "95 % interval"),
            [(one.name, one.units, *_cells(one.coverage)) for one in assessment.segments],
        )
    points = sorted(
        assessment.points, key=lambda one: one.coverage.estimate if one.coverage else 2.0
    )
    output.table(
        "points, least covered first",
        (
            "point",
            "units",
            "covered",
            "95 % interval",
            "verdict",
            *(_WIDE_HEADINGS if output.wide else ()),
        ),
        [
            (
                point.name,
                point.units,
                *_cells(point.coverage),
                point.verdict.replace("_", " "),
                *(_wide_cells(point) if output.wide else ()),
            )
            for point in points
        ],
    )


def _wide_cells(point: PointAssessment) -> tuple[object, ...]:
    return share(point.mass_coverage), share(point.clipped_energy), point.reference_units


def _cells(found: Interval | None) -> tuple[str | None, str | None]:
    if found is None:
        return None, None
    return share(found.estimate), interval_text(found.low, found.high)
