"""`calidrift serve` as a process, and `calidrift jobs` with and without it."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from calidrift_agent._command_line import run
from calidrift_analyzer.config import AnalyzerConfig, ServiceConfig, load_config
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.service import Service, _server, serve
from calidrift_analyzer.store import Store

DEADLINE = 120.0
CONFIG = """
[service]
port = 0
ingest_seconds = 3600
assess_seconds = 3600

[models.net]
factory = "user:factory"
example_inputs = "user:example_inputs"
calibration = "user:calibration"
evaluate = "user:evaluate"
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)
    path = tmp_path / "calidrift.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def jobs(file, *words):
    return run(["jobs", *words, "--config", str(file)])


def document(file, capsys, *words, status=0):
    capsys.readouterr()
    ended = jobs(file, *words, "--json")
    found = json.loads(capsys.readouterr().out)
    assert ended == status, found
    return found


@pytest.fixture
def serving(answering):
    """A service in a process of its own; gives its process and its address."""

    def serve(file, code="from calidrift_agent._command_line import main; main()"):
        words = [sys.executable, "-c", code, "serve", "--json", "--config", str(file)]
        return answering(words, limit=DEADLINE)

    return serve


# Without a service: the database is used directly


def test_orders_wait_for_the_service(file, capsys):
    ordered = document(file, capsys, "start", "--note", "it drifted")
    listed = document(file, capsys)

    assert ordered["sentence"] == "job 1 is queued; it begins when `calidrift serve` runs"
    [job] = listed["items"]
    assert (job["state"], job["trigger"], job["cause"]) == ("queued", "command", "it drifted")
    assert document(file, capsys, "show", "1")["job"]["job"] == 1
    refused = document(file, capsys, "start", "net", status=1)
    assert "one job at a time" in refused["error"]["message"]


def test_people_see_tables(file, capsys):
    for words in (
        ["start", "net"],
        ["freeze", "net", "--note", "audit week"],
        ["thaw", "net"],
        ["freeze"],
        ["list"],
        ["show", "1"],
        ["audit"],
        ["cancel", "1"],
    ):
        assert jobs(file, *words) == 0, words

    shown = " ".join(capsys.readouterr().out.split())
    assert "net: job 1 is queued" in shown
    assert "net: frozen by" in shown
    assert "net: thawed by" in shown
    assert "every model: frozen by" in shown
    assert "Jobs, the newest first" in shown
    assert "Audit, the newest first" in shown
    assert "job 1 of net: cancelled" in shown


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["show"], 2, "needs the number of a job, got None"),
        (["approve", "one"], 2, "needs the number of a job, got 'one'"),
        (["nonsense"], 2, "Invalid value for 'action': 'nonsense' is not one of 'list'"),
        (["approve", "7"], 2, "there is no job 7"),
        (["cancel", "7"], 2, "there is no job 7"),
        (["start", "nett"], 2, "did you mean 'net'?"),
        (["freeze", "nett"], 2, "did you mean 'net'?"),
        (["list", "--url", "http://127.0.0.1:9"], 2, "no service answers at http://127.0.0.1:9"),
        (["list", "--url", "nonsense"], 2, "no service answers at nonsense"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(words, status, told, file, capsys):
    assert jobs(file, *words) == status

    assert told in capsys.readouterr().err


def test_an_approval_of_what_does_not_wait_is_refused(file, capsys):
    jobs(file, "start")

    refused = document(file, capsys, "approve", "1", status=1)

    assert "only a job that awaits approval" in refused["error"]["message"]


# With one


def test_what_cannot_be_served_is_told_before_anything_starts(file, tmp_path, capsys):
    port = _server._listen(load_config(file))
    with port:
        taken = port.getsockname()[1]
        assert run(["serve", "--config", str(file), "--port", str(taken)]) == 2
        assert f"127.0.0.1 port {taken} cannot be listened on" in capsys.readouterr().err
    assert run(["serve", "--config", str(file), "--host", "0.0.0.0"]) == 2
    assert "without any token" in capsys.readouterr().err
    assert run(["serve", "--config", str(file), "--mode", "maybe"]) == 2
    assert "one of 'propose', 'auto' and 'off'" in capsys.readouterr().err
    with Store.open(tmp_path / "calidrift.duckdb"):
        pass  # nobody holds it


def test_tls_needs_both_files(tmp_path):
    config = AnalyzerConfig(
        database=tmp_path / "d",
        state_dirs=(),
        models={},
        service=ServiceConfig(port=0, certificate=tmp_path / "c.pem"),
    )

    with pytest.raises(ConfigurationError, match="but key is missing"):
        serve(config, print)


def test_a_certificate_that_is_none_is_told(tmp_path):
    (tmp_path / "c.pem").write_text("this is no certificate")
    config = AnalyzerConfig(
        database=tmp_path / "d",
        state_dirs=(),
        models={},
        service=ServiceConfig(port=0, certificate=tmp_path / "c.pem", key=tmp_path / "c.pem"),
    )

    with pytest.raises(ConfigurationError, match="TLS cannot be set up"):
        serve(config, print)


def test_in_this_process_it_answers_until_a_signal_comes(file, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    answers = []

    def ask(url):
        with urllib.request.urlopen(f"{url}/readyz", timeout=DEADLINE) as answer:
            answers.append((url, answer.status))
        os.kill(os.getpid(), signal.SIGTERM)

    def ready(url):
        threading.Thread(target=ask, args=(url,), daemon=True).start()

    serve(load_config(file, flags={"service.host": "localhost"}), ready)

    [(url, status)] = answers
    assert url.startswith("http://")
    assert status == 200
    assert signal.getsignal(signal.SIGTERM) is before
    with Store.open(tmp_path / "calidrift.duckdb"):
        pass  # it was let go


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["people", "json"])
def test_the_address_is_told_as_soon_as_it_answers(words, file, tmp_path, capsys, monkeypatch):
    given = []

    def run_service(config, ready):
        given.append(config.service)
        ready("http://127.0.0.1:1234")

    monkeypatch.setattr("calidrift_analyzer.cli._serve.run_service", run_service)

    assert run(["serve", "--config", str(file), "--mode", "auto", "--port", "7", *words]) == 0

    shown = capsys.readouterr().out
    if words:
        assert json.loads(shown)["url"] == "http://127.0.0.1:1234"
        assert json.loads(shown)["models"] == ["net"]
    else:
        assert shown == f"serving {tmp_path / 'calidrift.duckdb'} at http://127.0.0.1:1234\n"
    assert (given[0].mode, given[0].port) == ("auto", 7)


def test_a_desk_asks_the_service_for_everything(make_site, monkeypatch):
    """The same orders as without a service, over HTTP."""
    from calidrift_analyzer.errors import NoDataError, RefusedError
    from calidrift_analyzer.service import RemoteDesk

    site = make_site()

    class Answer:
        def __init__(self, response):
            self.response = response

        def __enter__(self):
            return self

        def __exit__(self, *more):
            pass

        def read(self, *size):
            return self.response.content

    class Opener:
        def open(self, request, timeout):
            path = request.full_url.removeprefix("http://127.0.0.1:1")
            response = site.http.request(
                request.get_method(),
                path,
                content=request.data,
                headers=dict(request.header_items()),
            )
            if response.status_code >= 400:
                raise urllib.error.HTTPError(
                    request.full_url,
                    response.status_code,
                    "",
                    response.headers,
                    io.BytesIO(response.content),
                )
            return Answer(response)

    desk = RemoteDesk(site.config, "http://127.0.0.1:1/")
    desk._opener = Opener()

    ordered = desk.change("order", "net", {"note": "n", "kind": "recalibration"})
    site.wait("awaiting_approval")
    listed = desk.read("jobs", "net")
    shown = desk.read("jobs", job=1)
    desk.change("approve", "1", {"note": ""})
    site.wait("promoted")
    frozen = desk.change("freeze", "net", {"frozen": True, "note": ""})

    assert (ordered["job"], listed["items"][0]["job"], shown["job"]["job"]) == (1, 1, 1)
    assert frozen["frozen"]
    assert desk.read("freezes")["items"][0]["model"] == "net"
    with pytest.raises(NoDataError, match="there is no job 9"):
        desk.read("jobs", job=9)
    with pytest.raises(RefusedError, match="frozen by local"):
        desk.change("order", "net", {"note": "", "kind": "recalibration"})
    with pytest.raises(ConfigurationError, match=r"\(HTTP 422\)"):
        desk.change("cancel", "0", {})


def test_the_services_own_address_is_the_one_that_is_asked(tmp_path):
    from calidrift_analyzer.service._opening import own_url

    def url(**told):
        config = AnalyzerConfig(
            database=tmp_path / "d", state_dirs=(), models={}, service=ServiceConfig(**told)
        )
        return own_url(config)

    assert url() == "http://127.0.0.1:9465"
    assert url(host="0.0.0.0", port=1) == "http://127.0.0.1:1"
    assert url(host="::1", certificate=tmp_path / "c") == "https://[::1]:9465"
    assert url(port=0) is None


@pytest.mark.slow
def test_a_service_answers_holds_its_database_and_ends_on_sigterm(file, tmp_path, capsys, serving):
    jobs(file, "freeze", "--note", "so that nothing begins")
    with serving(file) as (process, url):
        with urllib.request.urlopen(f"{url}/healthz", timeout=DEADLINE) as answer:
            assert answer.read() == b"ok\n"
        assert run(["status", "--config", str(file)]) == 2
        assert f"is held by process {process.pid}" in capsys.readouterr().err
        frozen = document(file, capsys, "start", "--url", url, status=1)
        assert "so that nothing begins" in frozen["error"]["message"]
        assert document(file, capsys, "thaw", "--url", url)["frozen"] is False
        assert document(file, capsys, "audit", "--url", url)["items"][0]["action"] == "thaw"
        assert document(file, capsys, "list", "--url", url)["items"] == []
        missing = document(file, capsys, "show", "9", "--url", url, status=2)
        assert "there is no job 9" in missing["error"]["message"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        assert store.jobs.audit()[0].action == "thaw"


IDLE = """
import json, os, signal, sys, threading, time, urllib.request
import calidrift_agent._command_line._invocation as invocation
from calidrift_agent._command_line import main

READY = threading.Event()
URL = []

def look():
    assert READY.wait(50)
    until = time.monotonic() + 50
    while time.monotonic() < until:  # both tasks have run once
        with urllib.request.urlopen(URL[0] + "/api/v1/tasks", timeout=50) as answer:
            if len(json.load(answer)) == 2:
                break
        time.sleep(0.05)
    heavy = sorted({"torch", "torchao", "matplotlib", "sklearn", "pandas"} & set(sys.modules))
    sys.stderr.write(f"heavy={heavy}\\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGTERM)

emit = invocation.Invocation.emit
def emitted(self, document):
    emit(self, document)
    URL.append(document["url"])
    READY.set()
invocation.Invocation.emit = emitted
threading.Thread(target=look, daemon=True).start()
main()
"""


@pytest.mark.slow
def test_an_idle_service_has_loaded_no_torch(file, tmp_path, traffic, serving):
    profile = traffic.profile({"a:input": traffic.rng.uniform(-1, 1, (50, 4))})
    meta = traffic.meta(points=("a:input",), profile=profile.digest)
    values = [traffic.rng.uniform(-0.5, 0.5, (40, 4))]
    window = traffic.unit_window(0, values, [1.0], start_ns=time.time_ns() - 10**12)
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        store.put_profile(profile)
        store.ingest(meta, [window], batch=1)

    with serving(file, IDLE) as (process, _):
        _, errors = process.communicate(timeout=DEADLINE)

    assert "heavy=[]" in errors
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        assert {row.task: row.succeeded for row in store.jobs.tasks()} == {
            "assess": True,
            "canary": True,
            "ingest": True,
        }


def test_a_desk_uses_a_token_that_has_the_scope(make_site, tokens_file, monkeypatch):
    from calidrift_analyzer.service import RemoteDesk

    path = tokens_file(
        '[eye]\nsecret = "0123456789abcdef"\nscopes = ["read"]\n'
        '[boss]\nsecret = "fedcba9876543210"\nscopes = ["promote"]\n'
    )
    site = make_site(tokens=path)
    sent = []
    desk = RemoteDesk(site.config, "http://127.0.0.1:1")

    class Opener:
        def open(self, request, timeout):
            sent.append(request.get_header("Authorization"))
            raise OSError("nobody")

    desk._opener = Opener()
    with pytest.raises(ConfigurationError, match="no service answers"):
        desk.read("jobs", "net")
    with pytest.raises(ConfigurationError, match="no service answers"):
        desk.change("freeze", "", {"frozen": True})

    assert sent == ["Bearer 0123456789abcdef", "Bearer fedcba9876543210"]
    given = RemoteDesk(site.config, "http://127.0.0.1:1", path.with_name("gone"))
    with pytest.raises(ConfigurationError, match="--token-file"):
        given.read("jobs")


def test_who_holds_the_database_is_told_where_no_service_answers(file, capsys):
    """Another command holds it, or a service that listens elsewhere."""
    config = load_config(file, flags={"service.port": 1})
    service = Service(config)
    try:
        code = (
            "import sys\nfrom calidrift_agent._command_line import run\n"
            "from calidrift_analyzer.service import _opening\n_opening.COMMAND_PATIENCE = 0.0\n"
            f"sys.exit(run(['jobs', '--config', {str(file)!r}]))"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE
        )
    finally:
        service.stop()

    assert ended.returncode == 2
    assert f"is held by process {os.getpid()}" in ended.stderr
