"""`calidrift coverage --inputs`: recorded inputs instead of production."""

from pathlib import Path
from typing import Final

from calidrift_analyzer.cli._assessed import interval_text
from calidrift_analyzer.cli._output import Output, count, decibels, share
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.offline import (
    PREDICTED_LOSS_DB,
    OfflineOptions,
    OfflineReport,
    PointOutlook,
    assess_inputs,
    find_sources,
)
from calidrift_analyzer.records import ModelAssessment

__all__ = ["offline_document", "run_offline", "show_outlook", "show_rows"]

_ROWS: Final = 10
"""Rows outside that stand in the table; --json has more."""
_POINTS: Final = 3
"""Points for which every estimator is shown."""


def run_offline(
    output: Output, contract: ModelContract, inputs: Path, options: OfflineOptions
) -> OfflineReport:
    """Assess recorded inputs, and say what was run on what.

    Raises:
        CalidriftError: See `assess_inputs` and `find_sources`.
    """
    sources = find_sources(inputs)
    with output.progress("starting") as progress:
        report = assess_inputs(contract, sources, options=options, progress=progress)
    output.show(
        f"recorded inputs: {count(report.files, 'file')} of {inputs}, each row one unit, through "
        f"{report.ran}; compared with {report.profile_from}; nothing of this is stored",
        f"{report.assessment.verdict}: {report.assessment.sentence}",
    )
    if report.selected:
        output.note(
            f"{count(report.selected, 'row')} come from captures that were kept because they left "
            "a range: coverage and evidence are about these files, not about the traffic; captures "
            "of the kind `uniform` are a fair sample"
        )
    return report


def show_rows(output: Output, report: OfflineReport) -> None:
    """Write the worst segment, and the rows that left a bound, the furthest first."""
    worst = report.worst_segment
    if worst is not None and worst.coverage is not None:
        found = worst.coverage
        output.show(
            f"worst segment: {worst.name}, {share(found.estimate)} of {count(worst.units, 'unit')} "
            f"covered (95 % interval {interval_text(found.low, found.high)})"
        )
    if not report.outside:
        return
    segmented = any(one.segment for one in report.outside)
    output.table(
        f"rows outside, the furthest first{_of(report)}",
        ("file", "row", *(("segment",) if segmented else ()), "point", "times its bound"),
        [
            (
                one.source,
                one.row,
                *((one.segment,) if segmented else ()),
                one.point,
                "NaN or Inf" if one.ratio is None else f"{one.ratio:.3g}",
            )
            for one in report.outside[:_ROWS]
        ],
    )


def _of(report: OfflineReport) -> str:
    outside = _outside(report.assessment)
    return f" ({_ROWS} of {outside:,})" if outside > _ROWS else ""


def _outside(assessment: ModelAssessment) -> int:
    covered = assessment.request_coverage
    return 0 if covered is None else round(assessment.units * (1.0 - covered.estimate))


def show_outlook(output: Output, report: OfflineReport) -> None:
    """Write what INT8 ranges from the calibration set would do to the inputs."""
    output.table(
        "INT8 ranges that the calibration set would give, on these inputs (predicted, uint8)",
        (
            "estimator",
            f"points that lose {PREDICTED_LOSS_DB:g} dB",
            "by more clipping",
            "worst point",
            "SQNR dB, calibration",
            "SQNR dB, inputs",
            "values clipped there",
        ),
        [
            (
                str(one.estimator),
                f"{one.falling} of {one.points}",
                one.losing,
                one.worst_point,
                decibels(one.calibration_db),
                decibels(one.inputs_db),
                share(one.clipped),
            )
            for one in report.estimators
        ],
    )
    names = list(dict.fromkeys(one.name for one in report.points))[:_POINTS]
    output.table(
        "points that change most, by estimator",
        ("point", "estimator", "range", "SQNR dB, inputs", "change dB", "values clipped"),
        [_row(one) for name in names for one in report.points if one.name == name],
    )
    output.show(_conclusion(report))


def _row(one: PointOutlook) -> tuple[object, ...]:
    return (
        one.name,
        str(one.estimator),
        f"{one.low:.3g} to {one.high:.3g}",
        decibels(one.inputs_db),
        decibels(one.change_db, sign="+"),
        share(one.clipped),
    )


def _conclusion(report: OfflineReport) -> str:
    assessment = report.assessment
    outside = f"{_outside(assessment):,} of {count(assessment.units, 'row')}"
    if report.suffices is None:
        return (
            "whether the calibration set suffices cannot be said: it is too small to tell even a "
            f"large exceedance from chance, or nothing was compared ({assessment.sentence}); add "
            "units to the calibration set"
        )
    if report.suffices:
        return (
            f"the calibration set suffices for these inputs: {outside} leave its bounds on |x|, "
            f"and {_losses(report)}"
        )
    if report.not_finite:
        return (
            f"the calibration set does NOT suffice for these inputs: {outside} leave its bounds, "
            f"with NaN or Inf at {count(report.not_finite, 'point')}; find out where these come "
            "from before you quantize: no INT8 range can hold them, and what is predicted is of "
            "finite values only"
        )
    return (
        f"the calibration set does NOT suffice for these inputs: {outside} leave its bounds on "
        "|x|; add such rows to the calibration set before you quantize (the table above lists some)"
    )


def _losses(report: OfflineReport) -> str:
    """Say what INT8 ranges lose, as the table above has it."""
    limit = f"{PREDICTED_LOSS_DB:g} dB"
    fallen = [one for one in report.points if one.falls]
    if not fallen:
        return f"INT8 ranges from it lose less than {limit}"
    lost = sorted(-one.change_db for one in fallen if one.change_db is not None)
    losing = [str(one.estimator) for one in report.estimators if one.losing]
    clean = [str(one.estimator) for one in report.estimators if not one.losing]
    beside = f" (those by {', '.join(losing)} do)" if losing else ""
    return (
        f"INT8 ranges from it by {', '.join(clean)} do not lose {limit} by clipping more values"
        f"{beside}. Still predicted SQNR falls by {lost[0]:.1f} to {lost[-1]:.1f} dB, most at "
        f"{fallen[0].name}: values clipped further out and weaker signals do that too. A range "
        "ends at the lowest and the highest value, so values inside a bound on |x| can be clipped"
    )


def offline_document(report: OfflineReport, inputs: Path) -> dict[str, object]:
    """Give the JSON document: `models` as without `--inputs`, and what is known beyond it."""
    return {
        "inputs": inputs,
        "stored": False,
        "files": report.files,
        "compared_with": report.profile_from,
        "ran": report.ran,
        "selected_rows": report.selected,
        "models": [report.assessment],
        "worst_segment": report.worst_segment,
        "outside": report.outside,
        "suffices": report.suffices if report.estimators else None,
        "estimators": report.estimators,
        "estimates": report.points,
    }
