"""What the sidecar costs: start, memory, and one rendering of 8 processes of 200 points.

The raw rendering is `prometheus_client` writing the same text from families that were made before:
what no exporter in Python can be faster than. The rest is reading and adding up state files.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from paired import median_interval
from prometheus_client import CollectorRegistry, generate_latest

from calidrift_agent._sidecar import Exposition, SidecarOptions
from calidrift_agent._sidecar._exposition import CACHE_SECONDS
from calidrift_agent._sketch import add_cells_rows
from calidrift_agent._state import (
    PointMeta,
    StateMeta,
    StateWriter,
    WindowBuffer,
    boot_id,
    new_process_id,
)
from calidrift_agent._vocabulary import CountColumn, Instrument, Strategy, ValueColumn

POINTS = 200
PROCESSES = 8
TARGET_START_SECONDS = 1.0
TARGET_MEMORY_MB = 100.0
TARGET_END_SECONDS = 2.0
COMMAND = "from calidrift_agent._command_line import main; main()"


def write(folder: str, seed: int) -> StateWriter:
    """A living process that observed one request: 4096 values per point."""
    now = time.time_ns()
    points = tuple(PointMeta(f"layer{i}.conv:input", 3.0, -3.0, 3.0) for i in range(POINTS))
    meta = StateMeta(
        process=new_process_id(),
        boot=boot_id(),
        pid=os.getpid(),
        started_ns=now,
        model="bench",
        profile="",
        instrument=Instrument.RANGE,
        strategy=Strategy.INSTEAD,
        agent_version="0",
        window_seconds=10.0,
        points=points,
    )
    writer = StateWriter.create(folder, meta)
    buffer = WindowBuffer(POINTS, window_seconds=10.0, now_ns=now)
    values = np.random.default_rng(seed).normal(size=POINTS * 4096).astype(np.float32)
    offsets = np.arange(POINTS + 1, dtype=np.int64) * 4096
    add_cells_rows(buffer.cells, values, offsets, np.ones(POINTS, np.int64))
    buffer.counts[:, [CountColumn.UNITS, CountColumn.ROWS]] += 1
    buffer.values[:, ValueColumn.LOWEST] = values.min()
    buffer.values[:, ValueColumn.HIGHEST] = values.max()
    buffer.requests[:3] += 1
    writer.write_open(buffer, now)
    return writer


class Raw:
    """The same families, made before."""

    def __init__(self, families: list) -> None:
        self._families = families

    def collect(self) -> list:
        return self._families


def rendering(folder: str, rounds: int) -> dict[str, object]:
    clock = [0.0]
    options = SidecarOptions((Path(folder),), max_points=POINTS)
    exposition = Exposition(options, clock=lambda: clock[0])
    raw = CollectorRegistry()
    raw.register(Raw(exposition.collect()))  # type: ignore[arg-type]

    def whole() -> object:
        clock[0] += CACHE_SECONDS
        return exposition.text()

    def read() -> object:
        clock[0] += CACHE_SECONDS
        return exposition.reading()

    timed: dict[str, list[float]] = {"whole": [], "reading": [], "raw": []}
    calls: dict[str, Callable[[], object]] = {
        "whole": whole,
        "reading": read,
        "raw": lambda: generate_latest(raw),
    }
    for _ in range(rounds):
        for name, call in calls.items():  # interleaved
            start = time.perf_counter_ns()
            call()
            timed[name].append((time.perf_counter_ns() - start) * 1e-6)
    result: dict[str, object] = {}
    for name, times in timed.items():
        low, high = median_interval(np.array(times))
        result[name] = {"ms": float(np.median(times)), "low": low, "high": high}
        print(f"  {name:8s} {np.median(times):7.1f} [{low:.1f}, {high:.1f}] ms")
    ratio = np.array(timed["whole"]) / np.array(timed["raw"])
    low, high = median_interval(ratio)
    print(f"  whole / raw: {np.median(ratio):.2f} [{low:.2f}, {high:.2f}]")
    text = exposition.text()
    series = sum(not line.startswith("#") for line in text.splitlines())
    print(f"  {series} series, {len(text) / 1e6:.2f} MB")
    return {**result, "ratio": float(np.median(ratio)), "series": series, "bytes": len(text)}


def life(folder: str) -> dict[str, float]:
    """From the start of the command to the first answer, memory then, and SIGTERM to the end."""
    words = ["sidecar", "--state-dir", folder, "--port", "0", "--max-points", str(POINTS)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        bound = time.perf_counter() - begin
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(3):
            opener.open(url).read()
            time.sleep(CACHE_SECONDS)
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
        begin = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        return {"start_s": bound, "rss_mb": memory, "end_s": time.perf_counter() - begin}
    finally:
        process.kill()
        process.communicate()


def main(quick: bool) -> dict[str, object]:
    print(f"Sidecar, {PROCESSES} processes of {POINTS} points")
    with tempfile.TemporaryDirectory() as folder:
        writers = [write(folder, seed) for seed in range(PROCESSES)]
        result = rendering(folder, 5 if quick else 50)
        lives = [life(folder) for _ in range(1 if quick else 5)]
        for writer in writers:
            writer.close()
    targets = {
        "start_s": ("from exec to listening", "s", TARGET_START_SECONDS),
        "rss_mb": ("memory after three scrapes", "MB", TARGET_MEMORY_MB),
        "end_s": ("SIGTERM to the end", "s", TARGET_END_SECONDS),
    }
    for key, (words, unit, target) in targets.items():
        found = [one[key] for one in lives]
        met = "met" if max(found) < target else "missed"
        print(
            f"  {words}: {np.median(found):.2f} {unit}, worst {max(found):.2f} "
            f"(target < {target:g}: {met})"
        )
        result[key] = float(np.median(found))
    return result
