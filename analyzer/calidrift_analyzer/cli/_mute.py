"""`calidrift mute`."""

from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import (
    mute_of,
    one_line,
    read_span,
    require_known,
)
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.config import load_config
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.service import open_desk

__all__ = ["mute"]

_USAGE: Final = 'calidrift mute MODEL [POINT] --for 7d --reason "..."'
_TOLD: Final = 5


def mute(
    invocation: Invocation,
    model: Annotated[str | None, typer.Argument(help="Name of the model.")] = None,
    point: Annotated[
        str | None,
        typer.Argument(help="A point, or a pattern with * and ? (default: the whole model)."),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option("--for", help="How long: 90m, 12h, 7d or 2w. Required: a mute always ends."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why. Required: it stands beside the alarm.")
    ] = None,
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Do not let an alarm decide anything for a while, and say why.

    The alarm stays visible with the mute beside it, and its evidence keeps counting. Until the mute
    ends, by itself or by `calidrift unmute`, it starts no repair and is not in the exported alarm.
    Who muted what, until when and why is kept for ever: `calidrift mutes --all`.

    While `calidrift serve` runs it is asked; otherwise the database is used directly.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    if span is None:
        raise ConfigurationError(f"a mute needs an end: give --for, e.g. --for 7d; type: {_USAGE}")
    seconds = read_span(span)
    why = one_line(reason, "--reason", '--reason "new camera, retraining planned"')
    wanted = {"point": point, "seconds": seconds, "reason": why}
    with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
        name = require_known(desk, model, _USAGE)
        document = desk.change("mute", name, wanted)
    given, points = mute_of(document["mute"]), tuple(document["points"])
    output.show(f"{name}: {given.what} is {given.sentence}")
    if given.point not in (None, *points) and points:
        more = f" and {len(points) - _TOLD} more" if len(points) > _TOLD else ""
        output.show(f"points: {', '.join(points[:_TOLD])}{more}")
    if not points:
        output.note(f"no point of {name} is known yet, so the name could not be checked")
    output.show(
        "alarms there stay visible and their evidence keeps counting; they start no repair and are "
        "not exported until then"
    )
    output.document({"mute": given, "points": points})
