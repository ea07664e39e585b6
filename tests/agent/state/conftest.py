from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import numpy as np
import pytest

from calidrift_agent._state import (
    PointMeta,
    StateMeta,
    StateOptions,
    StateWriter,
    Window,
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
    WindowFlag,
)

SECOND = 1_000_000_000


@pytest.fixture
def make_meta() -> Callable[..., StateMeta]:
    def make(points: int = 3, model: str = "net") -> StateMeta:
        return StateMeta(
            process=new_process_id(),
            boot="b" * 32,
            pid=1,
            started_ns=12 * SECOND,
            model=model,
            profile="p" * 64,
            instrument=Instrument.RANGE,
            strategy=Strategy.INSTEAD,
            agent_version="0.1.0",
            window_seconds=10.0,
            points=tuple(
                PointMeta(f"layer{i}:input", 1.5 + i, -2.0, 2.0, (f"twin{i}:input",))
                for i in range(points)
            ),
        )

    return make


@pytest.fixture
def make_buffer() -> Callable[..., WindowBuffer]:
    def make(points: int = 3, seconds: float = 10.0, now: int = 12 * SECOND) -> WindowBuffer:
        return WindowBuffer(points, window_seconds=seconds, now_ns=now)

    return make


@pytest.fixture
def fill() -> Callable[..., None]:
    """Adds random but valid figures to the open window of a buffer."""

    def add(buffer: WindowBuffer, seed: int, density: float = 0.2) -> None:
        rng = np.random.default_rng(seed)
        buffer.requests += rng.integers(0, 50, buffer.requests.shape)
        buffer.counts += rng.integers(0, 50, buffer.counts.shape)
        hits = rng.random(buffer.cells.shape) < density
        buffer.cells += hits * rng.integers(1, 1000, buffer.cells.shape)
        low, high = rng.normal(size=(2, buffer.points))
        np.minimum(buffer.values[:, 0], low - 3, out=buffer.values[:, 0])
        np.maximum(buffer.values[:, 1], high + 3, out=buffer.values[:, 1])
        buffer.values[:, 2:5] += rng.random((buffer.points, 3))
        buffer.sampling_ratio = 0.25
        buffer.add_segment("night", 3, 1)
        if seed % 2:
            buffer.add_segment("день", 5, 5)

    return add


@final
class Worker:
    """A process that serves a model, as far as its state file shows: alive until `die`."""

    def __init__(self, folder: Path, at: float = 0.0, **fields) -> None:
        names = fields.pop("points", ("a:input", "b:input"))
        fields = {"model": "net", "boot": boot_id(), "pid": 1, "window_seconds": 10.0, **fields}
        self.meta = StateMeta(
            process=new_process_id(),
            started_ns=round(at * SECOND),
            profile="",
            instrument=Instrument.RANGE,
            strategy=Strategy.INSTEAD,
            agent_version="0.1.0",
            points=tuple(
                name if isinstance(name, PointMeta) else PointMeta(name) for name in names
            ),
            **fields,
        )
        self.buffer = WindowBuffer(
            len(names), window_seconds=self.meta.window_seconds, now_ns=self.meta.started_ns
        )
        self.writer = StateWriter.create(folder, self.meta, StateOptions(slots=16))

    @property
    def path(self) -> Path:
        return self.writer.path

    def serve(self, requests: int, at: float, absmax: float = 1.0, flags: int = 0) -> Worker:
        """Count requests up to a moment, closing windows on the way, and write."""
        now = round(at * SECOND)
        if self.buffer.due(now):
            self.writer.write_closed(self.buffer.close(now))
            self.writer.write_cumulative(self.buffer.cumulative())
        self.buffer.requests[RequestColumn.SEEN] += requests
        self.buffer.counts[:, CountColumn.ROWS] += requests
        self.buffer.cells[:, 700] += requests
        highest = self.buffer.values[:, ValueColumn.HIGHEST]
        np.maximum(highest, absmax, out=highest)
        self.buffer.sampling_ratio = 0.5
        self.buffer.standing |= WindowFlag(flags)
        self.writer.write_open(self.buffer, now)
        return self

    def die(self) -> Worker:
        self.writer.close()
        return self


@pytest.fixture
def worker(tmp_path) -> Callable[..., Worker]:
    """Makes workers in `tmp_path`; at the end of the test they are dead."""
    made: list[Worker] = []

    def make(at: float = 0.0, folder: Path = tmp_path, **fields) -> Worker:
        made.append(Worker(folder, at, **fields))
        return made[-1]

    yield make
    for one in made:
        one.die()


@pytest.fixture
def assert_same() -> Callable[[Window, Window], None]:
    """Same figures; sums of floats to rounding (they were added in another order)."""

    def check(found: Window, wanted: Window) -> None:
        assert np.array_equal(found.requests, wanted.requests)
        assert np.array_equal(found.counts, wanted.counts)
        assert np.array_equal(found.cells, wanted.cells)
        assert sorted(found.segments, key=lambda s: s.name) == sorted(
            wanted.segments, key=lambda s: s.name
        )
        assert np.allclose(found.values, wanted.values, rtol=1e-12, atol=1e-12)

    return check


@pytest.fixture
def spawn(unmeasured) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a Python script in a process of its own; killed at the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            env=unmeasured(),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
