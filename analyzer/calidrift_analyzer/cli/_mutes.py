"""`calidrift mutes`."""

from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import mute_of, require_known
from calidrift_analyzer.cli._output import Output, moment
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.config import load_config
from calidrift_analyzer.records import Mute
from calidrift_analyzer.service import open_desk

__all__ = ["mutes"]


def mutes(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one).")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Those that have ended, too, and how they ended.")
    ] = False,
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """List what is muted, until when, why, and by whom.

    While `calidrift serve` runs it is asked; otherwise the database is read directly.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
        if model is not None:
            require_known(desk, model, "calidrift mutes [MODEL]")
        listed = desk.read("all_mutes" if every else "mutes", model)["items"]
    found = [mute_of(one) for one in listed]
    if found:
        headings = ["model", "what", "muted until", "reason", "by", "set at"]
        output.table(
            "mutes, the newest first",
            [*headings, *(["state"] if every else [])],
            [[*_row(one), *([_state(one)] if every else [])] for one in found],
        )
    else:
        never = "nothing was ever muted" if every else "nothing is muted"
        output.show(never if every else f"{never}; --all lists what was")
    output.document({"mutes": found})


def _row(one: Mute) -> tuple[str, ...]:
    until, created = moment(one.until_ns), moment(one.created_ns)
    return one.model, one.what, until, one.reason, one.author, created


def _state(one: Mute) -> str:
    if one.ended_by is None or one.ended_ns is None:
        return str(one.state)
    because = f" because: {one.ended_because}" if one.ended_because else ""
    return f"{one.state} by {one.ended_by} at {moment(one.ended_ns)}{because}"
