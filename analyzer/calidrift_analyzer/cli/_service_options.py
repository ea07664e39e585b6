"""Options of every command that goes through the service where one runs."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ServiceUrl", "TokenFile"]

ServiceUrl = Annotated[
    str | None,
    typer.Option("--url", help="Address of the service (default: that of [service])."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with the token to send to the service."),
]
