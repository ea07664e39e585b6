"""An analyzer that fails as it is told, processes that close windows, and rounds between them."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import numpy as np
import pytest

from calidrift_agent._sidecar import ShipOptions
from calidrift_agent._sidecar._ship_client import AnalyzerClient
from calidrift_agent._sidecar._ship_figures import ShipFigures
from calidrift_agent._sidecar._ship_ledger import Ledger
from calidrift_agent._sidecar._ship_round import Round
from calidrift_agent._sidecar._ship_spool import Spool
from calidrift_agent._state import (
    Push,
    StateReader,
    Window,
    decode_push,
    encode_push,
)

SECOND = 10**9
RNG = np.random.default_rng(7)


class Analyzer:
    """Keeps to the contract of `/api/v1/ingest`, but first does what it is told.

    Attributes:
        plan: What to do with the next requests: a status, "lost" (take it and hang up), "reset",
            "half" (answer with half a body); then it takes everything.
        most_windows: With more in one body it answers 413.
        down: Answers everything with 503.
        wanted: Captures that its answers ask for; None: an analyzer that never asks.
        files: Captures that came, by process and name.
    """

    def __init__(self):
        self.plan, self.most_windows, self.down = [], 10**6, False
        self.headers, self.windows, self.metas = [], {}, {}
        self.captures, self.profiles, self.bodies, self.asked = {}, {}, [], 0
        self.wanted, self.files = None, {}
        analyzer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken = "/captures/" in self.path
                analyzer.answer(self, body if taken else decode_push(body), len(body))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(0.02,), name="analyzer", daemon=True
        )
        self.thread.start()

    def answer(self, handler, push, size):
        self.asked += 1
        self.headers.append(dict(handler.headers))
        told = 503 if self.down else self.plan.pop(0) if self.plan else 200
        windows = () if isinstance(push, bytes) else push.windows
        if told == 200 and len(windows) > self.most_windows:
            told = 413
        document = b"{}"
        if told in (200, "lost", "half"):
            document = self.take(push, handler.path)
            self.bodies.append((len(windows), size))
        if told in ("lost", "reset"):
            handler.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0: RST
            handler.close_connection = True
            return
        handler.send_response(200 if told == "half" else told)
        if told == 503:
            handler.send_header("Retry-After", "7")
        handler.send_header("Content-Length", str(len(document)))
        handler.end_headers()
        handler.wfile.write(document[: len(document) // 2] if told == "half" else document)
        handler.close_connection = True

    def take(self, push, path):
        if isinstance(push, bytes):
            process, name = path.split("/")[-2:]
            self.files.setdefault((process, unquote(name)), []).append(push)
            return b"{}"
        process = push.meta.process
        kept = self.windows.setdefault(process, [])
        if path.endswith("/sums"):
            return encode_push(Push(push.meta, (self.sum_of(push.meta),)))
        last = kept[-1].number if kept else -1
        new = [window for window in push.windows if window.number > last]
        kept += new
        self.metas[process] = push.meta
        if push.captures is not None:
            self.captures[process] = push.captures
        if push.profile is not None:
            self.profiles[push.meta.profile] = push.profile
        known = not push.meta.profile or push.meta.profile in self.profiles
        last = kept[-1].number if kept else -1
        answer = {"stored": len(new), "last_number": last, "profile_known": known}
        if self.wanted is not None:
            answer["wanted"] = self.wanted
        return json.dumps(answer).encode()

    def sum_of(self, meta):
        total = Window.empty(len(meta.points))
        for window in self.windows.get(meta.process, []):
            total = total.plus(window)
        return total

    def has_all_of(self, meta, total):
        """Whether every count of a process is here, exactly once."""
        found = self.sum_of(meta)
        return all(
            np.array_equal(one, other)
            for one, other in (
                (found.requests, total.requests),
                (found.counts, total.counts),
                (found.cells, total.cells),
            )
        )

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def make_analyzer():
    made = []

    def make():
        made.append(Analyzer())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def analyzer(make_analyzer):
    return make_analyzer()


class Site:
    """A state directory, an analyzer, and rounds as a sidecar makes them."""

    def __init__(self, folder, analyzer):
        self.folder, self.analyzer = folder, analyzer
        self.spool_bytes, self.captures = 10**8, True
        self.figures = ShipFigures()
        self.restart()

    def restart(self):
        """What is left of a sidecar that was killed: its files."""
        spool = self.folder / ".push"
        options = ShipOptions(self.analyzer.url, timeout_seconds=5.0)
        self.spool = Spool(spool, self.spool_bytes)
        self.ledger = Ledger(spool, options.url)
        client = AnalyzerClient(options)
        self.round = Round(
            (self.folder,),
            client,
            self.spool,
            self.ledger,
            self.figures,
            client if self.captures else None,
        )

    def look(self, reachable=True):
        return self.round.run(reachable=reachable)

    def look_until_done(self, most=20):
        for number in range(most):
            if self.look() is None:
                return number
        raise AssertionError("it never comes to an end")

    def sweep_secured(self):
        """Remove the files of dead processes that are not needed any more, as a sweep may."""
        for path in self.folder.glob("*.state"):
            with StateReader.open(path) as reader:
                if reader.meta.process in self.round.secured:
                    reader.remove()

    def check(self, *workers):
        for one in workers:
            assert self.analyzer.has_all_of(one.meta, one.total()), one.meta.process
        assert self.figures.lost == 0
        assert not self.spool.processes()


@pytest.fixture
def site(tmp_path, analyzer):
    return Site(tmp_path, analyzer)


class Process:
    """A worker of the conftest (its ring has four slots) that closes windows when it is told."""

    def __init__(self, worker):
        self.worker, self.meta = worker, worker.meta
        self.at = worker.meta.started_ns
        self.last = None

    def close_windows(self, count=1):
        for _ in range(count):
            values = RNG.normal(size=16).astype(np.float32)
            self.worker.see(values, requests=int(RNG.integers(1, 9)))
            self.at += 10 * SECOND
            self.worker.writer.write_closed(self.worker.buffer.close(self.at))
            self.worker.writer.write_cumulative(self.worker.buffer.cumulative())

    def die(self, open_requests=0):
        if open_requests:
            self.worker.see(np.ones(4, np.float32), requests=open_requests)
        self.last = self.worker.buffer.total()
        self.worker.die()

    def total(self):
        """Everything that has to arrive."""
        return self.worker.buffer.cumulative() if self.last is None else self.last


@pytest.fixture
def process(worker):
    def make(**more):
        return Process(worker(started_ns=time.time_ns() - 10_000 * SECOND, **more))

    return make
