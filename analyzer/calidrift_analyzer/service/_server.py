"""The HTTP server: uvicorn on a socket that is bound before anything else starts."""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, cast, final

import uvicorn

from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.service._application import create_application
from calidrift_analyzer.service._connections import BoundedProtocol, Crowd
from calidrift_analyzer.service._service import Service, load_tokens

__all__ = ["AnnouncedServer", "serve"]

_BACKLOG: Final = 256
_GRACE_SECONDS: Final = 5
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)


def serve(config: AnalyzerConfig, ready: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    Args:
        config: The configuration.
        ready: Called with the address as soon as requests are answered.

    Raises:
        ConfigurationError: The address cannot be listened on, or the tokens or certificate cannot
            be used.
        StoreBusyError: Another process holds the database.
        StoreError: The database cannot be used.
    """
    load_tokens(config)  # before the port is open
    with _listen(config) as listening:
        options = _options(config)
        service = Service(config)
        try:
            options.app = create_application(service)
            service.start()
            server = AnnouncedServer(options, lambda: ready(_url(config, listening)))
            server.run(sockets=[listening])
        finally:
            service.stop()


@final
class AnnouncedServer(uvicorn.Server):
    """Tells when it answers, and ends on a signal as on any other wish.

    Args:
        config: What to serve, and how.
        ready: Called as soon as requests are answered.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals for a wish to end; uvicorn would raise them anew at the end."""
        before = {one: signal.signal(one, self.handle_exit) for one in _ENDING}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _options(config: AnalyzerConfig) -> uvicorn.Config:
    told = config.service
    if (told.certificate is None) != (told.key is None):
        missing = "key" if told.key is None else "certificate"
        raise ConfigurationError(
            f"TLS needs a certificate and its key, but {missing} is missing in [service]; give "
            "both, or neither for plain HTTP"
        )
    _check_certificate(config)
    crowd = Crowd()
    return uvicorn.Config(
        "calidrift",
        http=cast(type[asyncio.Protocol], partial(BoundedProtocol, crowd=crowd)),
        ws="none",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=crowd.patience.most + 1,  # by tasks; the crowd bounds connections
        ssl_certfile=told.certificate,
        ssl_keyfile=told.key,
    )


def _check_certificate(config: AnalyzerConfig) -> None:
    """Look at the files before anything starts; uvicorn would fail on them afterwards."""
    told = config.service
    if told.certificate is None or told.key is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(told.certificate, told.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS cannot be set up with {told.certificate} and {told.key} ({error}); give a PEM "
            "certificate chain and its private key without a passphrase"
        ) from error


def _no_password() -> str:
    """Nobody is there to type one; without this OpenSSL would ask the terminal."""
    raise ValueError("the key is encrypted")


def _listen(config: AnalyzerConfig) -> socket.socket:
    told = config.service
    try:
        found = socket.getaddrinfo(
            told.host, told.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"{told.host} port {told.port} cannot be listened on "
            f"({getattr(error, 'strerror', None) or error}); give another with --host or --port"
        ) from error


def _url(config: AnalyzerConfig, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if config.service.certificate is None else "https"
    return f"{scheme}://{shown}:{port}"
