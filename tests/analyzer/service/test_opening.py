"""The database for a command, while other processes hold it for a moment or for good."""

import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from calidrift_analyzer.config import AnalyzerConfig, ServiceConfig
from calidrift_analyzer.errors import ConfigurationError, StoreBusyError, StoreError
from calidrift_analyzer.service import (
    RemoteDesk,
    Service,
    _opening,
    _service,
    open_desk,
    open_store,
)
from calidrift_analyzer.store import Store, while_busy
from calidrift_analyzer.store import _patience as patience_module

DEADLINE = 120.0
HOLDER = """
import sys
from pathlib import Path
from calidrift_analyzer.store import Store
with Store.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch):
    """Who answers at all has answered in time."""
    monkeypatch.setattr(_opening, "_PROBE_SECONDS", DEADLINE)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the database until it is told to let go."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "calidrift.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(DEADLINE, process.kill)
    watchdog.start()
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@pytest.fixture
def tries(monkeypatch):
    """Events of waiting: `first` is set when a try has met a database that is held."""
    first = threading.Event()

    def pause(low, high):
        def wait(state):
            first.set()
            return 0.01

        return wait

    monkeypatch.setattr(patience_module, "wait_random", pause)
    return first


@contextmanager
def letting_go(holder, tries):
    """Let the other process go as soon as somebody has waited for it once."""

    def let_go():
        if tries.wait(DEADLINE):
            holder.communicate("\n")

    thread = threading.Thread(target=let_go)
    thread.start()
    try:
        yield
    finally:
        tries.set()
        thread.join(DEADLINE)


def config_of(tmp_path, **told):
    return AnalyzerConfig(
        database=tmp_path / "calidrift.duckdb",
        state_dirs=(),
        models={},
        service=ServiceConfig(**{"port": 0, **told}),
    )


@contextmanager
def answering(body=b"ok\n"):
    """Some server on a port of its own; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(DEADLINE)
        server.server_close()


def test_a_service_waits_for_a_command_that_holds_the_database(
    tmp_path, holder, tries, monkeypatch
):
    monkeypatch.setattr(_service, "_PATIENCE_SECONDS", DEADLINE)
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)

    with letting_go(holder, tries):
        service = Service(config_of(tmp_path))
    try:
        assert service.owner.available
        assert holder.returncode == 0
    finally:
        service.stop()


def test_a_service_gives_up_with_the_sentence_of_before(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(_service, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)

    with pytest.raises(StoreBusyError, match=f"held by process {holder.pid}; .* wait until"):
        Service(config_of(tmp_path))


@pytest.mark.parametrize("port", [0, 1], ids=["any", "nobody"])
def test_a_command_waits_for_another_one(tmp_path, holder, tries, monkeypatch, port):
    monkeypatch.setattr(_opening, "COMMAND_PATIENCE", DEADLINE)

    with letting_go(holder, tries), open_store(config_of(tmp_path, port=port)) as store:
        assert store.observed() == ()
    assert holder.returncode == 0


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_opening, "COMMAND_PATIENCE", 0.0)


@pytest.mark.usefixtures("impatient")
class TestHeldForGood:
    def test_by_a_command(self, tmp_path, holder):
        config = config_of(tmp_path, port=1)

        with pytest.raises(StoreBusyError, match=f"process {holder.pid}; .* or name another data"):
            open_store(config)
        with (
            open_desk(config, "eve") as desk,
            pytest.raises(StoreBusyError, match=f"process {holder.pid}; .* or name another data"),
        ):
            desk.read("jobs")

    def test_by_a_service_where_to_look_is_told(self, tmp_path, holder):
        with answering() as port, pytest.raises(StoreBusyError) as told:
            open_store(config_of(tmp_path, port=port))

        url = f"http://127.0.0.1:{port}"
        assert str(told.value) == (
            f"the database {tmp_path / 'calidrift.duckdb'} is held by process {holder.pid}; the "
            f"service on {url} holds it: open that page, ask {url}/api/v1/models/NAME, or order "
            "with `calidrift jobs`; do not stop it"
        )

    def test_a_server_of_somebody_else_is_no_service(self, tmp_path, holder):
        with (
            answering(b"<html>") as port,
            pytest.raises(StoreBusyError, match="or name another database"),
        ):
            open_store(config_of(tmp_path, port=port))

    def test_on_a_port_that_is_not_known(self, tmp_path, holder):
        config = config_of(tmp_path)

        with pytest.raises(StoreBusyError, match=r"printed at its start.*--url.*do not stop it$"):
            open_store(config)
        with (
            pytest.raises(StoreBusyError, match=f"{holder.pid}; .*its start: --url http"),
            open_desk(config, "eve"),
        ):
            pass


def test_a_service_that_answers_is_asked_without_waiting(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(_opening, "COMMAND_PATIENCE", "no number, so who waits fails")

    with answering() as port:
        with open_desk(config_of(tmp_path, port=port), "eve") as desk:
            assert isinstance(desk, RemoteDesk)
        with pytest.raises(StoreBusyError, match="do not stop it"):
            open_store(config_of(tmp_path, port=port))


def test_only_a_held_database_is_waited_for(tmp_path):
    (tmp_path / "calidrift.duckdb").write_text("this is a letter to my aunt" * 100)

    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(tmp_path / "calidrift.duckdb", patience=DEADLINE)


def test_the_last_refusal_is_the_one_that_is_told(tries):
    refusals = iter([StoreBusyError("one"), StoreBusyError("two"), ConfigurationError("three")])

    def refuse():
        raise next(refusals)

    with pytest.raises(ConfigurationError, match="three"):
        while_busy(refuse, DEADLINE)


def test_the_name_of_the_user_is_sent_where_no_token_is(tmp_path, monkeypatch):
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)
    sent = []

    class Opener:
        def open(self, request, timeout):
            sent.append((request.get_header("X-calidrift-user"), request.get_header("Accept")))
            raise OSError("nobody")

    with open_desk(config_of(tmp_path), "Ève", url="http://127.0.0.1:1") as desk:
        desk._opener = Opener()
        with pytest.raises(ConfigurationError, match="no service answers"):
            desk.change("mark", "net", {"text": "x"})
        monkeypatch.setenv("CALIDRIFT_TOKENS", "ops:trigger:0123456789abcdef")
        with pytest.raises(ConfigurationError, match="no service answers"):
            desk.change("mark", "net", {"text": "x"})

    assert [name for name, _ in sent] == ["%C3%88ve", None]
