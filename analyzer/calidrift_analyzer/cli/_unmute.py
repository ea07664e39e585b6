"""`calidrift unmute`."""

from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import mute_of, one_line, require_known
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.config import load_config
from calidrift_analyzer.service import open_desk

__all__ = ["unmute"]

_USAGE: Final = "calidrift unmute MODEL [POINT]"


def unmute(
    invocation: Invocation,
    model: Annotated[str | None, typer.Argument(help="Name of the model.")] = None,
    point: Annotated[
        str | None,
        typer.Argument(help="The point or pattern as it was muted (default: the whole model)."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="End every mute of the model, whatever it is about.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """End a mute before its time.

    That it was ended, by whom and when, is kept: `calidrift mutes --all`.

    While `calidrift serve` runs it is asked; otherwise the database is used directly.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    why = "" if reason is None else one_line(reason, "--reason", '--reason "the camera is back"')
    wanted = {"point": point, "every": every, "reason": why}
    with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
        name = require_known(desk, model, _USAGE)
        document = desk.change("unmute", name, wanted)
    ended = [mute_of(one) for one in document["ended"]]
    for mute in ended:
        output.show(
            f"{name}: {mute.what} is no longer muted; its alarms count again from now on (it was "
            f"{mute.sentence})"
        )
    output.document({**document, "ended": ended})
