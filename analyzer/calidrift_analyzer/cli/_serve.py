"""`calidrift serve`."""

import sys
from typing import Annotated

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.config import load_config
from calidrift_analyzer.service import serve as run_service

__all__ = ["serve"]


def serve(
    invocation: Invocation,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: host of [service]).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 for any that is free (default: port of [service]).")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="propose, auto or off (default: mode of [service])."),
    ] = None,
) -> None:
    """Watch continuously: collect, assess, answer alerts, recalibrate, and serve the API.

    Runs until SIGTERM or Ctrl-C. It holds the database; `calidrift jobs` speaks to it. Where it is
    killed, jobs go on with the next start. With --json it prints one document: the address.
    """
    flags = {"service.host": host, "service.port": port, "service.mode": mode}
    config = load_config(invocation.config, flags=flags)

    def ready(url: str) -> None:
        if invocation.json:
            invocation.emit(
                {"url": url, "database": config.database, "models": list(config.models)}
            )
        else:
            sys.stdout.write(f"serving {config.database} at {url}\n")
            sys.stdout.flush()

    run_service(config, ready)
