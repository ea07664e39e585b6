"""`calidrift publish`."""

from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._output import Output, count
from calidrift_analyzer.config import load_config
from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.promote import publish as send

__all__ = ["publish"]


def publish(
    invocation: Invocation,
    model: Annotated[
        str | None,
        typer.Argument(help="Model of the configuration; not needed where there is only one."),
    ] = None,
) -> None:
    """Send the version that serves to its registry_url, and verify every byte of it there.

    Promotions, rollbacks and `calidrift serve` do so by themselves; this is for the first time, and
    after an outage or a repair. What is there already is read back and not sent again.
    """
    contract = load_config(invocation.config).model(model)
    if contract.registry_url is None:
        raise ConfigurationError(
            f"[models.{contract.name}] has no registry_url, so there is nowhere to publish; add a "
            "URL such as registry_url = 's3://bucket/models'"
        )
    out = Output(invocation)
    with out.progress("publishing"):
        found = send(contract.registry, contract.name, contract.registry_url)
    if found.version is None:
        raise NoDataError(
            f"no version of {contract.name} was promoted into {contract.registry}; run "
            "`calidrift promote` first"
        )
    out.show(
        f"published: {found.version} is at {found.url}, {count(found.sent, 'file')} sent"
        + (", and its pointer names it now" if found.moved else "; its pointer named it already")
    )
    out.document(
        {
            "action": "published",
            "model": contract.name,
            "version": found.version,
            "url": found.url,
            "sent": found.sent,
            "moved": found.moved,
        }
    )
