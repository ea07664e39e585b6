"""One push: what each answer means, and what never leaves the sidecar."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from email.utils import formatdate

import pytest

from calidrift_agent._sidecar import ShipOptions
from calidrift_agent._sidecar._ship_client import AnalyzerClient, BatchRefusedError, ShipError
from calidrift_agent._sidecar._ship_figures import PushFailure
from calidrift_agent.errors import ConfigurationError

GOOD = b'{"stored": 2, "last_number": 4, "profile_known": true}'


def answer(status=200, body=GOOD, *headers):
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Scripted:
    """Answers each connection with the next of some bytes, whatever is asked.

    Attributes:
        asked: Heads of the requests, lower case.
    """

    def __init__(self, *answers, context=None, drip=0.0, read_body=True):
        self.asked = []
        self._answers, self._context, self._drip = list(answers), context, drip
        self._read_body = read_body
        self.done = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, name="scripted", daemon=True)
        self.thread.start()

    def _serve(self):
        for told in self._answers:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return  # closed
            with connection:
                try:
                    if self._context is not None:
                        connection = self._context.wrap_socket(connection, server_side=True)
                    self._answer(connection, told)
                except OSError:
                    pass
                finally:
                    connection.close()

    def _answer(self, connection, told):
        text = b""
        while b"\r\n\r\n" not in text:
            text += _received(connection)
        head, _, body = text.partition(b"\r\n\r\n")
        self.asked.append(head.decode().lower())
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while self._read_body and len(body) < length:
            body += _received(connection)
        if not self._drip:
            connection.sendall(told)
        else:
            for place in range(len(told)):
                connection.sendall(told[place : place + 1])
                if self.done.wait(self._drip):
                    return
        if not self._read_body:  # hang up in an orderly way, as a server that refuses does
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass

    def close(self):
        self.done.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes who waits to accept
        self.socket.close()
        self.thread.join(30)
        assert not self.thread.is_alive()


def _received(connection):
    part = connection.recv(65_536)
    if not part:
        raise ConnectionError("hung up")
    return part


@pytest.fixture
def scripted():
    made = []

    def make(*answers, **more):
        made.append(Scripted(*answers, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def client(server, **more):
    return AnalyzerClient(ShipOptions(server.url, **{"timeout_seconds": 10.0, **more}))


def test_an_answer_of_success_is_read(scripted):
    server = scripted(answer())
    found = client(server).push(b"windows")
    assert (found.stored, found.last_number, found.profile_known) == (2, 4, True)
    assert server.asked[0].startswith("post /api/v1/ingest http/1.1")
    assert "content-type: application/vnd.calidrift.push" in server.asked[0]
    assert "authorization" not in server.asked[0]


def test_a_path_before_the_api_stays(scripted):
    server = scripted(answer())
    AnalyzerClient(ShipOptions(f"{server.url}/calidrift/")).push(b"")
    assert server.asked[0].startswith("post /calidrift/api/v1/ingest ")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, PushFailure.UNAUTHORIZED),
        (403, PushFailure.UNAUTHORIZED),
        (429, PushFailure.UNAVAILABLE),
        (500, PushFailure.UNAVAILABLE),
        (503, PushFailure.UNAVAILABLE),
        (404, PushFailure.MISDIRECTED),
        (302, PushFailure.MISDIRECTED),
        (204, PushFailure.MISDIRECTED),
    ],
)
def test_what_may_be_tried_again(scripted, status, kind):
    server = scripted(answer(status, b"", "Location: /elsewhere", "Retry-After: 17"))
    with pytest.raises(ShipError) as caught:
        client(server).push(b"")
    assert (caught.value.kind, caught.value.retry_seconds) == (kind, 17.0)
    assert caught.value.of_batch is (status == 500)
    assert len(server.asked) == 1, "a redirect is not followed: the token stays here"


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_what_will_never_be_taken(scripted, status):
    document = b'{"detail": "window 3 has a\\nvalue that cannot be"}'
    with pytest.raises(BatchRefusedError, match="has a value that cannot be") as caught:
        client(scripted(answer(status, document))).push(b"")
    assert caught.value.too_large is (status == 413)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("17", 17.0, 17.0),
        ("1e9", 300.0, 300.0),
        ("-5", 0.0, 0.0),
        ("nan", 0.0, 0.0),
        ("soon", 0.0, 0.0),
        (formatdate(time.time() + 3_600, usegmt=True), 300.0, 300.0),
        (formatdate(time.time() - 60, usegmt=True), 0.0, 0.0),
    ],
    ids=["seconds", "years", "negative", "nan", "word", "date", "past"],
)
def test_retry_after_is_honoured_within_bounds(scripted, header, least, most):
    server = scripted(answer(503, b"", f"Retry-After: {header}"))
    with pytest.raises(ShipError) as caught:
        client(server).push(b"")
    assert least <= caught.value.retry_seconds <= most


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"no http at all\r\n\r\n",
    ],
    ids=["nothing", "half", "noise"],
)
def test_half_an_answer_is_none(scripted, told):
    with pytest.raises(ShipError) as caught:
        client(scripted(told)).push(b"")
    assert caught.value.kind is PushFailure.UNREACHABLE


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b'{"stored": 1}', b'{"stored": "1", "last_number": 2, "profile_known": 1}'],
    ids=["page", "list", "part", "text"],
)
def test_an_answer_that_no_analyzer_gives(scripted, body):
    with pytest.raises(ShipError, match="not what an analyzer answers") as caught:
        client(scripted(answer(200, body))).push(b"")
    assert caught.value.kind is PushFailure.MISDIRECTED


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ShipError, match="ConnectionRefused") as caught:
        AnalyzerClient(ShipOptions(url)).push(b"")
    assert caught.value.kind is PushFailure.UNREACHABLE


def test_a_slow_answer_ends_at_the_timeout(scripted):
    server = scripted(answer(), drip=0.05)
    with pytest.raises(ShipError) as caught:
        client(server, timeout_seconds=0.3).push(b"")
    assert caught.value.kind is PushFailure.UNREACHABLE


def test_a_refusal_is_heard_although_the_body_was_not_read(scripted):
    server = scripted(answer(413, b"{}"), read_body=False)
    with pytest.raises(BatchRefusedError):
        client(server).push(bytes(8_000_000))


def test_the_token_is_read_anew_and_never_told(scripted, tmp_path):
    path = tmp_path / "token"
    path.write_text("first-secret\n")
    server = scripted(answer(), answer(401, b""), answer())
    sender = client(server, token_file=path)
    sender.push(b"")
    path.write_text("second-secret")
    with pytest.raises(ShipError) as caught:
        sender.push(b"")
    assert "secret" not in str(caught.value)
    assert "authorization: bearer first-secret" in server.asked[0]
    assert "authorization: bearer second-secret" in server.asked[1]
    path.write_text("two-secret\nlines")
    with pytest.raises(ShipError, match="more than one") as caught:
        sender.push(b"")
    assert caught.value.kind is PushFailure.UNAUTHORIZED
    assert len(server.asked) == 2


def test_certificates_are_verified(scripted, certified, tmp_path):
    certificate, key = certified
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = scripted(answer(), answer(), context=context)
    with pytest.raises(ShipError, match="CERTIFICATE_VERIFY_FAILED"):
        client(server).push(b"")
    assert not server.asked
    assert client(server, ca_file=certificate).push(b"").stored == 2
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    with pytest.raises(ConfigurationError, match="CA file"):
        client(server, ca_file=broken)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": "analyzer:9465"}, "must be http://HOST:PORT"),
        ({"url": "ftp://analyzer"}, "must be http://HOST:PORT"),
        ({"url": "http://user:s3cret@analyzer"}, "an address with a user in it"),
        ({"url": "http://analyzer:99999"}, "must be http://HOST:PORT"),
        ({"url": "http://analyzer?x=1"}, "must be http://HOST:PORT"),
        ({"url": "http://a", "interval_seconds": 0.0}, "0.1 to 86400"),
        ({"url": "http://a", "timeout_seconds": 0.0}, "0.1 to 300"),
        ({"url": "http://a", "spool_bytes": -1}, "whole number"),
        ({"url": "http://a", "ca_file": "x"}, "not encrypted"),
    ],
    ids=["bare", "ftp", "user", "port", "query", "interval", "timeout", "bytes", "ca"],
)
def test_options_that_cannot_be(given, told):
    with pytest.raises(ConfigurationError, match=told) as caught:
        ShipOptions(**given)
    assert "s3cret" not in str(caught.value)
