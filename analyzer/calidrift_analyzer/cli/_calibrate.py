"""`calidrift calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.calibrate import Calibrated, calibrate_model
from calidrift_analyzer.cli._output import Output, number
from calidrift_analyzer.config import load_config

__all__ = ["calibrate"]


def calibrate(
    invocation: Invocation,
    model: Annotated[
        str | None,
        typer.Argument(help="Model of the configuration; not needed where there is only one."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to save (default: MODEL.profile.json beside the file)."
        ),
    ] = None,
    rank: Annotated[
        int,
        typer.Option(help="The observed bound is the rank-th largest maximum of a unit."),
    ] = 1,
) -> None:
    """Measure the calibration set of a model and save its profile.

    The FP32 model of the contract runs over its calibration set in a child process. Give the
    profile to `watch(..., profile=...)`: it is what production is compared with.
    """
    contract = load_config(invocation.config).model(model)
    target = output or contract.root / f"{contract.name}.profile.json"
    out = Output(invocation)
    with out.progress("calibrating") as progress:
        done = calibrate_model(contract, target.absolute(), rank=rank, progress=progress)
    _show(out, contract.name, done)


def _show(out: Output, model: str, done: Calibrated) -> None:
    profile = done.profile
    out.table(
        f"{model}: {len(profile.points)} points, {profile.units} units",
        ("point", "observed bound", "99 % of |x|", "median |x|"),
        [
            (
                name,
                number(point.observed_bound.value if point.observed_bound else None),
                number(point.sketch.magnitude_quantile(0.99) if point.sketch else None),
                number(point.sketch.magnitude_quantile(0.5) if point.sketch else None),
            )
            for name, point in profile.points.items()
        ],
    )
    for name in done.unobserved:
        out.note(f"{name} has no bound: it never fired, or never with a finite value")
    out.show(f"saved as {done.path}")
    out.document(
        {
            "model": model,
            "profile": done.path,
            "digest": profile.digest,
            "units": profile.units,
            "unobserved": done.unobserved,
            "points": {
                name: point.observed_bound.value if point.observed_bound else None
                for name, point in profile.points.items()
            },
        }
    )
