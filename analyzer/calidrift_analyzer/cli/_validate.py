"""`calidrift validate`."""

import json
import time
from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._output import Output, number, share
from calidrift_analyzer.config import load_config
from calidrift_analyzer.cycle import load_candidates, save_report
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.records import Figure, ValidationReport, ValidationRow, record_document
from calidrift_analyzer.service import open_store
from calidrift_analyzer.validate import validate as measure_candidates

__all__ = ["show_report", "validate"]


def validate(
    invocation: Invocation,
    model: Annotated[
        str | None,
        typer.Argument(help="Model of the configuration; not needed where there is only one."),
    ] = None,
) -> None:
    """Measure the candidates against FP32 and the gate.

    All candidates are scored on the split `select`; the best one is compiled, judged on `gate`, and
    reported on `report`. Ends with status 1 where a gate says no; what serves is not touched.
    """
    config = load_config(invocation.config)
    contract = config.model(model)
    out = Output(invocation)
    candidates = load_candidates(contract)
    with out.progress("validating") as progress:
        report = measure_candidates(contract, candidates, progress=progress)
    path = save_report(contract, report)
    with open_store(config) as store:
        store.outcomes.record_validation(
            ValidationRow(
                model=contract.name,
                candidate=report.candidate.id,
                created_ns=time.time_ns(),
                accepted=report.passed,
                document=json.dumps(record_document(report)),
            )
        )
    show_report(out, report)
    out.document({**record_document(report), "passed": report.passed, "saved": path})
    if not report.passed:
        raise RefusedError(
            f"{report.candidate.id} is refused, nothing was changed: {'; '.join(report.refusals)}"
        )
    out.show(f"next: calidrift promote {contract.name}")


def show_report(out: Output, report: ValidationReport) -> None:
    """Write a report for people: candidates, the winner's figures, the gates."""
    metric = "accuracy" if report.labelled else "agreement with FP32 (no labels)"
    out.table(
        f"{report.model}: candidates on the select split",
        ("candidate", metric, "SQNR dB", "bulk SQNR dB"),
        [
            (
                one.id,
                share(one.metric),
                _decibels(one.sqnr_db),
                _decibels(one.bulk_sqnr_db),
            )
            for one in report.scores
        ],
    )
    out.table(
        f"{report.candidate.id}: compiled, on the report split",
        ("figure", "value"),
        _figures(report),
    )
    out.table(
        "Gates",
        ("gate", "holds", "what was found"),
        [(gate.name, gate.passed, gate.sentence) for gate in report.gates],
    )


def _figures(report: ValidationReport) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if report.accuracy is not None:
        found = report.accuracy
        rows += [
            ("FP32 accuracy", _share(found.fp32)),
            ("INT8 accuracy", _share(found.int8)),
            ("difference (paired)", _share(found.difference)),
        ]
        worst = found.worst_segment
        if worst is not None:
            text = f"{worst.name}: {share(worst.int8)}, FP32 {share(worst.fp32)}"
            rows.append(("worst segment", text))
    if report.agreement is not None:
        rows.append(("agreement with FP32", share(report.agreement)))
    sizes = report.sizes
    rows += [
        ("output SQNR", f"{_decibels(report.sqnr_db)} dB, bulk {_decibels(report.bulk_sqnr_db)}"),
        ("INT8 tensors", f"{sizes.int8_bytes:,} bytes, {sizes.ratio:.2f} times smaller"),
        ("whole file", f"{sizes.int8_file_bytes:,} bytes, {sizes.file_ratio:.2f} times smaller"),
        ("INT8 kernels", f"{report.kernels.found} of {report.kernels.planned}"),
        ("held-out request coverage", share(report.coverage.ratio)),
        ("latency", _latency(report)),
    ]
    return rows


def _latency(report: ValidationReport) -> str:
    found = report.latency
    if found is None:
        return "not reported: the INT8 kernels are not proven"
    return (
        f"{number(found.int8_ms)} ms, FP32 {number(found.fp32_ms)} ms, ratio "
        f"{found.ratio.estimate:.2f} ({found.ratio.low:.2f} to {found.ratio.high:.2f}), "
        f"{found.rows} rows"
    )


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _share(figure: Figure) -> str:
    return f"{share(figure.estimate)} ({100 * figure.low:.3g} to {100 * figure.high:.3g} %)"
