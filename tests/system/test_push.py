"""A sidecar and the real service: windows cross once, whoever is killed on the way."""

import json
import os
import signal
import sys
import time
import urllib.request

import numpy as np
import pytest

from calidrift_agent._capture._file import CaptureRow, encode_capture, points_digest
from calidrift_agent._state import (
    PointMeta,
    StateMeta,
    StateOptions,
    StateWriter,
    WindowBuffer,
    boot_id,
    new_process_id,
)
from calidrift_agent._vocabulary import CountColumn, Instrument, RequestColumn, Strategy
from calidrift_analyzer.store import Store

DEADLINE = 60.0
COMMAND = [sys.executable, "-c", "from calidrift_agent._command_line import main; main()"]
SECOND = 10**9
SECRET = "s3cret-of-a-sidecar-0123456789abcdef"
CONFIG = """
[service]
port = 0
ingest_seconds = 3600
assess_seconds = 3600
tokens = "tokens.toml"

[models.net]
factory = "user:factory"
example_inputs = "user:example_inputs"
calibration = "user:calibration"
evaluate = "user:evaluate"
"""


class Process:
    """A watched process without its model; the ring of its state file has four slots."""

    def __init__(self, folder, profile=""):
        started = time.time_ns() - 10_000 * SECOND
        self.rng = np.random.default_rng(5)
        self.meta = StateMeta(
            process=new_process_id(),
            boot=boot_id(),
            pid=os.getpid(),
            started_ns=started,
            model="net",
            profile=profile,
            instrument=Instrument.RANGE,
            strategy=Strategy.INSTEAD,
            agent_version="0.1.0",
            window_seconds=10.0,
            points=(PointMeta("a:input", 1.0, -1.0, 1.0), PointMeta("b:input")),
        )
        self.at = started
        self.buffer = WindowBuffer(2, window_seconds=10.0, now_ns=started)
        self.writer = StateWriter.create(folder, self.meta, StateOptions(slots=4))

    def close_windows(self, count):
        for _ in range(count):
            self.buffer.requests[RequestColumn.SEEN] += int(self.rng.integers(1, 100))
            self.buffer.counts[:, CountColumn.ROWS] += self.rng.integers(1, 100, 2)
            self.buffer.cells[:, 300:600] += self.rng.integers(0, 50, (2, 300))
            self.at += 10 * SECOND
            self.writer.write_closed(self.buffer.close(self.at))
            self.writer.write_cumulative(self.buffer.cumulative())


@pytest.fixture
def command(answering):
    """A command in a process of its own; gives the process and the address that it prints."""

    def run(environment, *words):
        words = [*COMMAND, *map(str, words)]
        return answering(words, limit=2 * DEADLINE, env={**environment, "NO_PROXY": "127.0.0.1"})

    return run


def wait(ready):
    until = time.monotonic() + DEADLINE
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)


def figure(url, name):
    with urllib.request.urlopen(url, timeout=20) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return None


@pytest.mark.slow
def test_windows_cross_once_whoever_is_killed(tmp_path, unmeasured, command):
    state, spool = tmp_path / "state", tmp_path / "spool"
    state.mkdir()
    config, tokens, token = (tmp_path / name for name in ("calidrift.toml", "tokens.toml", "token"))
    config.write_text(CONFIG, encoding="utf-8")
    tokens.write_text(f'[sidecars]\nsecret = "{SECRET}"\nscopes = ["ingest"]\n', encoding="utf-8")
    tokens.chmod(0o600)
    token.write_text(f"{SECRET}\n", encoding="utf-8")
    environment = {k: v for k, v in unmeasured().items() if not k.startswith("CALIDRIFT_")}
    serve = ("serve", "--json", "--config", config)

    def sidecar(url):
        words = ("--json", "--port", 0, "--state-dir", state, "--interval", 0.1, "--push", url)
        return command(
            environment, "sidecar", *words, "--push-token-file", token, "--push-spool", spool
        )

    one, other = Process(state), Process(state)
    one.close_windows(2)
    with command(environment, *serve) as (service, address):
        with sidecar(address) as (running, metrics):
            wait(lambda: figure(metrics, "calidrift_agent_pushed_windows_total") == 2)
            service.kill()  # an outage
            service.wait(DEADLINE)
            other.close_windows(3)
            one.close_windows(1)
            one.writer.close()
            wait(lambda: len(list(spool.glob("*.push"))) >= 3)
            running.kill()
            running.wait(DEADLINE)
        other.close_windows(6)  # more than the ring holds
    with command(environment, *serve) as (service, address):
        for _ in range(3):
            with sidecar(address) as (running, _):
                running.kill()  # at whatever it was about to do
                running.wait(DEADLINE)
            other.close_windows(1)
        with sidecar(address) as (running, metrics):
            wait(lambda: figure(metrics, "calidrift_agent_push_spool_bytes") == 0)
            wait(lambda: _last(spool, other) == 11 and _last(spool, one) == 2)
            other.close_windows(1)
            other.writer.close()
            wait(lambda: _last(spool, other) == 12)
            running.send_signal(signal.SIGTERM)
            assert running.wait(DEADLINE) == 0
            assert SECRET not in running.stderr.read()
        service.send_signal(signal.SIGTERM)
        assert service.wait(DEADLINE) == 0

    with Store.open(tmp_path / "calidrift.duckdb") as store:
        for process in (one, other):
            found, wanted = store.sums(process.meta), process.buffer.cumulative()
            assert np.array_equal(found.requests, wanted.requests)
            assert np.array_equal(found.counts, wanted.counts)
            assert np.array_equal(found.cells, wanted.cells)
            assert store.last_number(process.meta) == wanted.number


@pytest.mark.slow
def test_captures_that_are_asked_for_cross_where_they_may(tmp_path, unmeasured, command):
    state, config = tmp_path / "state", tmp_path / "calidrift.toml"
    state.mkdir()
    config.write_text(CONFIG.replace('tokens = "tokens.toml"\n', ""), encoding="utf-8")
    environment = {k: v for k, v in unmeasured().items() if not k.startswith("CALIDRIFT_")}
    one = Process(state, profile="a" * 64)
    one.close_windows(1)
    written = {f"{n:032x}.safetensors": capture(one.meta, n) for n in range(3)}
    folder = state / "captures" / one.meta.process
    folder.mkdir(parents=True)
    for name, blob in written.items():
        (folder / name).write_bytes(blob)
    received = tmp_path / "calidrift.duckdb.received" / "captures" / one.meta.process
    words = ("sidecar", "--json", "--port", 0, "--state-dir", state, "--interval", 0.1, "--push")

    with command(environment, "serve", "--json", "--config", config) as (service, address):
        with command(environment, *words, address) as (_, metrics):
            wait(lambda: figure(metrics, "calidrift_agent_pushed_windows_total") == 1)
            one.close_windows(1)
            wait(lambda: figure(metrics, "calidrift_agent_pushed_windows_total") == 2)
        assert not received.exists(), "only names leave by default"
        with command(environment, *words, address, "--push-captures") as (_, metrics):
            one.close_windows(1)
            wait(lambda: len(list(received.glob("[!.]*"))) == 3)
            wait(lambda: (figure(metrics, "calidrift_agent_pushed_captures_total") or 0) >= 3)
            assert figure(metrics, "calidrift_agent_pushed_capture_bytes_total") >= sum(
                map(len, written.values())
            )
        service.send_signal(signal.SIGTERM)
        assert service.wait(DEADLINE) == 0

    assert {path.name: path.read_bytes() for path in received.iterdir()} == written
    one.writer.close()


def capture(meta, number):
    """The file of a captured request that left the ranges."""
    points = tuple(point.name for point in meta.points)
    row = CaptureRow(
        inputs={"x": np.full((1, 4), number, np.float32)},
        maxima=np.full(len(points), 9.0, np.float32),
        uncovered=True,
        time_ns=meta.started_ns + number,
        segment="night",
    )
    header = {
        "id": f"{number:032x}",
        "kind": "uncovered",
        "model": meta.model,
        "profile": meta.profile,
        "points": json.dumps(points),
        "points_digest": points_digest(points),
    }
    return encode_capture(row, row.inputs, header)


def _last(spool, process):
    ledger = json.loads((spool / "ledger.json").read_text(encoding="utf-8"))
    return ledger["processes"].get(process.meta.process, [-1])[0]
