"""`calidrift coverage`."""

from pathlib import Path
from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import annotation_lines
from calidrift_analyzer.cli._assessed import assess_models, interval_text
from calidrift_analyzer.cli._offline import offline_document, run_offline, show_outlook, show_rows
from calidrift_analyzer.cli._output import Output, count, share
from calidrift_analyzer.config import AnalyzerConfig, load_config
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.offline import OfflineOptions, SegmentBy
from calidrift_analyzer.records import Interval, ModelAssessment, PointAssessment

__all__ = ["coverage", "show_coverage"]

_WIDE_HEADINGS: Final = ("elements in the clip range", "clipped (measured)", "reference units")


def coverage(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one that is known).")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Assess these recorded inputs instead of production: a file or a folder of "
            ".safetensors (captures too), .npz and .npy files."
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="With --inputs: compare with this profile (default: the version in service)."
        ),
    ] = None,
    before_quantization: Annotated[
        bool,
        typer.Option(
            "--before-quantization",
            help="With --inputs: measure the calibration set first, compare with that, and say "
            "what INT8 ranges from it would clip.",
        ),
    ] = False,
    segment_by: Annotated[
        SegmentBy | None,
        typer.Option(help="With --inputs: take segments from captures (default) or from folders."),
    ] = None,
) -> None:
    """Say how much of the traffic the calibration covers.

    A request is covered when it stays inside the observed bound of every point. Reads the state
    directories first. With `--inputs` the model of the configuration runs over recorded inputs in a
    child process instead, each row one unit, and nothing is stored.

    While `calidrift serve` runs it holds the database: look at its page instead.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    if inputs is not None:
        options = OfflineOptions(
            profile=profile,
            before_quantization=before_quantization,
            segment_by=segment_by or SegmentBy.CAPTURE,
        )
        _offline(output, config, model, inputs, options)
        return
    given = {
        "--profile": profile is not None,
        "--before-quantization": before_quantization,
        "--segment-by": segment_by is not None,
    }
    if any(given.values()):
        named = next(name for name, present in given.items() if present)
        raise ConfigurationError(
            f"{named} is about recorded inputs; name them: --inputs FILE or --inputs FOLDER"
        )
    assessed = assess_models(config, model, output)
    for assessment in assessed.models:
        show_coverage(output, assessment)
    output.document(assessed.document())


def _offline(
    output: Output,
    config: AnalyzerConfig,
    model: str | None,
    inputs: Path,
    options: OfflineOptions,
) -> None:
    report = run_offline(output, config.model(model), inputs, options)
    show_coverage(output, report.assessment, evidence=True)
    show_rows(output, report)
    if options.before_quantization:
        show_outlook(output, report)
    output.document(offline_document(report, inputs))


def show_coverage(output: Output, assessment: ModelAssessment, *, evidence: bool = False) -> None:
    """Write one model for people: requests, then segments, then points, least covered first.

    Args:
        output: Where to.
        assessment: The model.
        evidence: Whether the evidence of each point stands in the table, and the alarm's threshold
            below it.
    """
    whole = assessment.request_coverage
    if whole is None:
        output.show(f"{assessment.model}: {assessment.verdict}", assessment.sentence)
        output.show(*annotation_lines(assessment))
        output.show(f"next: {assessment.next_step}")
        return
    output.show(
        f"{assessment.model}: {share(whole.estimate)} of "
        f"{count(assessment.units, 'observed unit')} stayed inside the observed bounds of all "
        f"points (lower 95 % bound "
        f"{share(assessment.request_coverage_low)})"
    )
    output.show(*annotation_lines(assessment))
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
            *(("evidence",) if evidence else ()),
            *(_WIDE_HEADINGS if output.wide else ()),
        ),
        [
            (
                point.name,
                point.units,
                *_cells(point.coverage),
                _verdict(point),
                *((_evidence(point),) if evidence else ()),
                *(_wide_cells(point) if output.wide else ()),
            )
            for point in points
        ],
    )
    if evidence:
        output.show(f"alarm where evidence reaches 10^{assessment.log10_threshold:.1f}")


def _verdict(point: PointAssessment) -> str:
    told = point.verdict.replace("_", " ")
    return told if point.muted is None else f"{told}, muted"


def _evidence(point: PointAssessment) -> str | None:
    return None if point.log10_evidence is None else f"10^{point.log10_evidence:.1f}"


def _wide_cells(point: PointAssessment) -> tuple[object, ...]:
    return share(point.mass_coverage), share(point.clipped_energy), point.reference_units


def _cells(found: Interval | None) -> tuple[str | None, str | None]:
    if found is None:
        return None, None
    return share(found.estimate), interval_text(found.low, found.high)
