"""`calidrift demo`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._output import Output, Progress, number, share
from calidrift_analyzer.demo import DemoOptions, DemoResult, run_demo
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import record_document

__all__ = ["Narration", "demo"]

_FOLDER = "calidrift-demo"


def demo(
    invocation: Invocation,
    seed: Annotated[
        int, typer.Option(help="Decides data splits, weights, noise, traffic and sampling.")
    ] = 0,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder for every file of the run; it is kept (default: ./{_FOLDER}). It must be "
            "new, empty, or of an earlier demo, which is replaced."
        ),
    ] = None,
) -> None:
    """Show the whole loop on real images: train, drift, detect, recalibrate, promote.

    Takes 2 to 4 minutes on 2 cores. The folder then holds a calidrift.toml, on which every other
    command works: try `calidrift status --config calidrift-demo/calidrift.toml`.
    """
    if invocation.config is not None:
        raise ConfigurationError(
            "calidrift demo writes a configuration of its own and takes none; leave --config out, "
            "and say with --workdir where its files should be"
        )
    output = Output(invocation)
    options = DemoOptions(workdir=workdir or Path.cwd() / _FOLDER, seed=seed)
    result = run_demo(options, Narration(output))
    _show(output, result)
    output.document(record_document(result))


@final
class Narration:
    """Shows each step while it runs, and its seconds when it is done, on standard error."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @contextmanager
    def step(self, what: str) -> Iterator[Progress]:
        """Begin a step; it ends with the context."""
        began = time.perf_counter()
        with self._output.progress(what) as progress:
            yield progress
        self._output.note(f"{time.perf_counter() - began:6.1f} s  {what}")


def _show(output: Output, result: DemoResult) -> None:
    """Write the result for people."""
    output.table(
        f"Accuracy on the report split, seed {result.seed}",
        ("segment", "FP32", "INT8, stale", "INT8, recalibrated"),
        [
            *(
                (name, share(one.fp32), share(one.stale_int8), share(one.recalibrated_int8))
                for name, one in result.segments.items()
            ),
            (
                "all",
                share(result.fp32_accuracy),
                share(result.stale_int8_accuracy),
                share(result.recalibrated_int8_accuracy),
            ),
        ],
    )
    output.table("What was measured", ("figure", "value"), _figures(result))
    output.table(
        "Candidates on the select split",
        ("candidate", "accuracy", "output SQNR dB"),
        [
            (name, share(one.accuracy), None if one.sqnr_db is None else f"{one.sqnr_db:.1f}")
            for name, one in result.estimators.items()
        ],
    )
    output.show(
        f"plot: {result.plot_png} (and .svg)",
        f"files: {result.workdir}",
        f"next: calidrift status --config {result.config}",
    )


def _figures(result: DemoResult) -> list[tuple[str, str]]:
    by = ", ".join(f"{name or 'no segment'} {count}" for name, count in result.selected_by.items())
    change = result.sqnr_change_db
    return [
        (
            "alarm",
            f"{result.observed_until_alarm} observed requests after the shift "
            f"({result.requests_until_alarm:,} served), "
            + ("after a false one" if result.alarm_before_shift else "none before"),
        ),
        (
            "request coverage",
            f"{share(result.request_coverage_before)} before, "
            f"{share(result.request_coverage_after)} after",
        ),
        (
            "reference after the promotion",
            f"{result.reference_units} random units, "
            + ("with a tolerance alarm" if result.alarm_in_burn_in else "no alarm meanwhile"),
        ),
        ("verdict in the end", result.verdict_after),
        (
            f"worst point {result.worst_point}",
            f"predicted SQNR change {_decibels(change.before)} before, "
            f"{_decibels(change.after)} after",
        ),
        ("selected requests", f"{result.selected_samples} ({by})"),
        ("promoted", f"{result.promoted_version}: {result.promoted_candidate}"),
        ("sketch-only INT8 accuracy", share(result.sketch_only_int8_accuracy)),
        ("INT8 tensors with scales", f"{result.size_ratio:.2f} times smaller than FP32"),
        ("INT8 kernels", f"{result.int8_kernels_found} of {result.int8_kernels_planned} planned"),
        ("latency INT8 / FP32, compiled", _latency(result)),
        ("requests observed", share(result.sampling_ratio)),
        (
            "agent's time / forward time",
            f"{share(result.overhead_ratio)} (the demo observes without a budget; a service's "
            "default is 1 %)",
        ),
        ("wall time", f"{number(result.wall_seconds)} s"),
    ]


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} dB"


def _latency(result: DemoResult) -> str:
    ratio, interval = result.latency_ratio_int8_to_fp32, result.latency_ratio_interval
    if ratio is None or interval is None:
        return "not reported: the INT8 kernels are not proven"
    return f"{ratio:.2f} (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"
