"""One reading a second, however many ask; tokens; connections; sweeping."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._sidecar import Exposition, ListenOptions, Sidecar, SidecarOptions
from calidrift_agent._sidecar._application import MetricsApplication
from calidrift_agent._sidecar._server import MOST_CONNECTIONS, MetricsServer
from calidrift_agent._sidecar._sweeper import Sweeper
from calidrift_agent._sidecar._token import BearerToken
from calidrift_agent._state import SweepOptions, SweepReport
from calidrift_agent.errors import ConfigurationError, StateError

ONE = np.ones(1, np.float32)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def exposition(tmp_path, clock):
    return Exposition(SidecarOptions((tmp_path,)), clock=clock)


def ask(application, path="/metrics", **environ):
    """Status, headers and body of one request to a WSGI application."""
    told = []
    given = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": "", **environ}
    body = b"".join(application(given, lambda status, headers: told.append((status, headers))))
    return told[0][0], dict(told[0][1]), body


def test_a_reading_is_good_for_a_second(worker, exposition, clock, monkeypatch):
    one = worker()
    one.see(ONE)
    first = exposition.reading()
    one.see(ONE)
    clock.now += 0.9
    assert exposition.reading() is first
    clock.now += 0.2
    second = exposition.reading()
    assert second is not first
    assert second.at_ns > first.at_ns
    assert int(second.models[0].total.requests[0]) == 2


def test_many_scrapers_cost_one_rendering(worker, exposition, clock, monkeypatch):
    worker().see(ONE)
    rendered = []
    application = MetricsApplication(exposition, None)
    prometheus = application._prometheus

    def counted(environ, start_response):
        rendered.append(environ["QUERY_STRING"])
        return prometheus(environ, start_response)

    application._prometheus = counted
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(application))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [answers[0]] * 8
    assert rendered == [""]
    only = ask(application, QUERY_STRING="name[]=calidrift_agent_seen_requests_total")
    assert only[2].count(b"# TYPE") == 1
    assert len(rendered) == 2
    clock.now += 1.5
    ask(application)
    assert len(rendered) == 3
    for number in range(20):
        ask(application, QUERY_STRING=f"x={number}")
    assert len(application._rendered) == 8, "what others ask for does not grow it"


def test_other_methods_and_paths(exposition):
    application = MetricsApplication(exposition, None)
    assert ask(application, REQUEST_METHOD="POST")[0].startswith("405")
    assert ask(application, "/else")[0].startswith("404")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/else"])
def test_head_is_get_without_the_body(exposition, path):
    application = MetricsApplication(exposition, None)
    status, headers, body = ask(application, path)
    expected = {**headers, "Content-Length": str(len(body))}
    assert ask(application, path, REQUEST_METHOD="HEAD") == (status, expected, b"")


def test_a_directory_that_cannot_be_read_is_counted(tmp_path, clock):
    exposition = Exposition(SidecarOptions((tmp_path / "late",)), clock=clock)
    assert "calidrift_agent_scrape_errors_total 0.0" in exposition.text()
    (tmp_path / "late").touch()
    clock.now += 2
    assert "calidrift_agent_scrape_errors_total 1.0" in exposition.text()


def test_a_token(tmp_path):
    path = tmp_path / "token"
    path.write_text("  first\n")
    token = BearerToken(path)
    assert token.admits("Bearer first")
    assert token.admits("bearer first ")
    refused = (
        None,
        "",
        "first",
        "Bearer",
        "Bearer ",
        "Bearer firs",
        "Bearer first2",
        "Bearer \xff",
    )
    assert not any(token.admits(header) for header in refused)
    path.write_text("second")
    assert token.admits("Bearer second")
    assert not token.admits("Bearer first")
    path.write_text("")
    assert token.admits("Bearer second"), "half-way through a rotation"
    path.unlink()
    assert token.admits("Bearer second")
    assert not token.admits("Bearer ")


def test_tokens_are_compared_in_constant_time(tmp_path, monkeypatch):
    import hmac

    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or True)
    (tmp_path / "token").write_text("t")
    assert BearerToken(tmp_path / "token").admits("Bearer x")
    assert compared == [(b"x", b"t")]


def test_too_many_connections_are_hung_up_on(exposition):
    server = MetricsServer(ListenOptions(port=0), MetricsApplication(exposition, None))
    server.start()
    port = server.server_address[1]
    try:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_CONNECTIONS)]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as late:
            assert late.recv(1) == b""
        for one in held:
            one.close()
    finally:
        server.stop()
    assert server.url == f"http://127.0.0.1:{port}/metrics"


def test_clients_that_drip_are_hung_up_on_when_their_time_is_over(exposition):
    """Each sends a byte long before any `recv` times out."""
    server = MetricsServer(ListenOptions(port=0), MetricsApplication(exposition, None), 1.0)
    address, done = server.server_address[:2], threading.Event()
    server.start()
    held = [socket.create_connection(address, timeout=20) for _ in range(MOST_CONNECTIONS)]

    def drip():
        while not done.wait(0.2):
            for one in held:
                with contextlib.suppress(OSError):
                    one.send(b"a")

    dripping = threading.Thread(target=drip)
    try:
        for one in held:
            one.sendall(b"GET /metrics?")
        dripping.start()
        for one in held:
            with contextlib.suppress(ConnectionResetError):
                while one.recv(4096):
                    pass
        with socket.create_connection(address, timeout=20) as scraper:
            scraper.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert b"".join(iter(lambda: scraper.recv(4096), b"")).endswith(b"ok\n")
    finally:
        done.set()
        dripping.join()
        for one in held:
            one.close()
        server.stop()


def test_connections_give_their_places_back(exposition):
    server = MetricsServer(ListenOptions(port=0), MetricsApplication(exposition, None))
    server.start()
    try:
        for _ in range(2 * MOST_CONNECTIONS):
            with socket.create_connection(server.server_address[:2], timeout=20) as one:
                one.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: one.recv(4096), b""))
            assert answer.endswith(b"ok\n")
    finally:
        server.stop()


def test_a_thread_that_cannot_start_gives_its_place_back(exposition, monkeypatch):
    server = MetricsServer(ListenOptions(port=0), MetricsApplication(exposition, None))
    monkeypatch.setattr(threading.Thread, "start", lambda self: 1 / 0)
    for _ in range(MOST_CONNECTIONS + 1):
        with pytest.raises(ZeroDivisionError):
            server.process_request(None, None)
    server.stop()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6(exposition):
    server = MetricsServer(ListenOptions("::1", 0), MetricsApplication(exposition, None))
    assert server.url.startswith("http://[::1]:")
    server.stop()


@pytest.mark.parametrize(
    ("host", "with_token", "warned"),
    [("127.0.0.1", False, 0), ("localhost", False, 0), ("0.0.0.0", False, 1), ("0.0.0.0", True, 0)],
)
def test_open_to_the_network_without_a_token_is_told(tmp_path, caplog, host, with_token, warned):
    (tmp_path / "token").write_text("t")
    token = tmp_path / "token" if with_token else None
    with Sidecar(SidecarOptions((tmp_path,), ListenOptions(host, 0, token))) as running:
        assert running.url.endswith("/metrics")
    assert sum("anyone who reaches" in text for text in caplog.messages) == warned


def test_dead_processes_are_swept(worker, tmp_path):
    one = worker()
    one.see(ONE, requests=4)
    one.die()
    options = SidecarOptions(
        (tmp_path,), ListenOptions(port=0), sweep=SweepOptions(retention_seconds=0.0)
    )
    with Sidecar(options) as running:
        running._sweeper._stopping.set()
        running._sweeper._thread.join(20)
    assert not list(tmp_path.glob("*.state"))
    found = Exposition(options).text()
    assert 'calidrift_agent_seen_requests_total{model="net"} 4.0' in found


@pytest.mark.parametrize("error", [StateError("not writable"), ValueError("what")])
def test_what_cannot_be_swept_is_told_once(tmp_path, monkeypatch, caplog, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr("calidrift_agent._sidecar._sweeper.sweep", failing)
    sweeper = Sweeper([tmp_path], SweepOptions())
    for _ in range(3):
        sweeper.sweep(tmp_path)
    assert [str(error) in text for text in caplog.messages] == [True]


def test_complaints_of_a_sweep_are_told(tmp_path, monkeypatch, caplog):
    report = SweepReport(complaints=("one", "two"))
    monkeypatch.setattr("calidrift_agent._sidecar._sweeper.sweep", lambda *_, **__: report)
    Sweeper([tmp_path], SweepOptions()).sweep(tmp_path)
    assert caplog.messages == ["one", "two"]


def test_an_encrypted_key_asks_nobody(tmp_path, exposition):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = tmp_path / "key.pem"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    options = ListenOptions(port=0, certificate=key, key=key)
    with pytest.raises(ConfigurationError, match="without a passphrase"):
        MetricsServer(options, MetricsApplication(exposition, None))


def test_the_same_folder_twice_counts_once(worker, tmp_path, clock):
    worker().see(ONE)
    link = Path(f"{tmp_path}-link")
    link.symlink_to(tmp_path)
    exposition = Exposition(SidecarOptions((tmp_path, link)), clock=clock)
    assert int(exposition.reading().models[0].total.requests[0]) == 1
    link.unlink()
