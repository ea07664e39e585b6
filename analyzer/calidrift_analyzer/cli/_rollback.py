"""`calidrift rollback`."""

from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._frozen import require_thawed
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.cli._versions import announce
from calidrift_analyzer.config import load_config
from calidrift_analyzer.deploy import check_hook, serving
from calidrift_analyzer.errors import StoreBusyError
from calidrift_analyzer.promote import rollback as go_back
from calidrift_analyzer.records import DeployAction

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
    note: Annotated[str, typer.Option(help="Why, for the audit of the service.")] = "",
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Put the version before the current one back into service.

    The version is verified first; a damaged one is never served. While `calidrift serve` runs it
    makes the move, keeps who did it, and runs the model's hook. Without one, a hook of the
    configuration runs before the command ends; where it fails, the version serves all the same and
    the command ends with status 1. A model that is frozen is left alone (status 1).
    """
    config = load_config(invocation.config)
    contract = config.model(model)
    out = Output(invocation)
    service = require_thawed(out, config, contract.name, DeployAction.ROLLBACK, url, token_file)
    if service is not None:
        try:
            told = service.change("rollback", contract.name, {"to": to, "note": note})
        except StoreBusyError as error:  # nobody answers, and going back must be possible
            out.note(f"no service answers, so the move is made here: {error}")
        else:
            sentence = told["sentence"]
            out.show(f"{contract.name}: {sentence}")
            out.document({"action": "rolled_back", "model": contract.name, "sentence": sentence})
            return
    check_hook(contract)
    before = serving(contract)
    version = go_back(contract.registry, contract.name, to)
    announce(out, config, version, DeployAction.ROLLBACK, before)
