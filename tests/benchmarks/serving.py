"""Real servers on loopback, with real load on them; used by the soak and by the system tests."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from calidrift_agent._state import scan
from calidrift_agent._vocabulary import RequestColumn

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "demo"
HOST = "127.0.0.1"
ENDPOINTS = {
    "text": ("/encode", {"text": "the quick brown fox"}),
    "image": ("/classify", {"pixels": [[0.1 * column for column in range(8)]] * 8}),
}
PRELOADED = "gunicorn, watched in the master"
POST_FORK = "gunicorn, watched in each worker"
UVICORN = "uvicorn workers"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


class Server:
    """The demo service behind a process manager with several workers.

    Args:
        kind: `PRELOADED`, `POST_FORK` or `UVICORN`.
        state: Its state directory.
        log: File for what it says.
        workers: Number of workers.
        environment: Further variables.
    """

    def __init__(
        self,
        kind: str,
        state: Path,
        log: Path,
        *,
        workers: int = 4,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.state = state
        self.port = free_port()
        self.workers_wanted = workers
        self.log = log
        at = f"{HOST}:{self.port}"
        if kind == UVICORN:
            command = ["uvicorn", "demo_service.app:app", "--host", HOST, "--port", str(self.port)]
            command += ["--workers", str(workers), "--log-level", "warning"]
        else:
            name = "preloaded" if kind == PRELOADED else "app"
            command = ["gunicorn", "-k", "asgi", "-w", str(workers), "-b", at]
            command += ["--graceful-timeout", "20", "--no-control-socket"]
            command += ["--preload"] if kind == PRELOADED else []
            command += [f"demo_service.{name}:app"]
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        variables = {"CALIDRIFT_STATE_DIR": str(state), "PYTHONPATH": str(DEMO)}
        # Workers are killed here, and one that is killed while it writes down what coverage
        # measured leaves a damaged file behind.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=DEMO,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**inherited, **single, **variables, **(environment or {})},
            )

    def wait_until_ready(self, seconds: float = 120.0) -> None:
        """Return when it answers and all workers are there.

        Raises:
            TimeoutError: It does not; what it said is in the message.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if len(self.workers()) >= self.workers_wanted and self.get("/healthz") is not None:
                return
            time.sleep(0.1)
        raise TimeoutError(f"the server is not ready: {self.log.read_text()[-2000:]}")

    def get(self, path: str) -> str | None:
        """What a path answers, None where nobody does."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """Living workers, by pid."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        found = []
        for child in children:
            try:
                helper = "resource_tracker" in " ".join(child.cmdline())
                if not helper and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child.pid)
            except psutil.NoSuchProcess:
                continue
        return sorted(found)

    def seen(self) -> dict[str, float]:
        """`calidrift_agent_seen_requests_total` by model, as one scrape says."""
        text = self.get("/metrics") or ""
        name = "calidrift_agent_seen_requests_total{"
        lines = (line for line in text.splitlines() if line.startswith(name))
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it as an operator does, and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        """End it and its workers at once; safe to repeat."""
        pids = self.workers()
        self.process.kill()
        self.process.wait(60)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


class Load:
    """Clients that ask one model after the other, and remember who answered when.

    Args:
        server: Whom to ask.
        clients: Number of client threads.
        pause: Seconds that a client waits between two requests, so that two cores suffice.

    Attributes:
        pause: As given; may be changed on the way.
        answered: (model, pid of the worker) to the moments of its answers, UTC seconds.
        sent: Requests by model.
        unanswered: Requests by model whose connection broke; a killed worker may have served them.
    """

    def __init__(self, server: Server, *, clients: int = 4, pause: float = 0.005) -> None:
        self._server = server
        self.pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answered: dict[tuple[str, int], array[float]] = defaultdict(lambda: array("d"))
        self.sent: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.refused = 0
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def total(self) -> Counter[str]:
        """Answers by model."""
        with self._lock:
            found: Counter[str] = Counter()
            for (model, _), moments in self.answered.items():
                found[model] += len(moments)
            return found

    def _run(self, client: int) -> None:
        number = client
        while not self._stop.is_set():
            number += 1
            model = ("text", "image")[number % 2]
            path, body = ENDPOINTS[model]
            self._ask(model, path, body)
            self._stop.wait(self.pause)

    def _ask(self, model: str, path: str, body: dict[str, Any]) -> None:
        # A connection of its own for each request: so each worker gets its share.
        connection = http.client.HTTPConnection(HOST, self._server.port, timeout=30)
        try:
            connection.connect()
        except OSError:
            self.refused += 1
            connection.close()
            return
        try:
            with self._lock:
                self.sent[model] += 1
            headers = {"Content-Type": "application/json", "X-Segment": f"s{len(path)}"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise http.client.HTTPException(f"status {answer.status}")
            worker = int(answer.headers["X-Worker"])
            with self._lock:
                self.answered[model, worker].append(time.time())
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.unanswered[model] += 1
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Counted:
    """What the state file of one worker and model says.

    Attributes:
        seen: Requests that it counted.
        written: When its last window was written, UTC seconds.
        alive: Whether the worker lives.
    """

    seen: int
    written: float
    alive: bool


def counted(state: Path) -> dict[tuple[str, int], Counted]:
    """(model, pid) to what its state file says. Pids are unique in one run of a test."""
    found: dict[tuple[str, int], Counted] = {}
    for reader in scan(state):
        with reader:
            total, alive = reader.total(), reader.alive
            seen = int(total.requests[RequestColumn.SEEN])
            found[reader.meta.model, reader.meta.pid] = Counted(seen, total.end_ns / 1e9, alive)
    return found


def disagreements(
    load: Load, files: dict[tuple[str, int], Counted], killed: set[int], slack: float = 0.25
) -> list[str]:
    """All that does not add up, one sentence each.

    Of a worker that ended in order, or lives and has written since, the file holds exactly the
    answers that clients got from it. Of a killed one it holds at least those that it gave before
    it wrote for the last time, and at most those and the requests that nobody answered.

    Args:
        load: What clients saw; the load has ended.
        files: What the files say.
        killed: Workers that got a SIGKILL.
        slack: Seconds between reading the counter and writing it.
    """
    wrong = []
    for (model, pid), moments in load.answered.items():
        found = files.get((model, pid))
        seen = 0 if found is None else found.seen
        if pid not in killed:
            if seen != len(moments):
                wrong.append(f"worker {pid} answered {len(moments)} of {model}, counted {seen}")
            continue
        written = 0.0 if found is None else found.written
        least = sum(moment < written - slack for moment in moments)
        most = len(moments) + load.unanswered[model]
        if not least <= seen <= most:
            wrong.append(f"killed worker {pid} counted {seen} of {model}, not {least} to {most}")
    for model, pid in files.keys() - load.answered.keys():
        if files[model, pid].seen > (load.unanswered[model] if pid in killed else 0):
            wrong.append(f"worker {pid} counted {files[model, pid].seen} of {model} for nobody")
    return wrong
