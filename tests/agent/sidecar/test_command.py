"""`calidrift sidecar` as users run it: real processes, scraped over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families

ONES = np.ones(8, np.float32)


def fetch(url, *, headers=None, context=None):
    asked = urllib.request.Request(url, headers=headers or {})
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(asked, timeout=20) as answer:
        return answer.status, dict(answer.headers), answer.read()


def figures(text, parse=text_string_to_metric_families):
    return {
        (sample.name, *(value for key, value in sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def status_of(url, **given):
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(url, **given)
    with caught.value as answer:
        return answer.code, dict(answer.headers), answer.read().decode()


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
import conftest, numpy as np
from pathlib import Path
one = conftest.Worker(Path(sys.argv[1]), "net", conftest.POINTS, time.time_ns())
one.see(np.ones(8, np.float32), requests=5)
print("written", flush=True)
time.sleep(60)
"""


def test_eight_processes_and_a_killed_one_are_scraped_from_a_light_process(
    worker, start, tmp_path, unmeasured
):
    for number in range(8):
        worker().see(ONES * (number + 1), requests=10)
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path, Path(__file__).parent],
        stdout=subprocess.PIPE,
        text=True,
        env=unmeasured(),
    )
    assert killed.stdout.readline() == "written\n"
    killed.kill()
    killed.communicate()

    running = start("--state-dir", tmp_path)
    status, headers, body = fetch(running.url)
    found = figures(body.decode())

    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert found["calidrift_agent_seen_requests_total", "net"] == 85
    assert found["calidrift_agent_state", "net", "active"] == 8
    assert found["calidrift_activation_absmax", "net", "conv:input"] == 8.0
    assert found["calidrift_agent_scrape_errors_total",] == 0
    assert ("calidrift_agent_exports_total",) not in found, "nothing is pushed: no figure, not 0"
    process = psutil.Process(running.process.pid)
    assert process.memory_info().rss < 100e6
    mapped = {Path(one.path).name for one in process.memory_maps()}
    assert not [name for name in mapped if "torch" in name or "duckdb" in name]
    assert [one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"] == [
        "127.0.0.1"
    ]

    asked = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    _, headers, body = fetch(running.url, headers=asked)
    assert headers["Content-Encoding"] == "gzip"
    import gzip

    again = figures(gzip.decompress(body).decode(), open_metrics)
    assert again["calidrift_agent_seen_requests_total", "net"] == 85
    assert fetch(f"{running.base}/healthz")[2] == b"ok\n"
    assert status_of(running.base)[0] == 404
    strange = {"Accept": "application/openmetrics-text; version=strange"}
    assert fetch(running.url, headers=strange)[0] == 200, "no scrape ever fails"

    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=20) == 0
    assert running.process.stderr.read() == ""
    with pytest.raises(urllib.error.URLError):
        fetch(running.url)


def test_token_and_tls(worker, start, tmp_path, certified):
    import ssl

    worker().see(ONES)
    certificate, key = certified
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    running = start(
        *("--state-dir", tmp_path, "--token-file", token),
        *("--tls-cert", certificate, "--tls-key", key),
    )
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    assert running.url.startswith("https://127.0.0.1:")
    for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}):
        status, answered, body = status_of(running.url, headers=headers, context=context)
        assert (status, answered["WWW-Authenticate"]) == (401, 'Bearer realm="calidrift"')
        assert "calidrift_" not in body
    # A client that never speaks TLS holds nobody up.
    port = int(running.base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as silent:
        right = {"Authorization": "Bearer s3cret"}
        text = fetch(running.url, headers=right, context=context)[2].decode()
        assert fetch(f"{running.base}/healthz", context=context)[2] == b"ok\n"
        silent.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"calidrift_" not in silent.recv(4096)
    assert figures(text)["calidrift_agent_seen_requests_total", "net"] == 1
    token.write_text("next")
    assert status_of(running.url, headers=right, context=context)[0] == 401
    assert fetch(running.url, headers={"Authorization": "Bearer next"}, context=context)[0] == 200
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=20) == 0
    assert running.process.stderr.read() == ""


def test_a_port_that_is_taken_is_one_sentence(command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("--state-dir", tmp_path, "--port", port)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"calidrift: 127.0.0.1 port {port} cannot be listened on (Address already in use); give "
        "another with --host or --port\n"
    )


def test_no_state_directory_is_one_sentence(command):
    ended = command("--once")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("calidrift: no state directory to read; give --state-dir DIR")
    assert ended.stderr.count("\n") == 1


def test_once_prints_text_or_a_document(worker, command, tmp_path):
    worker().see(ONES, requests=3)
    text = command("--once", CALIDRIFT_STATE_DIR=str(tmp_path))
    document = command("--once", "--json", "--state-dir", tmp_path, "--state-dir", f"{tmp_path}/.")
    assert (text.returncode, text.stderr) == (0, "")
    found = figures(text.stdout)
    assert found["calidrift_agent_seen_requests_total", "net"] == 3
    told = json.loads(document.stdout)
    told = {one["name"]: one for one in told["metrics"]}
    assert told["calidrift_agent_seen_requests"]["type"] == "counter"
    assert told["calidrift_agent_seen_requests"]["samples"] == [
        {"name": "calidrift_agent_seen_requests_total", "labels": {"model": "net"}, "value": 3}
    ]


def test_what_is_loaded(tmp_path):
    program = (
        "import sys; from calidrift_agent._command_line import run; "
        "assert run(['sidecar', '--once', '--state-dir', sys.argv[1]]) == 0; "
        "print(sorted({'torch', 'torchao', 'duckdb', 'requests', 'opentelemetry', 'matplotlib'} "
        "& set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert ended.stderr == "[]\n"


def test_with_json_the_address_is_a_document(tmp_path, monkeypatch, capfd):
    from calidrift_agent._command_line import _sidecar, run

    monkeypatch.setattr(_sidecar, "serve", lambda options, ready: ready("http://h:1/metrics"))
    assert run(["sidecar", "--state-dir", str(tmp_path), "--json", "--otlp", "http://c"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "url": "http://h:1/metrics",
        "state_dirs": [str(tmp_path)],
        "otlp": "http://c/v1/metrics",
        "push": None,
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "x"], "reads no configuration file"),
        (["--interval", "3"], "it needs --otlp"),
        (["--once", "--otlp", "http://c"], "leave --otlp away"),
        (["--tls-cert", "x"], "--tls-key is missing"),
        (["--tls-key", "x"], "--tls-cert is missing"),
        (["--tls-key", "x", "--tls-cert", "y"], "cannot be set up with y and x"),
        (["--token-file", "not there"], "cannot be read (No such file"),
        (["--token-file", "/dev/null"], "holds no token"),
        (["--port", "70000"], "got 70000"),
        (["--host", "nobody.invalid"], "nobody.invalid port 9464 cannot be listened on"),
        (["--otlp", "collector:4318"], "must be http://HOST:PORT"),
        (["--otlp", "http://[x"], "must be http://HOST:PORT"),
        (["--otlp", "http://c", "--interval", "0"], "must be 0.1 to 86400"),
        (["--sweep-after", "-1"], "retention_seconds"),
        (["--max-points", "-1"], "max_points"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_sentence_and_status_2(words, told, tmp_path, capfd):
    from calidrift_agent._command_line import run

    assert run(["sidecar", "--state-dir", str(tmp_path), *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert told in err
    assert err.count("\n") == 1


def test_a_state_directory_that_is_a_file_is_refused(tmp_path, capfd):
    from calidrift_agent._command_line import run

    (tmp_path / "file").touch()
    assert run(["sidecar", "--state-dir", str(tmp_path / "file")]) == 2
    assert "is not a folder" in capfd.readouterr().err


@pytest.mark.parametrize("below", ["x", "x/y"])
def test_a_state_directory_below_a_file_is_refused(tmp_path, capfd, below):
    from calidrift_agent._command_line import run

    (tmp_path / "file").touch()
    assert run(["sidecar", "--state-dir", str(tmp_path / "file" / below)]) == 2
    err = capfd.readouterr().err
    assert f"lies below {tmp_path / 'file'}, which is a file; give the state_dir" in err
    assert err.count("\n") == 1


def test_a_state_directory_that_is_not_there_is_told_once_and_may_come(start, tmp_path, worker):
    here, later = tmp_path / "here", tmp_path / "not" / "yet"
    here.mkdir()
    running = start("--state-dir", here, "--state-dir", later)
    for _ in range(3):
        assert "calidrift_agent_seen_requests" not in fetch(running.url)[2].decode()
        time.sleep(0.01)
    worker(later).see(ONES, requests=7)
    deadline = time.monotonic() + 30
    found = {}
    while not found and time.monotonic() < deadline:
        text = fetch(running.url)[2].decode()
        found = {key: value for key, value in figures(text).items() if "seen_requests" in key[0]}
        time.sleep(0.05)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=20) == 0
    assert list(found.values()) == [7]
    told = running.process.stderr.read()
    assert told == (
        f"calidrift: the state directory {later} does not exist; there are no figures of it until "
        "a watch creates it: check the spelling if the service runs already\n"
    )


def test_once_tells_of_a_state_directory_that_is_not_there(command, tmp_path):
    ended = command("--once", "--state-dir", tmp_path / "typo")
    assert ended.returncode == 0
    assert f"{tmp_path / 'typo'} does not exist" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "typo").exists()


def test_a_state_directory_that_may_not_be_seen_is_told(tmp_path, monkeypatch, caplog):
    from calidrift_agent._sidecar import SidecarOptions, tell_missing

    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", forbidden)
    options = SidecarOptions((tmp_path / "secret",))  # it may be there
    tell_missing(options.directories)
    assert "cannot be looked into (Permission denied)" in caplog.text


def test_the_end_is_quick_while_a_receiver_says_nothing(worker, start, tmp_path):
    worker().see(ONES)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        running = start("--state-dir", tmp_path, "--otlp", url, "--interval", "0.1")
        connection, _ = silent.accept()
        running.process.send_signal(signal.SIGTERM)
        # A push may wait ten seconds for its answer: the end must not.
        assert running.process.wait(timeout=8) == 0
        connection.close()
