"""Workers that wrote state files, sidecars in processes of their own, and an OTLP receiver."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import final

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from calidrift_agent._sketch import add_cells
from calidrift_agent._state import (
    PointMeta,
    StateMeta,
    StateOptions,
    StateWriter,
    WindowBuffer,
    boot_id,
    new_process_id,
)
from calidrift_agent._vocabulary import (
    CountColumn,
    Instrument,
    RequestColumn,
    Strategy,
    ValueColumn,
)

POINTS = (PointMeta("conv:input", 2.0, -3.0, 1.0), PointMeta("fc:input"))
COMMAND = "from calidrift_agent._command_line import main; main()"


@final
class Worker:
    """A process that watches a model, without the model."""

    def __init__(
        self,
        folder: Path,
        model: str,
        points: tuple[PointMeta, ...],
        started_ns: int,
        profile: str = "",
    ) -> None:
        self.meta = StateMeta(
            process=new_process_id(),
            boot=boot_id(),
            pid=os.getpid(),
            started_ns=started_ns,
            model=model,
            profile=profile,
            instrument=Instrument.RANGE,
            strategy=Strategy.INSTEAD,
            agent_version="0.1.0",
            window_seconds=10.0,
            points=points,
        )
        self.buffer = WindowBuffer(len(points), window_seconds=10.0, now_ns=started_ns)
        self.buffer.sampling_ratio = 0.5
        self.writer = StateWriter.create(folder, self.meta, StateOptions(slots=4))

    def see(self, values: np.ndarray, requests: int = 1) -> None:
        """Count a request in which every point had these values."""
        finite = values[np.isfinite(values)]
        for row in range(self.buffer.points):
            add_cells(self.buffer.cells[row], values)
            low, high = self.buffer.values[row, [ValueColumn.LOWEST, ValueColumn.HIGHEST]]
            self.buffer.values[row, ValueColumn.LOWEST] = min(low, finite.min())
            self.buffer.values[row, ValueColumn.HIGHEST] = max(high, finite.max())
        self.buffer.values[:, ValueColumn.RATIO_SUM] += 0.5
        self.buffer.counts[:, CountColumn.ROWS] += requests
        self.buffer.counts[:, CountColumn.ELEMENTS] += values.size
        self.buffer.counts[:, CountColumn.RATIO_FIRST + 1] += 1
        self.buffer.requests[RequestColumn.SEEN] += requests
        self.writer.write_open(self.buffer, time.time_ns())

    def die(self) -> None:
        self.writer.close()


@pytest.fixture
def worker(tmp_path) -> Iterator[Callable[..., Worker]]:
    """Makes workers; at the end of the test they are dead."""
    made: list[Worker] = []

    def make(
        folder: Path = tmp_path,
        *,
        model: str = "net",
        points: tuple[PointMeta, ...] = POINTS,
        started_ns: int | None = None,
        profile: str = "",
    ) -> Worker:
        made.append(Worker(folder, model, points, started_ns or time.time_ns(), profile))
        return made[-1]

    yield make
    for one in made:
        one.die()


def environment(**given: str) -> dict[str, str]:
    """This process's environment, without proxies and without what sidecars read."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "CALI"))
    }
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **given}


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `calidrift sidecar` to its end."""

    def run(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, "sidecar", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(**variables),
        )

    return run


@final
class Running:
    """A sidecar in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.base = url.removesuffix("/metrics")


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Running]]:
    """Starts `calidrift sidecar` on any free port; ended at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: object, **variables: str) -> Running:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "sidecar", "--port", "0", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )
        started.append(process)
        line = process.stdout.readline()
        assert line.startswith("serving "), process.stderr.read()
        return Running(process, line.split()[-1])

    yield run
    for process in started:
        process.terminate()  # not killed: it may be writing down what it measured
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@final
class Receiver:
    """An OTLP/HTTP receiver on loopback that does what it is told, then takes everything.

    Attributes:
        plan: What to do with the next requests: a status, "reset" or "slow".
        taken: Requests that were answered with success, decoded.
        asked: Paths and headers of all requests.
    """

    def __init__(self) -> None:
        self.plan: list[int | str] = []
        self.taken: list[ExportMetricsServiceRequest] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer = ExportMetricsServiceResponse().SerializeToString()
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked.append((self.path, dict(self.headers)))
                told = receiver.plan.pop(0) if receiver.plan else 200
                if told == "reset":
                    self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0: RST
                    self.close_connection = True
                    self.connection.close()
                    self.wfile = self.rfile = open(os.devnull, "rb+")  # noqa: SIM115, PTH123
                    return
                if told == "slow":
                    time.sleep(0.4)
                    told = 200
                self.send_response(int(told))
                if told == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)
                with receiver.arrived:
                    if told == 200:
                        receiver.taken.append(ExportMetricsServiceRequest.FromString(body))
                    receiver.arrived.notify_all()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(0.05,), name="receiver", daemon=True
        )
        self.thread.start()

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so; fail after a while."""
        with self.arrived:
            assert self.arrived.wait_for(ready, 30), self.asked

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Receiver]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    one = Receiver()
    yield one
    one.close()


def points_of(request: ExportMetricsServiceRequest) -> dict[str, dict[tuple[str, ...], object]]:
    """Data points by metric name and attribute values, of one request."""
    found: dict[str, dict[tuple[str, ...], object]] = {}
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                found[metric.name] = {
                    tuple(one.value.string_value for one in point.attributes): point
                    for point in data.data_points
                }
    return found


@pytest.fixture(scope="session")
def decode() -> Callable[[ExportMetricsServiceRequest], dict[str, dict[tuple[str, ...], object]]]:
    """The function `points_of`."""
    return points_of


@pytest.fixture
def certified(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "calidrift")])
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
