"""`calidrift mark`."""

import time
from typing import Annotated, Final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import one_line, read_moment, require_known, user_name
from calidrift_analyzer.cli._output import Output, moment
from calidrift_analyzer.config import load_config
from calidrift_analyzer.records import Marker
from calidrift_analyzer.store import Store

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
) -> None:
    """Mark a moment that may explain a change: a deployment, a new client, a new sensor.

    Where a drift begins within a day after it, `status` and `coverage` say so beside the alarm.
    Promotions and rollbacks mark themselves.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    now_ns = time.time_ns()
    at_ns = now_ns if at is None else read_moment(at, now_ns)
    with Store.open(config.database) as store:
        name = require_known(store, config, model, _USAGE)
        given = Marker(
            model=name,
            at_ns=at_ns,
            text=one_line(text, "the text of the marker", '"deployed preprocessing 2.3"'),
            author=user_name(),
            created_ns=now_ns,
        )
        store.annotations.mark(given)
    output.show(f"{name}: marked {moment(at_ns)}: {given.text}")
    output.document({"marker": given})
