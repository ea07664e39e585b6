"""`calidrift doctor`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from calidrift_agent._command_line._invocation import Invocation
from calidrift_agent._doctor import Prescription, as_document, as_text, examine, load_subject
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent.errors import ConfigurationError

__all__ = ["doctor"]


def doctor(
    invocation: Invocation,
    /,
    factory: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY",
            help="Function that returns the model, or the model and its example inputs.",
        ),
    ],
    *,
    requests: Annotated[int, typer.Option(help="Requests to run.")] = 20,
    traffic: Annotated[
        float | None, typer.Option(help="Requests per second of the service, all processes.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Calibration profile; without one there are no bounds.")
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Function that returns example inputs."),
    ] = None,
) -> None:
    """Attach to a model, run a few requests, and say what watching it sees and costs.

    The factory runs in this process, with the current folder on the module search path. Nothing
    is written but a state file in a temporary folder, and nothing leaves the machine.
    """
    if invocation.config is not None:
        raise ConfigurationError(
            "the doctor reads no configuration file; leave --config away and name the factory"
        )
    prescription = Prescription(requests, traffic)
    loaded = None if profile is None else CalibrationProfile.load(profile)
    found = examine(load_subject(factory, inputs), prescription, loaded)
    if invocation.json:
        invocation.emit(as_document(found))
    else:
        sys.stdout.write(as_text(found))
