"""`calidrift demo-stack`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._demo import Narration
from calidrift_analyzer.cli._output import Output, share
from calidrift_analyzer.config import GrafanaConfig
from calidrift_analyzer.dashboards import Format, artefacts
from calidrift_analyzer.demo.stack import StackOptions, StackResult, run_stack
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import record_document

__all__ = ["demo_stack"]

_FOLDER: Final = "calidrift-demo-stack"
_RULES: Final = "prometheus/"


def demo_stack(
    invocation: Invocation,
    seed: Annotated[int, typer.Option(help="Decides data splits, weights, noise and traffic.")] = 0,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder for every file of the run; it is kept (default: ./{_FOLDER}). It must be "
            "new, empty, or of an earlier demo, which is replaced."
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            help="Times in the alert rules and routes are divided by this: 60 makes seconds of "
            "minutes (10 to 600)."
        ),
    ] = 60.0,
    stay: Annotated[
        bool,
        typer.Option("--stay", help="Keep everything running at the end, until Ctrl-C."),
    ] = False,
) -> None:
    """Show the loop with real servers: Prometheus, Alertmanager, analyzer and a model server.

    Needs Debian's packages prometheus and prometheus-alertmanager (or the programs of these names
    from elsewhere); all of them listen on this machine only, on free ports, and end with the
    command. Takes 2 to 4 minutes on 2 cores.
    """
    if invocation.config is not None:
        raise ConfigurationError(
            "calidrift demo-stack writes a configuration of its own and takes none; leave --config "
            "out, and say with --workdir where its files should be"
        )
    output = Output(invocation)
    options = StackOptions(workdir=workdir or Path.cwd() / _FOLDER, seed=seed, speed=speed)

    def told(result: StackResult) -> None:
        _show(output, result)
        output.document(record_document(result))
        if stay:
            _stay(output, result)

    run_stack(options, _rules(), Narration(output), told)


def _rules() -> dict[str, str]:
    """The rules for Prometheus, as they are committed in `dashboards/`."""
    files = artefacts(GrafanaConfig(), Format.FILES)
    return {
        name.removeprefix(_RULES): text for name, text in files.items() if name.startswith(_RULES)
    }


def _stay(output: Output, result: StackResult) -> None:
    """Leave everything as it is until somebody has seen enough."""
    for name, address in result.addresses.items():
        output.note(f"{name:12s}  {address}")
    output.note(
        f"the page asks for a token: the one of [demo] in {result.workdir / 'tokens.toml'}; "
        "everything runs until Ctrl-C"
    )
    wait: Callable[[float], None] = time.sleep
    try:
        while True:
            wait(3_600.0)
    except KeyboardInterrupt:
        output.note("ending what was started")


def _show(output: Output, result: StackResult) -> None:
    """Write the result for people."""
    output.table(
        f"The rules: times divided by {result.speed:g}, none that was longer below "
        f"{result.least_hold_seconds:g} s; else as committed",
        ("alert", "for, as committed", "for, here"),
        [(one.alert, one.committed, one.used) for one in result.rules],
    )
    output.table(
        f"The loop, seed {result.seed}: seconds since the traffic shifted",
        ("step", "at, s", "took, s", "what was seen"),
        [
            (one.name, f"{one.at_seconds:.1f}", f"{one.took_seconds:.1f}", one.told)
            for one in result.steps
        ],
    )
    output.table("What was measured", ("figure", "value"), _figures(result))
    output.show(f"files: {result.workdir}")


def _figures(result: StackResult) -> list[tuple[str, str]]:
    answers = ", ".join(f"{number:,} by {version}" for version, number in result.answers.items())
    setup = ", ".join(f"{what}: {seconds:.1f} s" for what, seconds in result.setup_seconds.items())
    return [
        ("requests served", f"{result.requests - result.lost:,} ({answers})"),
        ("requests lost", f"{result.lost:,}" + "".join(f"; {one}" for one in result.loss)),
        ("slowest answer", f"{1_000 * result.slowest_seconds:.0f} ms"),
        (
            "request coverage",
            f"{share(result.coverage_before)} when the rule fired, "
            f"{share(result.coverage_after)} in the end",
        ),
        ("alerts that asked for new ranges", ", ".join(result.alerts)),
        ("other alerts that fired", ", ".join(result.other_alerts) or "none"),
        ("promoted", f"{result.version}: {result.candidate}, by job {result.job}"),
        ("before the shift", setup),
        ("wall time", f"{result.wall_seconds:.0f} s"),
    ]
