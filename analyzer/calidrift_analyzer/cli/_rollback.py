"""`calidrift rollback`."""

from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._versions import announce
from calidrift_analyzer.config import load_config
from calidrift_analyzer.promote import rollback as go_back

__all__ = ["rollback"]


def rollback(
    invocation: Invocation,
    model: Annotated[
        str | None,
        typer.Argument(help="Model of the configuration; not needed where there is only one."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="The version (default: the one before the current one).")
    ] = None,
) -> None:
    """Put the version before the current one back into service.

    The version is verified first; a damaged one is never served.
    """
    config = load_config(invocation.config)
    contract = config.model(model)
    version = go_back(contract.registry, contract.name, to)
    announce(Output(invocation), config, version, "rolled_back")
