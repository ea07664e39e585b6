"""Connections that keep the service waiting: closed in time, and in nobody's way."""

import http.client
import resource
import socket
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest
import uvicorn

from calidrift_analyzer.service._connections import BoundedProtocol, Crowd, Patience

DEADLINE = 60.0
SHORT = 0.2
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
CONFIG = """
[service]
port = 0
ingest_seconds = 3600
assess_seconds = 3600
"""


async def application(scope, receive, send):
    """Give the body back; `/unread` answers without it, `/much` with more than sockets hold."""
    body = b""
    while scope["path"] != "/unread":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/much":
        body = b"x" * 64_000_000
    length = str(len(body)).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    )
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def serving():
    """Serve `application` in this process; gives what connects, and the crowd."""

    @contextmanager
    def serve(**told):
        crowd = Crowd(Patience(**told))
        config = uvicorn.Config(
            application,
            http=partial(BoundedProtocol, crowd=crowd),
            ws="none",
            lifespan="off",
            log_config=None,
        )
        server = uvicorn.Server(config)
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            try:
                yield partial(connect, stack, listening.getsockname()), crowd
            finally:
                server.should_exit = server.force_exit = True
                thread.join(DEADLINE)
                assert not thread.is_alive()

    return serve


def connect(stack, address, sent=b""):
    found = stack.enter_context(socket.create_connection(address, timeout=DEADLINE))
    found.sendall(sent)
    return found


def status_of(connection):
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def statuses_of(connection, number):
    """Read several answers through one file: it may have the next one in its buffer already."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(number):
            found.append(int(file.readline().split()[1]))
            file.read(int(http.client.parse_headers(file)["content-length"]))
    return found


def closed(connection):
    """Wait until the other side has closed."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass
    return True


def wait_for(condition):
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.005)


@pytest.mark.parametrize("sent", [b"", HEAD], ids=["nothing", "half"])
def test_a_head_that_does_not_come_closes_its_connection(serving, sent):
    with serving(head_seconds=SHORT) as (connect, crowd):
        assert closed(connect(sent))
        wait_for(lambda: not crowd.members)


def test_bytes_now_and_then_do_not_prolong_it(serving):
    with serving(head_seconds=1.0) as (connect, _):
        connection = connect(HEAD + b"X: ")
        connection.settimeout(0.05)
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            try:
                connection.sendall(b"x")
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() < until


def test_a_body_that_does_not_come_closes_its_connection(serving):
    with serving(body_seconds=SHORT) as (connect, _):
        assert closed(connect(POST + b"abc"))


def test_nor_may_one_that_nobody_reads_take_long(serving):
    with serving(body_seconds=SHORT) as (connect, _):
        connection = connect(POST.replace(b"POST /", b"POST /unread") + b"abc")
        assert status_of(connection) == 200
        assert closed(connection)


def test_an_answer_that_nobody_takes_closes_its_connection(serving):
    with serving(answer_seconds=SHORT) as (connect, crowd):
        connection = connect(HEAD.replace(b"GET /", b"GET /much") + b"\r\n")
        connection.settimeout(DEADLINE)
        wait_for(lambda: crowd.members)
        wait_for(lambda: not crowd.members)


def test_whole_requests_are_answered_one_after_another(serving):
    with serving(head_seconds=DEADLINE) as (connect, _):
        connection = connect(POST + b"abcde" + POST + b"abcde" + HEAD)
        assert statuses_of(connection, 2) == [200, 200]
        connection.sendall(b"\r\n")
        assert status_of(connection) == 200
        for _ in range(3):
            connection.sendall(POST)
            connection.sendall(b"abcde")
            assert status_of(connection) == 200


@pytest.mark.parametrize("told", [{"most_of_one": 4}, {"most": 4}], ids=["address", "all"])
def test_of_too_many_who_waited_longest_gives_way(serving, told):
    with serving(head_seconds=DEADLINE, **told) as (connect, crowd):
        held = []
        for number in range(4):
            held.append(connect(HEAD))
            wait_for(lambda count=number + 1: sum(map(len, crowd.members.values())) == count)
        fifth = connect(HEAD + b"\r\n")

        assert status_of(fifth) == 200
        assert closed(held[0])
        for one in held[1:]:
            one.sendall(b"\r\n")
            assert status_of(one) == 200


class Guest:
    """Stands in a crowd."""

    def __init__(self, address, since):
        self.address, self.since, self.dropped = address, since, False

    def drop(self):
        self.dropped = True
        crowd_of[self].leave(self)


crowd_of = {}


def joined(crowd, *guests):
    for one in guests:
        crowd_of[one] = crowd
        crowd.join(one)
    return [one.dropped for one in guests]


def test_the_address_with_most_makes_room_for_others():
    crowd = Crowd(Patience(most=5, most_of_one=4))
    many = [Guest("a", float(9 - number)) for number in range(4)]
    one, other = Guest("b", 1.0), Guest("c", 2.0)

    assert joined(crowd, *many, one, other) == [False] * 3 + [True] + [False] * 2


def test_who_is_being_answered_stays_and_the_new_one_goes():
    crowd = Crowd(Patience(most_of_one=2))
    first, second, third, fourth = (Guest("a", since) for since in (None, 5.0, 6.0, None))

    assert joined(crowd, first, second, third, fourth) == [False, True, True, False]
    fifth = Guest("a", 7.0)
    assert joined(crowd, fifth) == [True]
    assert list(crowd.members["a"]) == [first, fourth]


@pytest.mark.slow
@pytest.mark.parametrize("held", ["head", "body"])
def test_six_hundred_half_requests_do_not_shut_the_service(answering, tmp_path, held):
    file = tmp_path / "calidrift.toml"
    file.write_text(CONFIG, encoding="utf-8")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1_000:
        pytest.skip("this process may not open so many connections")
    sent = HEAD if held == "head" else POST.replace(b"POST /", b"POST /api/v1/freezes")
    code = "from calidrift_agent._command_line import main; main()"
    words = [sys.executable, "-c", code, "serve", "--json", "--config", str(file)]
    with answering(words, limit=120.0) as (_, url), ExitStack() as stack:
        address = (urlsplit(url).hostname, urlsplit(url).port)
        for number in range(600):
            connect(stack, address, sent)
            if number % 100 == 99:
                probe = connect(stack, address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert status_of(probe) == 200, number
