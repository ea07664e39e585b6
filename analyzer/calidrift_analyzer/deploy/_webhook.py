"""A hook that is an address: one JSON document, signed, under a key that stays the same."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.deploy._halt import Halt
from calidrift_analyzer.deploy._hook import HookResult, fields, read_secret, sign, tail
from calidrift_analyzer.records import DeploymentRow

__all__ = ["FORMAT", "SIGNATURE_HEADER", "TIMESTAMP_HEADER", "post"]

FORMAT: Final = 1
"""Version of the document."""
SIGNATURE_HEADER: Final = "X-Calidrift-Signature"
TIMESTAMP_HEADER: Final = "X-Calidrift-Timestamp"
_AGAIN: Final = frozenset({408, 425, 429})
_SERVER_ERRORS: Final = range(500, 600)
_ACCEPTED: Final = range(200, 300)
_READ: Final = 4_096


def post(contract: ModelContract, row: DeploymentRow, halt: Halt) -> HookResult:
    """POST the move once; redirects are not followed, proxies not used.

    Args:
        contract: The model, with an address to call.
        row: The move.
        halt: Ends the call where the service ends.

    Raises:
        ConfigurationError: The secret cannot be used.
    """
    deploy = contract.deploy
    assert deploy is not None
    assert deploy.url is not None
    assert deploy.secret_file is not None
    secret = read_secret(deploy.secret_file, contract.name)
    body = json.dumps({"format": FORMAT, **fields(contract, row)}, sort_keys=True).encode()
    moment = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": row.key,
        TIMESTAMP_HEADER: moment,
        SIGNATURE_HEADER: sign(secret, moment, body),
        "User-Agent": "calidrift",
    }
    parts = urlsplit(deploy.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    seconds = deploy.timeout_seconds
    try:
        with closing(_connection(deploy.url, seconds)) as connection:
            connection.connect()
            with _bounded(connection.sock, seconds, halt):
                connection.request("POST", target, body, headers)
                answer = connection.getresponse()
                content = answer.read(_READ)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        sentence = f"{deploy.url} did not answer ({reason})"
        return HookResult(done=False, again=True, sentence=sentence)
    status = answer.status
    return HookResult(
        done=status in _ACCEPTED,
        again=status in _AGAIN or status in _SERVER_ERRORS,
        sentence=f"{deploy.url} answered with status {status}",
        output=tail(content),
    )


def _connection(url: str, seconds: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=seconds)


@contextmanager
def _bounded(connected: socket.socket, seconds: float, halt: Halt) -> Iterator[None]:
    """End a connection after a while, however slowly something keeps coming."""

    def end() -> None:
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        with halt.ending(end):
            yield
    finally:
        timer.cancel()
