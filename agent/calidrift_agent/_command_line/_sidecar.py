"""`calidrift sidecar`."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from calidrift_agent import _environment
from calidrift_agent._command_line._invocation import Invocation
from calidrift_agent._export import MAX_POINTS
from calidrift_agent._sidecar import (
    DEFAULT_HOST,
    DEFAULT_INTERVAL_SECONDS,
    DEFAULT_PORT,
    DEFAULT_SPOOL_BYTES,
    Exposition,
    ListenOptions,
    PushOptions,
    ShipOptions,
    SidecarOptions,
    serve,
    tell_missing,
)
from calidrift_agent._state import SweepOptions
from calidrift_agent.errors import ConfigurationError

__all__ = ["sidecar"]


def sidecar(invocation: Invocation, /, **given: Any) -> None:
    """Serve the figures of state directories to Prometheus, and push them where they are wanted.

    Runs beside the serving processes, so that rendering takes no time of theirs; it loads neither
    torch nor a database. With --otlp it also pushes figures, with --push whole windows, to an
    analyzer that does not see the directories. It ends on SIGTERM. `/metrics` has the figures,
    `/healthz` answers without a token. With --json it prints one document: the address, or with
    --once the figures.
    """
    if invocation.config is not None:
        raise ConfigurationError(
            "the sidecar reads no configuration file; leave --config away and give --state-dir"
        )
    once = bool(given.pop("once"))
    options = _options(**given)
    if not once:
        serve(options, lambda url: _tell(invocation, options, url))
        return
    if options.push is not None or options.ship is not None:
        given_too = "--push" if options.push is None else "--otlp"
        raise ConfigurationError(
            f"--once prints the figures and pushes nothing; leave {given_too} away"
        )
    tell_missing(options.directories)
    exposition = Exposition(options)
    if invocation.json:
        invocation.emit(exposition.document())
    else:
        sys.stdout.write(exposition.text())


def _options(
    state_dir: list[Path] | None, otlp: str | None, interval: float | None, **given: Any
) -> SidecarOptions:
    found = _environment.read().state_dir
    if interval is not None and otlp is None and given["push"] is None:
        raise ConfigurationError(
            "--interval is the time between two pushes; it needs --otlp URL or --push URL"
        )
    seconds = DEFAULT_INTERVAL_SECONDS if interval is None else interval
    return SidecarOptions(
        directories=tuple(state_dir or ([] if found is None else [found])),
        listen=ListenOptions(
            host=given["host"],
            port=given["port"],
            token_file=given["token_file"],
            certificate=given["tls_cert"],
            key=given["tls_key"],
        ),
        push=None if otlp is None else PushOptions(otlp, seconds),
        ship=_ship_options(seconds, **given),
        sweep=SweepOptions(retention_seconds=given["sweep_after"]),
        max_points=given["max_points"],
    )


def _ship_options(interval: float, push: str | None, **given: Any) -> ShipOptions | None:
    named = ("push_token_file", "push_ca", "push_spool", "push_spool_bytes")
    if push is None:
        for name in named:
            if given[name] is not None:
                raise ConfigurationError(f"--{name.replace('_', '-')} needs --push URL")
        if given["push_captures"]:
            raise ConfigurationError("--push-captures needs --push URL")
        return None
    most = given["push_spool_bytes"]
    return ShipOptions(
        url=push,
        token_file=given["push_token_file"],
        ca_file=given["push_ca"],
        interval_seconds=interval,
        spool=given["push_spool"],
        spool_bytes=DEFAULT_SPOOL_BYTES if most is None else most,
        captures=given["push_captures"],
    )


def _tell(invocation: Invocation, options: SidecarOptions, url: str) -> None:
    directories = [str(directory) for directory in options.directories]
    endpoint = None if options.push is None else options.push.endpoint
    if invocation.json:
        pushed = None if options.ship is None else options.ship.url
        document = {"url": url, "state_dirs": directories, "otlp": endpoint, "push": pushed}
        invocation.emit(document)
        return
    sys.stdout.write(f"serving {', '.join(directories)} at {url}\n")
    sys.stdout.flush()


def _reading(
    *,
    state_dir: Annotated[
        list[Path] | None,
        typer.Option(
            "--state-dir",
            help="A state_dir of the watches; may be repeated (default: CALIDRIFT_STATE_DIR).",
        ),
    ] = None,
    sweep_after: Annotated[
        float,
        typer.Option(help="Seconds for which the file of a dead process is kept for the analyzer."),
    ] = SweepOptions().retention_seconds,
    max_points: Annotated[
        int, typer.Option(help="Points per model that appear one by one, the worst first.")
    ] = MAX_POINTS,
    once: Annotated[bool, typer.Option("--once", help="Print the figures and exit.")] = False,
) -> None:
    """The options of what is read; only the signature counts."""


def _serving(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULT_HOST,
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.")] = DEFAULT_PORT,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token that readers must send.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    otlp: Annotated[
        str | None,
        typer.Option(
            help="Also push to this OTLP/HTTP receiver, http://HOST:PORT; headers and "
            "certificates: OTEL_EXPORTER_OTLP_*."
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(help=f"Seconds between two pushes (default: {DEFAULT_INTERVAL_SECONDS:g})."),
    ] = None,
) -> None:
    """The options of where figures go; only the signature counts."""


def _pushing(
    *,
    push: Annotated[
        str | None,
        typer.Option(
            help="Also push windows to this analyzer (`calidrift serve`), https://HOST:PORT."
        ),
    ] = None,
    push_token_file: Annotated[
        Path | None,
        typer.Option(help="File with the bearer token (scope ingest) that the analyzer wants."),
    ] = None,
    push_ca: Annotated[
        Path | None,
        typer.Option(help="Certificates (PEM) to verify the analyzer by (default: the system's)."),
    ] = None,
    push_spool: Annotated[
        Path | None,
        typer.Option(help="Folder for windows that wait (default: .push in the first state_dir)."),
    ] = None,
    push_spool_bytes: Annotated[
        int | None,
        typer.Option(help=f"Most bytes that may wait there (default: {DEFAULT_SPOOL_BYTES})."),
    ] = None,
    push_captures: Annotated[
        bool,
        typer.Option(
            "--push-captures",
            help="Send captured requests that the analyzer asks for (default: only their names).",
        ),
    ] = False,
) -> None:
    """The options of pushed windows; only the signature counts."""


def _signature() -> inspect.Signature:
    """The options of all groups: more than one function may have parameters."""
    first = inspect.Parameter("invocation", inspect.Parameter.POSITIONAL_ONLY)
    groups = (inspect.signature(group, eval_str=True) for group in (_reading, _serving, _pushing))
    return inspect.Signature([first, *(one for it in groups for one in it.parameters.values())])


sidecar.__signature__ = _signature()  # type: ignore[attr-defined]
