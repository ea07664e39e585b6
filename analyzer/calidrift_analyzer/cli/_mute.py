"""`calidrift mute`."""

import time
from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import (
    known_points,
    matching_points,
    one_line,
    read_span,
    require_known,
    user_name,
)
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.config import load_config
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import Mute
from calidrift_analyzer.store import Store

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
) -> None:
    """Do not let an alarm decide anything for a while, and say why.

    The alarm stays visible with the mute beside it, and its evidence keeps counting. Until the mute
    ends, by itself or by `calidrift unmute`, it starts no repair and is not in the exported alarm.
    Who muted what, until when and why is kept for ever: `calidrift mutes --all`.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    if span is None:
        raise ConfigurationError(f"a mute needs an end: give --for, e.g. --for 7d; type: {_USAGE}")
    seconds = read_span(span)
    why = one_line(reason, "--reason", '--reason "new camera, retraining planned"')
    with Store.open(config.database) as store:
        name = require_known(store, config, model, _USAGE)
        names = known_points(store, name)
        now_ns = time.time_ns()
        given = Mute(
            model=name,
            point=names.get(point, point) if point is not None else None,
            created_ns=now_ns,
            until_ns=now_ns + round(seconds * 1e9),
            reason=why,
            author=user_name(),
        )
        points = matching_points(given, names)
        store.annotations.mute(given)
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
