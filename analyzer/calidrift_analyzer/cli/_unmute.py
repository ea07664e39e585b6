"""`calidrift unmute`."""

from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import known_points, one_line, require_known, user_name
from calidrift_analyzer.cli._output import Output
from calidrift_analyzer.config import load_config
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.records import Mute
from calidrift_analyzer.store import Store

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
) -> None:
    """End a mute before its time.

    That it was ended, by whom and when, is kept: `calidrift mutes --all`.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    why = "" if reason is None else one_line(reason, "--reason", '--reason "the camera is back"')
    with Store.open(config.database) as store:
        name = require_known(store, config, model, _USAGE)
        active = store.annotations.active(name)
        wanted = None if point is None else known_points(store, name).get(point, point)
        ended = active if every else tuple(one for one in active if one.point == wanted)
        if not ended:
            raise NoDataError(_nothing(name, wanted, active))
        author = user_name()
        for mute in ended:
            store.annotations.unmute(mute, author=author, reason=why)
    for mute in ended:
        output.show(
            f"{name}: {mute.what} is no longer muted; its alarms count again from now on (it was "
            f"{mute.sentence})"
        )
    output.document({"model": name, "ended": ended, "author": author, "reason": why or None})


def _nothing(model: str, point: str | None, active: tuple[Mute, ...]) -> str:
    if not active:
        return f"nothing of {model} is muted; `calidrift mutes --all` lists what was"
    what = "the whole model" if point is None else repr(point)
    also = [one.what for one in active if point is not None and one.covers(point)]
    covered = f" ({point} is under {also[0]!r}: end that one)" if also else ""
    listed = ", ".join(one.what for one in active)
    return (
        f"{what} of {model} is not muted by that name{covered}; muted are: {listed}: give one of "
        "these as it stands, or --all"
    )
