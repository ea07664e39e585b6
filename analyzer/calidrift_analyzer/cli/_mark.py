"""`calidrift mark`."""

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import (
    marker_of,
    one_line,
    read_moment,
    require_known,
)
from calidrift_analyzer.cli._output import Output, moment
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.cli._service_options import ServiceUrl, TokenFile
from calidrift_analyzer.config import load_config
from calidrift_analyzer.service import open_desk

__all__ = ["mark"]

_USAGE: Final = 'calidrift mark MODEL "what happened" [--at TIME]'


def mark(
    invocation: Invocation,
    model: Annotated[str | None, typer.Argument(help="Name of the model.")] = None,
    text: Annotated[str | None, typer.Argument(help="What happened, in a few words.")] = None,
    at: Annotated[
        str | None,
        typer.Option(help="When, e.g. '2026-11-21 14:30' (UTC) or with an offset (default: now)."),
    ] = None,
    url: ServiceUrl = None,
    token_file: TokenFile = None,
) -> None:
    """Mark a moment that may explain a change: a deployment, a new client, a new sensor.

    Where a drift begins within a day after it, `status` and `coverage` say so beside the alarm.
    Promotions and rollbacks mark themselves.

    While `calidrift serve` runs it is asked; otherwise the database is used directly.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    wanted: dict[str, Any] = {}
    if at is not None:
        wanted["at"] = _spoken(read_moment(at, time.time_ns()))
    with open_desk(config, user_name(), url=url, token_file=token_file) as desk:
        name = require_known(desk, model, _USAGE)
        wanted["text"] = one_line(text, "the text of the marker", '"deployed preprocessing 2.3"')
        given = marker_of(desk.change("mark", name, wanted))
    output.show(f"{name}: marked {moment(given.at_ns)}: {given.text}")
    output.document({"marker": given})


def _spoken(at_ns: int) -> str:
    """Write a moment for the API, to the microsecond."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_ns // 1_000)).isoformat()
