"""The HTTP server of the sidecar: that of `prometheus_client`, kept from being held up."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import ssl
import threading
import time
from typing import Any, Final, final
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client.exposition import ThreadingWSGIServer

from calidrift_agent._sidecar._application import MetricsApplication
from calidrift_agent._sidecar._options import ListenOptions
from calidrift_agent.errors import ConfigurationError

MOST_CONNECTIONS: Final = 32
CONNECTION_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_log = logging.getLogger("calidrift_agent")


@final
class MetricsServer(ThreadingWSGIServer):
    """Listens from the moment it is made; answers from `start()` on.

    A client that is slow in whatever way (a TLS handshake that never ends, a byte every few
    seconds) holds one of `MOST_CONNECTIONS` threads until its time is over, and is then hung up
    on; so is whoever comes while all are taken.

    Args:
        options: Where to listen.
        application: What to answer.
        connection_seconds: Time that a connection may take from beginning to end.

    Raises:
        ConfigurationError: The address cannot be listened on, or the TLS files cannot be used.
    """

    request_queue_size = 2 * MOST_CONNECTIONS

    def __init__(
        self,
        options: ListenOptions,
        application: MetricsApplication,
        connection_seconds: float = CONNECTION_SECONDS,
    ) -> None:
        self._seconds = connection_seconds
        self._deadlines: dict[socket.socket, float] = {}
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        context = _tls(options)
        try:
            found = socket.getaddrinfo(
                options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            self.address_family, _, _, _, address = found[0]
            super().__init__(address, _Handler)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(
                f"{options.host} port {options.port} cannot be listened on "
                f"({getattr(error, 'strerror', None) or error}); give another with --host or --port"
            ) from error
        if context is not None:
            # The handshake is left to the thread of the connection.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.set_app(application)
        self._tls = context is not None
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name="calidrift-http", daemon=True
        )

    @property
    def url(self) -> str:
        """Where figures are."""
        host, port = str(self.server_address[0]), self.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{port}/metrics"

    def start(self) -> None:
        """Begin to answer, on a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; answers that are under way are not waited for."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        """Bind without asking the name service who this is: that may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, if there is one left."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._deadlines[request] = time.monotonic() + self._seconds
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._release(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, on the thread of the connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._release(request)

    def service_actions(self) -> None:
        """Hang up on those whose time is over; asked a few times a second."""
        now = time.monotonic()
        for request, deadline in self._deadlines.copy().items():
            if now >= deadline:
                with contextlib.suppress(OSError):  # it ended at this moment
                    # Past TLS, whose objects belong to the thread of the connection.
                    socket.socket.shutdown(request, socket.SHUT_RDWR)

    def _release(self, request: socket.socket) -> None:
        self._deadlines.pop(request, None)
        self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up or spoke another protocol is no reason to print a traceback."""
        _log.debug("a connection from %s failed", client_address, exc_info=True)


@final
class _Handler(WSGIRequestHandler):
    timeout = CONNECTION_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _tls(options: ListenOptions) -> ssl.SSLContext | None:
    if options.certificate is None or options.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.certificate, options.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS cannot be set up with {options.certificate} and {options.key} "
            f"({getattr(error, 'strerror', None) or error}); give a PEM certificate chain and its "
            "private key without a passphrase"
        ) from error
    return context


def _no_password() -> str:
    """Nobody is there to type one; without this OpenSSL would ask the terminal."""
    raise ValueError("the key is encrypted")
