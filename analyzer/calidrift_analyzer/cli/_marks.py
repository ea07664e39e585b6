"""`calidrift marks`."""

from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import marker_of, require_known
from calidrift_analyzer.cli._output import Output, moment
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.config import load_config
from calidrift_analyzer.service import open_desk

__all__ = ["marks"]


def marks(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one).")
    ] = None,
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """List the marked moments, promotions and rollbacks among them.

    While `calidrift serve` runs it is asked; otherwise the database is read directly.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
        if model is not None:
            require_known(desk, model, "calidrift marks [MODEL]")
        found = [marker_of(one) for one in desk.read("marks", model)["items"]]
    if found:
        output.table(
            "marked moments, the latest first",
            ("when", "model", "what happened", "by"),
            [(moment(one.at_ns), one.model, one.text, one.author or "calidrift") for one in found],
        )
    else:
        output.show('nothing is marked; calidrift mark MODEL "what happened" does')
    output.document({"markers": found})
