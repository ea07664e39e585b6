"""(iv) The state file: what an update costs, and whether a reader ever accepts a torn one.

The update is one `write_open` after a sampled request, beside a raw copy of the same bytes into
the same kind of mapping. The torn-read control writes the same payload without sequence and
checksum: a check that the control passes would prove nothing.
"""

import mmap
import multiprocessing
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from paired import median_interval

from calidrift_agent._sketch import CELLS, add_cells_rows
from calidrift_agent._state import (
    PointMeta,
    StateMeta,
    StateReader,
    StateWriter,
    WindowBuffer,
    new_process_id,
)
from calidrift_agent._state._codec import _HEAD, _fixed_bytes
from calidrift_agent._vocabulary import REQUEST_COLUMNS, CountColumn, Instrument, Strategy

TARGET_US = 100.0
POINTS = 40
SECOND = 1_000_000_000


def make(folder: str, points: int) -> tuple[StateWriter, WindowBuffer]:
    meta = StateMeta(
        process=new_process_id(),
        boot="b" * 32,
        pid=1,
        started_ns=0,
        model="bench",
        profile="",
        instrument=Instrument.RANGE,
        strategy=Strategy.INSTEAD,
        agent_version="0",
        window_seconds=10.0,
        points=tuple(PointMeta(f"layer{i}:input") for i in range(points)),
    )
    buffer = WindowBuffer(points, window_seconds=10.0, now_ns=0)
    return StateWriter.create(folder, meta), buffer


def fill(buffer: WindowBuffer, seed: int) -> None:
    """Adds one sampled request: 4096 values per point."""
    points = buffer.points
    values = np.random.default_rng(seed).normal(size=points * 4096).astype(np.float32)
    offsets = np.arange(points + 1, dtype=np.int64) * 4096
    add_cells_rows(buffer.cells, values, offsets, np.ones(points, np.int64))
    buffer.counts[:, CountColumn.UNITS] += 1


def update(points: int, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        writer, buffer = make(folder, points)
        size = writer.path.stat().st_size
        fill(buffer, 0)
        filled = int(np.count_nonzero(buffer.cells))
        raw = mmap.mmap(-1, filled * 10)
        source = bytes(filled * 10)
        times = np.empty((rounds, 3))
        for index in range(rounds):
            buffer.additions = index + 1  # as after a sampled request: all of it is new
            start = time.perf_counter_ns()
            writer.write_open(buffer, index)
            middle = time.perf_counter_ns()
            raw[:] = source
            copied = time.perf_counter_ns()
            writer.write_open(buffer, index)  # as after requests of which none was sampled
            again = time.perf_counter_ns()
            times[index] = middle - start, copied - middle, again - copied
        writer.close()
    took, copied, again = (times[:, column] * 1e-3 for column in range(3))
    low, high = median_interval(took)
    p99 = float(np.quantile(took, 0.99))
    print(
        f"  update, {points:3d} points ({filled} cells): {np.median(took):6.1f} "
        f"[{low:.1f}, {high:.1f}] µs, p99 {p99:.1f} µs; raw copy of the same bytes "
        f"{np.median(copied):.1f} µs (target <= {TARGET_US:.0f})"
    )
    print(
        f"    nothing sampled since: {np.median(again):.1f} µs; file {size / 1e6:.1f} MB, "
        f"{size / points / 1024:.0f} KiB per point; the window in memory "
        f"{buffer.cells[0].nbytes / 1024:.1f} KiB per point"
    )
    return {
        "us": float(np.median(took)),
        "low": low,
        "high": high,
        "p99": p99,
        "unchanged_us": float(np.median(again)),
        "file_bytes_per_point": size / points,
    }


def write_for_ever(folder: str, protected: bool, ready: Event, stop: Event) -> None:
    """Writes windows in which all counts are equal, as fast as it can."""
    writer, buffer = make(folder, POINTS)
    payloads = []
    for figure in range(1, 64):
        buffer.counts.fill(figure)
        buffer.cells[:, ::3] = figure
        buffer.requests.fill(figure)
        payloads.append(bytes(writer._encoder.encode(buffer.open_window(1))))
    if not protected:
        unprotect(writer)

    class Encoded:
        turn = 0

        def encode(self, _window: object) -> memoryview:
            self.turn += 1
            return memoryview(payloads[self.turn % len(payloads)])

    writer._encoder = Encoded()  # type: ignore[assignment]
    writer.write_open(buffer, 1)
    ready.set()
    while not stop.is_set():
        for _ in range(100):
            writer.write_open(buffer, 1)
    writer.close()


def unprotect(writer: StateWriter) -> None:
    """Turns the writer into the control: one slot, no second copy, no honest checksum."""

    def write_in_place(
        offset: int, sequence: int, number: int, payload: memoryview, part: object = None
    ) -> None:
        body = writer._layout.live[0]
        assert writer._map is not None
        writer._map[body : body + len(payload)] = payload

    writer._write = write_in_place  # type: ignore[method-assign, assignment]


def torn(reads: int) -> dict[str, int]:
    """Counts torn windows among `reads` accepted ones, with the protocol and without it."""
    result = {}
    for protected in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            context = multiprocessing.get_context("spawn")
            ready, stop = context.Event(), context.Event()
            writer = context.Process(target=write_for_ever, args=(folder, protected, ready, stop))
            writer.start()
            ready.wait(60)
            path = next(Path(folder).glob("*.state"))
            found = read_protected(path, reads) if protected else read_raw(path, reads)
            stop.set()
            writer.join(30)
        name = "protocol" if protected else "control without it"
        print(f"  torn reads, {name}: {found} of {reads}")
        result[name] = found
    return result


def read_protected(path: Path, reads: int) -> int:
    found = 0
    with StateReader.open(path) as reader:
        for _ in range(reads):
            window = reader.live()
            if window is None:
                continue
            counts = np.unique(window.counts)
            cells = np.unique(window.cells[:, ::3])
            found += not (len(counts) == 1 and len(cells) == 1 and counts[0] == cells[0])
    return found


def read_raw(path: Path, reads: int) -> int:
    """Reads the control's slot as it lies there; two figures in one payload are a torn read."""
    with StateReader.open(path) as reader:
        offset = reader._slots.layout.live[0]
    fixed = _fixed_bytes(POINTS)
    counts = POINTS * len(range(0, CELLS, 3))
    found = 0
    with path.open("rb", buffering=0) as file:
        for _ in range(reads):
            file.seek(offset)
            block = file.read(fixed + counts * 2)
            requests = np.frombuffer(block, np.int64, REQUEST_COLUMNS, _HEAD.size)
            cells = np.frombuffer(block, np.uint16, counts, fixed)
            found += len({*np.unique(requests).tolist(), *np.unique(cells).tolist()}) > 1
    return found


def main(quick: bool) -> dict[str, object]:
    print("State file")
    result: dict[str, object] = {}
    for points in (40, 200):
        result[f"update_{points}"] = update(points, 300 if quick else 3000)
    result["torn"] = torn(5_000 if quick else 100_000)
    return result
