"""The sidecar as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self, final

from calidrift_agent._sidecar._application import MetricsApplication
from calidrift_agent._sidecar._exposition import Exposition
from calidrift_agent._sidecar._figures import PushFigures
from calidrift_agent._sidecar._folders import tell_missing
from calidrift_agent._sidecar._options import ListenOptions, SidecarOptions
from calidrift_agent._sidecar._push import Pusher
from calidrift_agent._sidecar._server import MetricsServer
from calidrift_agent._sidecar._ship import Shipper
from calidrift_agent._sidecar._ship_figures import FigureGroup, ShipFigures
from calidrift_agent._sidecar._sweeper import Sweeper
from calidrift_agent._sidecar._token import BearerToken

_GOODBYE_SECONDS: Final = 1.2
_ARENA_MAX: Final = -8
"""`M_ARENA_MAX` of glibc's malloc.h."""
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("calidrift_agent")


@final
class Sidecar:
    """Serves, pushes and sweeps, on threads of its own, for as long as the block lasts.

    Args:
        options: What to read, and what to do with it.

    Raises:
        ConfigurationError: Something that it needs cannot be used: address, token, TLS files, or
            the exporter.

    Example:
        >>> import tempfile, urllib.request
        >>> from pathlib import Path
        >>> from calidrift_agent._sidecar import ListenOptions
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = SidecarOptions((Path(folder),), ListenOptions(port=0))
        ...     with Sidecar(options) as running:
        ...         address = running.url.replace("/metrics", "/healthz")
        ...         with urllib.request.urlopen(address) as answer:
        ...             print(answer.read().decode().strip())
        ok
    """

    def __init__(self, options: SidecarOptions) -> None:
        listen, push = options.listen, options.push
        token = None if listen.token_file is None else BearerToken(listen.token_file)
        figures = None if push is None else PushFigures()
        shipped = None if options.ship is None else ShipFigures()
        exposition = Exposition(options, FigureGroup((figures, shipped)))
        self._pusher: Pusher | None = None
        if push is not None and figures is not None:
            self._pusher = Pusher(push, exposition.reading, figures, options.directories)
        self._shipper: Shipper | None = None
        if options.ship is not None and shipped is not None:
            self._shipper = Shipper(options.ship, options.directories, shipped)
        guard = None if self._shipper is None else self._shipper.needed
        self._sweeper = Sweeper(options.directories, options.sweep, guard)
        self._server = MetricsServer(listen, MetricsApplication(exposition, token))
        tell_missing(options.directories)
        if token is None and not _is_loopback(listen):
            _log.warning(
                "anyone who reaches %s may read the figures; --token-file keeps others out",
                self._server.url,
            )

    @property
    def url(self) -> str:
        """Where figures are served."""
        return self._server.url

    def __enter__(self) -> Self:
        self._server.start()
        self._sweeper.start()
        if self._pusher is not None:
            self._pusher.start()
        if self._shipper is not None:
            self._shipper.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        until = time.monotonic() + _GOODBYE_SECONDS
        self._sweeper.stop()
        if self._shipper is not None:
            self._shipper.end()
        self._server.stop()
        if self._pusher is not None:
            self._pusher.stop(_GOODBYE_SECONDS)
        if self._shipper is not None:
            self._shipper.stop(max(until - time.monotonic(), 0.0))


def serve(options: SidecarOptions, ready: Callable[[str], None]) -> None:
    """Run a sidecar until SIGTERM or SIGINT arrives; then it ends within two seconds.

    Call it on the main thread.

    Args:
        options: What to read, and what to do with it.
        ready: Called with the address of the figures, once they can be asked for.

    Raises:
        ConfigurationError: As `Sidecar`.
    """
    _share_memory()
    with _ending() as ended, Sidecar(options) as sidecar:
        ready(sidecar.url)
        select.select([ended], [], [])


@contextlib.contextmanager
def _ending() -> Iterator[int]:
    """A descriptor that can be read from once a signal arrived, whichever thread it came to.

    An `Event` that a handler sets may deadlock with the wait that the handler interrupts, and
    numpy's threads take signals too; the interpreter's own wake-up descriptor knows neither.
    """
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    handlers = {number: signal.signal(number, _note) for number in _ENDING}
    former = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield ended
    finally:
        signal.set_wakeup_fd(former)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(ended)
        os.close(wake)


def _share_memory() -> None:
    """Have all threads take memory from one arena.

    glibc gives each thread one of its own, and keeps in each what its largest reading took. The
    threads of a sidecar work one after the other: one arena saves them 10 MB and costs nothing.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if allocator is not None:
        allocator(_ARENA_MAX, 1)


def _note(*_: object) -> None:
    """The wake-up descriptor does the rest."""


def _is_loopback(listen: ListenOptions) -> bool:
    try:
        return ip_address(listen.host).is_loopback
    except ValueError:
        return listen.host == "localhost"
