"""A model in a registry that can be moved, a store, commands that note what they got, a server."""

import dataclasses
import hashlib
import importlib.util
import json
import sys
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calidrift_analyzer.config import DeployConfig, ModelContract
from calidrift_analyzer.deploy import Courier, enqueue, serving
from calidrift_analyzer.promote import promote, rollback
from calidrift_analyzer.records import DeployAction
from calidrift_analyzer.store import Store

JOBS = Path(__file__).parents[1] / "jobs" / "harness.py"
SPEC = importlib.util.spec_from_file_location("jobs_harness", JOBS)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

SECRET = "0123456789abcdef0123456789abcdef"
NOTES = """\
import json, os, sys
told = {name: value for name, value in os.environ.items() if name.startswith("CALIDRIFT_")}
told["argv"], told["cwd"] = sys.argv[1:], os.getcwd()
with open("notes.jsonl", "a") as file:
    file.write(json.dumps(told) + "\\n")
"""


class Direct:
    """A store that only this test uses."""

    def __init__(self, store):
        self.store = store
        self.lock = threading.Lock()

    def run(self, work):
        with self.lock:
            return work(self.store)


class Shop:
    """One model whose versions are moved, and the hook that hears of it."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root
        self.store = store
        self.outbox = Direct(store)
        self.made = 0
        self.contract = ModelContract(
            name="net",
            root=root,
            factory="user:factory",
            example_inputs="user:example_inputs",
            calibration="user:calibration",
            evaluate="user:evaluate",
            registry=root / "registry",
        )

    def hook(self, **told) -> None:
        self.contract = dataclasses.replace(self.contract, deploy=DeployConfig(**told))

    def script(self, text="", **told) -> None:
        """Let the hook be a Python program that notes what it got, then does `text`."""
        path = self.root / "hook.py"
        path.write_text(NOTES + text, encoding="utf-8")
        self.hook(command=(sys.executable, str(path), "an argument; $HOME"), **told)

    def notes(self) -> list[dict]:
        path = self.root / "notes.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def promote(self) -> str:
        """Put a version with a model of its own into service, and keep that."""
        self.made += 1
        candidate = harness.make_candidate(self.root / f"candidate{self.made}")
        content = b"model" * self.made
        (candidate.path / "model.pt2").write_bytes(content)
        files = {**candidate.files, "model.pt2": hashlib.sha256(content).hexdigest()}
        candidate = dataclasses.replace(candidate, files=files)
        report = harness.make_report(candidate)
        version = promote(candidate, report, self.contract.registry, "net")
        self.keep(version.id, DeployAction.PROMOTE, version.parent)
        return version.id

    def roll_back(self, to=None) -> str:
        before = serving(self.contract)
        version = rollback(self.contract.registry, "net", to)
        self.keep(version.id, DeployAction.ROLLBACK, before)
        return version.id

    def keep(self, version, action, previous) -> None:
        self.store.jobs.changing(
            lambda: enqueue(self.store, self.contract, version, action, previous),
            done=lambda: None,
        )

    def courier(self, **told) -> Courier:
        return Courier(self.outbox, self.contract, **{"first_seconds": 0.01, **told})

    def deliver(self):
        return self.courier().deliver()

    def rows(self):
        """All moves, the oldest first."""
        return self.store.deployments.page()[::-1]

    def states(self) -> list[str]:
        return [row.state.value for row in self.rows()]

    def audit(self) -> list:
        return [row for row in self.store.jobs.audit() if row.action == "deploy"]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        server.got.append((self.path, dict(self.headers.items()), body))
        answer = server.answers.popleft() if server.answers else 200
        if callable(answer):
            answer = answer(self)
            if answer is None:
                return
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        content = f"answer {answer}".encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def shop(tmp_path):
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        yield Shop(tmp_path, store)


@pytest.fixture
def server():
    """A real server on loopback; `answers` are statuses, or what does the answering."""
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.daemon_threads = True
    found.got, found.answers = [], deque()
    found.url = f"http://127.0.0.1:{found.server_port}/deploy?stage=live"
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n", encoding="utf-8")
    path.chmod(0o600)
    return path
