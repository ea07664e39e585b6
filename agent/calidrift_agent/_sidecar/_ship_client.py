"""One request to an analyzer, and what its answer means.

The light package has no HTTP client among its dependencies (`requests` comes with the extra
`otlp`), and a sidecar image is to stay small: one POST is what `http.client` of the standard
library does well. Redirects are not followed, so that the token goes nowhere else, and proxies are
not used.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, final
from urllib.parse import quote, urlsplit

from calidrift_agent._sidecar._options import ShipOptions
from calidrift_agent._sidecar._ship_figures import PushFailure
from calidrift_agent._sidecar._token import BearerToken
from calidrift_agent._state import (
    PUSH_MEDIA_TYPE,
    Push,
    StateMeta,
    Window,
    decode_push,
    encode_push,
)
from calidrift_agent.errors import ConfigurationError, StateFormatError

MOST_RETRY_SECONDS: Final = 300.0
_PATH: Final = "/api/v1/ingest"
_CAPTURE_TYPE: Final = "application/octet-stream"
_MOST_WANTED: Final = 64
_MOST_ANSWER: Final = 64 * 1024 * 1024
_CHUNK: Final = 64 * 1024
_MOST_DETAIL: Final = 300
_TOO_LARGE: Final = 413
_NOT_THE_BATCH: Final = frozenset({404, 405, 407, 408, 421, 426})
"""Refusals that say nothing about what was sent."""


class ShipError(Exception):
    """A push failed; it may be tried again.

    Attributes:
        kind: Why.
        retry_seconds: How long the analyzer asked to be left alone; 0 where it did not.
        of_batch: Whether another batch may do better at once (it failed inside the analyzer).
    """

    def __init__(
        self, kind: PushFailure, reason: str, retry_seconds: float = 0.0, of_batch: bool = False
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.retry_seconds = retry_seconds
        self.of_batch = of_batch


class BatchRefusedError(Exception):
    """The analyzer will never take this batch.

    Attributes:
        too_large: Whether a smaller one may be taken.
    """

    def __init__(self, reason: str, too_large: bool) -> None:
        super().__init__(reason)
        self.too_large = too_large


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What the analyzer said of a push that it took.

    Attributes:
        stored: Windows that were new.
        last_number: Number of the last window that it has of the process; -1 without one.
        profile_known: Whether it has the profile of the process.
        wanted: Names of captures of the process that it asks for.
    """

    stored: int
    last_number: int
    profile_known: bool
    wanted: tuple[str, ...] = ()


@final
class AnalyzerClient:
    """Posts bodies to `/api/v1/ingest`; one connection per request, verified where it is TLS.

    Args:
        options: The address, token and certificates.

    Raises:
        ConfigurationError: The token file or the CA file cannot be used.
    """

    def __init__(self, options: ShipOptions) -> None:
        parts = urlsplit(options.url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/") + _PATH
        self._token = None if options.token_file is None else BearerToken(options.token_file)
        self._context = _context(options) if parts.scheme == "https" else None
        self._current: http.client.HTTPConnection | None = None
        self.timeout_seconds = options.timeout_seconds

    def push(self, body: bytes) -> Answer:
        """Send windows.

        Raises:
            ShipError: It may be tried again.
            BatchRefusedError: It will never be taken.
        """
        try:
            found = json.loads(self._post(self._path, body))
            answer = Answer(
                found["stored"],
                found["last_number"],
                found["profile_known"],
                _names(found.get("wanted")),
            )
            if [type(one) for one in (answer.stored, answer.last_number)] != [int, int]:
                raise TypeError("stored and last_number must be whole numbers")
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise _not_an_analyzer(error) from error
        return answer

    def sums(self, meta: StateMeta) -> Window:
        """Ask for the sum of what is stored of a process.

        Raises:
            ShipError: It may be tried again.
            BatchRefusedError: The process is one that the analyzer will never take.
        """
        try:
            found = decode_push(self._post(f"{self._path}/sums", encode_push(Push(meta))))
            [window] = found.windows
        except (StateFormatError, ValueError) as error:
            raise _not_an_analyzer(error) from error
        if window.points != len(meta.points):
            raise _not_an_analyzer("sums of other points")
        return window

    def capture(self, process: str, name: str, blob: bytes) -> None:
        """Send one capture that was asked for, as the file that it is.

        Raises:
            ShipError: It may be tried again.
            BatchRefusedError: It will never be taken.
        """
        self._post(f"{self._path}/captures/{process}/{quote(name, safe='')}", blob, _CAPTURE_TYPE)

    def interrupt(self) -> None:
        """Let a request that is under way fail now; from any thread."""
        current = self._current
        sock = None if current is None else current.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _post(self, path: str, body: bytes, kind: str = PUSH_MEDIA_TYPE) -> bytes:
        headers = {"Content-Type": kind, "Connection": "close", **self._credentials()}
        until = time.monotonic() + self.timeout_seconds
        try:
            with closing(self._connect()) as connection:
                self._current = connection
                response = _ask(connection, path, body, headers)
                with closing(response):
                    found = _read(response, until)
        except (OSError, http.client.HTTPException, ValueError) as error:
            words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ShipError(PushFailure.UNREACHABLE, words) from error
        finally:
            self._current = None
        if response.status != http.client.OK:
            raise _failure(response, found)
        return found

    def _credentials(self) -> dict[str, str]:
        if self._token is None:
            return {}
        token = self._token.current()
        if not all(33 <= letter <= 126 for letter in token):  # and never into a message
            raise ShipError(
                PushFailure.UNAUTHORIZED,
                "the push token file holds more than one printable word",
            )
        return {"Authorization": f"Bearer {token.decode('ascii')}"}

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self.timeout_seconds)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self.timeout_seconds, context=self._context
        )


def _names(given: object) -> tuple[str, ...]:
    """Names in an answer; an analyzer that asks for nothing, or an older one, gives none."""
    if not isinstance(given, list):
        return ()
    return tuple(one for one in given[:_MOST_WANTED] if isinstance(one, str))


def _context(options: ShipOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"the CA file {options.ca_file} cannot be used ({error}); give certificates in PEM "
            "that this user may read"
        ) from error


def _ask(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]
) -> http.client.HTTPResponse:
    try:
        connection.request("POST", path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        if connection.sock is None:
            raise
        # A receiver that refuses a large body answers before it has read it, then hangs up.
        return connection.getresponse()
    return connection.getresponse()


def _read(response: http.client.HTTPResponse, until: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > _MOST_ANSWER:
            raise ValueError(f"its answer is longer than {_MOST_ANSWER} bytes")
        if time.monotonic() > until:
            raise TimeoutError("its answer takes too long")
    if response.length:
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    return b"".join(parts)


def _failure(response: http.client.HTTPResponse, body: bytes) -> ShipError | BatchRefusedError:
    status = response.status
    reason = f"it answers {status}{_detail(body)}"
    retry = _retry_seconds(response.getheader("Retry-After"))
    if status in (401, 403):
        return ShipError(PushFailure.UNAUTHORIZED, reason, retry)
    if status == 429 or status >= 500:
        return ShipError(PushFailure.UNAVAILABLE, reason, retry, of_batch=status == 500)
    if 400 <= status < 500 and status not in _NOT_THE_BATCH:
        return BatchRefusedError(reason, too_large=status == _TOO_LARGE)
    return ShipError(PushFailure.MISDIRECTED, reason, retry)


def _detail(body: bytes) -> str:
    """What a problem document says, on one line; "" for any other body."""
    try:
        found = json.loads(body)
        detail = found["detail"] if isinstance(found, dict) else None
    except (KeyError, RecursionError, ValueError):
        return ""
    if not isinstance(detail, str):
        return ""
    words = "".join(one if one.isprintable() else " " for one in detail[:_MOST_DETAIL])
    return f": {words}"


def _retry_seconds(header: str | None) -> float:
    """Seconds of a `Retry-After` (a number or a date), within bounds; 0 for none."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (OverflowError, TypeError, ValueError):
            return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_SECONDS) if seconds == seconds else 0.0


def _not_an_analyzer(error: object) -> ShipError:
    return ShipError(
        PushFailure.MISDIRECTED, f"what it answers is not what an analyzer answers ({error})"
    )


__all__ = ["MOST_RETRY_SECONDS", "AnalyzerClient", "Answer", "BatchRefusedError", "ShipError"]
