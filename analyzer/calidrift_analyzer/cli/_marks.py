"""`calidrift marks`."""

from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._annotated import require_known
from calidrift_analyzer.cli._output import Output, moment
from calidrift_analyzer.config import load_config
from calidrift_analyzer.store import Store

__all__ = ["marks"]


def marks(
    invocation: Invocation,
    model: Annotated[
        str | None, typer.Argument(help="Only this model (default: every one).")
    ] = None,
) -> None:
    """List the marked moments, promotions and rollbacks among them."""
    config = load_config(invocation.config)
    output = Output(invocation)
    with Store.open(config.database) as store:
        if model is not None:
            require_known(store, config, model, "calidrift marks [MODEL]")
        found = store.annotations.markers(model)
    if found:
        output.table(
            "marked moments, the latest first",
            ("when", "model", "what happened", "by"),
            [(moment(one.at_ns), one.model, one.text, one.author or "calidrift") for one in found],
        )
    else:
        output.show('nothing is marked; calidrift mark MODEL "what happened" does')
    output.document({"markers": found})
