"""`calidrift promote`."""

from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._frozen import require_thawed
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.cli._versions import announce
from calidrift_analyzer.config import load_config
from calidrift_analyzer.cycle import load_report
from calidrift_analyzer.deploy import check_hook
from calidrift_analyzer.promote import promote as put_into_service
from calidrift_analyzer.records import DeployAction

__all__ = ["promote"]


def promote(
    invocation: Invocation,
    model: Annotated[
        str | None,
        typer.Argument(help="Model of the configuration; not needed where there is only one."),
    ] = None,
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Put a validated candidate into service.

    Takes the candidate of the last `calidrift validate`, if every gate held. The version is written
    beside the old ones, verified, and switched to in one step; `calidrift rollback` goes back.
    A hook of the configuration runs before the command ends; where it fails, the version serves all
    the same and the command ends with status 1. A model that is frozen is left alone.
    """
    config = load_config(invocation.config)
    contract = config.model(model)
    out = Output(invocation)
    require_thawed(out, config, contract.name, DeployAction.PROMOTE, url, token_file)
    report = load_report(contract)
    check_hook(contract)
    version = put_into_service(report.candidate, report, contract.registry, contract.name)
    announce(out, config, version, DeployAction.PROMOTE, version.parent)
