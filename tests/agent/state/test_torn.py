"""What a reader sees of a writer that is at work, or was killed in the middle of a write."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest

from calidrift_agent._state import StateOptions, StateReader, StateWriter, Window, scan
from calidrift_agent._state import _slots as slots_module
from calidrift_agent._state._layout import RECORD, RECORD_BYTES, RecordHead
from calidrift_agent._state._slots import SlotReader
from calidrift_agent.errors import StateFormatError

SECOND = 1_000_000_000
POINTS = 16

PREAMBLE = """
import os, sys
import numpy as np
from calidrift_agent._state import PointMeta, StateMeta, StateOptions, StateWriter, WindowBuffer
from calidrift_agent._state import _layout
points = int(sys.argv[2])
meta = StateMeta('0' * 32, '', 1, 0, 'net', '', 'range', 'instead', '0', 10.0,
                 tuple(PointMeta(str(i)) for i in range(points)))
buffer = WindowBuffer(points, window_seconds=10.0, now_ns=0)
writer = StateWriter.create(sys.argv[1], meta, StateOptions(slots=4))
"""

# Every step adds one to everything, so that in each whole window all figures are equal.
STEPS = (
    PREAMBLE
    + """
step = 0
while True:
    step += 1
    buffer.requests += 1
    buffer.counts += 1
    buffer.values[:, 2:5] += 1
    buffer.cells[:, ::3] += 1
    writer.write_open(buffer, step * 1_000_000_000)
    os.write(1, step.to_bytes(8, "little"))
    if step % 7 == 0:
        window = buffer.close(step * 1_000_000_000)
        writer.write_closed(window)
        writer.write_cumulative(buffer.cumulative())
"""
)

# Windows that hold one figure everywhere, written as fast as memory allows.
FLOOD = (
    PREAMBLE
    + """
payloads = []
for figure in range(100):
    for array in (buffer.requests, buffer.counts, buffer.values, buffer.cells):
        array.fill(figure)
    payloads.append(bytes(writer._encoder.encode(buffer.open_window(1))))
class Encoded:
    turn = 0
    def encode(self, window):
        self.turn += 1
        return memoryview(payloads[self.turn % 100])
writer._encoder = Encoded()
if sys.argv[3] == "mutant":  # no sequence, no checksum, no second slot
    head = _layout.RecordHead(1, 0, 0, 0, 1, 0)
    def write(self, offset, sequence, number, payload, part=(0, 1)):
        body = self._layout.live[0] + 32
        self._map[body : body + len(payload)] = payload
        self._map[body - 32 : body] = head._replace(length=len(payload)).pack()
    StateWriter._write = write
writer.write_open(buffer, 1)
os.write(1, b"ready\\n")
while True:
    writer.write_open(buffer, 1)
"""
)


def is_uniform(window: Window) -> bool:
    figure = int(window.requests[0])
    return bool(
        (window.requests == figure).all()
        and (window.counts == figure).all()
        and (window.values[:, 2:5] == figure).all()
        and (window.cells[:, ::3] == figure).all()
    )


def read_while_flooded(process, folder, reads: int, torn_wanted: int = 0) -> int:
    """Number of torn windows among at least `reads` reads.

    Goes on until 20 different windows were seen (reader and writer really ran side by side) and
    `torn_wanted` torn ones, for a minute at most.
    """
    assert process.stdout.readline() == b"ready\n"
    (reader,) = scan(folder)
    torn, done, seen = 0, 0, set()
    deadline = time.monotonic() + 60.0
    with reader:
        while done < reads or len(seen) < 20 or torn < torn_wanted:
            done += 1
            if done % 100 == 0 and time.monotonic() > deadline and done >= reads:
                break
            try:
                window = reader.live()
            except StateFormatError:  # torn so badly that it is no window at all
                torn += 1
                continue
            torn += not is_uniform(window)
            seen.add(int(window.requests[0]))
        assert process.poll() is None
    assert len(seen) >= 20
    return torn


def test_no_torn_window_is_ever_accepted(tmp_path, spawn):
    assert read_while_flooded(spawn(FLOOD, tmp_path, POINTS, "plain"), tmp_path, 2000) == 0


def payloads_while_flooded(process, folder, reads: int, enough: int) -> int:
    """Number of different payloads among at least `reads` reads, none of them decoded.

    The writer has 100 different ones, so every further one is torn. Goes on until `enough` were
    seen, for a minute at most.
    """
    assert process.stdout.readline() == b"ready\n"
    (reader,) = scan(folder)
    seen, done = set(), 0
    deadline = time.monotonic() + 60.0
    with reader:
        while done < reads or len(seen) < enough:
            done += 1
            if done % 100 == 0 and time.monotonic() > deadline and done >= reads:
                break
            try:
                seen.add(reader.live())
            except StateFormatError:
                seen.add(done)
        assert process.poll() is None
    return len(seen)


@pytest.fixture
def undecoded(monkeypatch):
    """Records as bytes: what is torn shows there as well, and 100,000 reads take half the time."""
    monkeypatch.setattr(SlotReader, "_window", lambda self, payload, head: payload)


@pytest.mark.slow
@pytest.mark.usefixtures("undecoded")
def test_no_torn_window_in_100_000_reads(tmp_path, spawn):
    process = spawn(FLOOD, tmp_path, POINTS, "plain")
    assert 20 <= payloads_while_flooded(process, tmp_path, 100_000, 20) <= 100


@pytest.fixture
def unprotected(monkeypatch):
    """Planted mutant: a reader that believes everything."""
    monkeypatch.setattr(
        slots_module,
        "unpack_head",
        lambda blob: RecordHead(*RECORD.unpack(blob[: RECORD.size])) if any(blob) else None,
    )
    monkeypatch.setattr(
        SlotReader,
        "_payload",
        lambda self, offset, head, room: self.pread(head.length, offset + RECORD_BYTES),
    )


@pytest.mark.usefixtures("unprotected")
def test_without_the_protocol_torn_windows_are_seen(tmp_path, spawn):
    process = spawn(FLOOD, tmp_path, POINTS, "mutant")
    assert read_while_flooded(process, tmp_path, 1, torn_wanted=1) >= 1


@pytest.mark.usefixtures("unprotected", "undecoded")
def test_without_the_protocol_torn_payloads_are_seen(tmp_path, spawn):
    process = spawn(FLOOD, tmp_path, POINTS, "mutant")
    assert payloads_while_flooded(process, tmp_path, 1, 101) > 100


# Starts writers by forking, which spares each of them the start of an interpreter. One line with
# folder and pipe starts one; its process id is the answer.
FARM = """
import os, sys
import numpy as np
import calidrift_agent._state
steps = sys.argv[1]
for line in sys.stdin:
    folder, pipe = line.split()
    pid = os.fork()
    if not pid:
        os.dup2(os.open(pipe, os.O_WRONLY), 1)
        sys.argv[1:] = [folder, "2"]
        exec(steps, {})
    os.write(1, pid.to_bytes(8, "little"))
    os.waitpid(pid, 0)
"""


class Forked:
    """A writer that a farm has forked."""

    def __init__(self, farm, folder) -> None:
        pipe = folder.parent / f"{folder.name}.pipe"
        if not pipe.exists():
            os.mkfifo(pipe)
        farm.stdin.write(f"{folder} {pipe}\n".encode())
        farm.stdin.flush()
        self.pid = int.from_bytes(farm.stdout.read(8), "little")
        self.stdout = pipe.open("rb")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def kill_and_check(process, folder, delay: float) -> int:
    """Kill the writer, then check all that it left; returns the steps it had reported."""
    assert process.stdout.read(8)
    time.sleep(delay)
    process.kill()
    told = process.stdout.read()
    process.stdout.close()
    steps = int.from_bytes(told[len(told) - len(told) % 8 - 8 :][:8], "little") if told else 1
    (reader,) = scan(folder)
    with reader:
        result = reader.windows()
        assert (result.final, result.missing) == (True, None)
        whole = Window.empty(2)
        for window in result.windows:
            assert is_uniform(window)
            whole = whole.plus(window)
        numbers = [window.number for window in result.windows]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert np.array_equal(whole.cells, reader.total().cells)
        found = int(whole.requests[0])
        assert steps <= found <= steps + 1, "none lost, none doubled"
        reader.remove()
    return steps


def kill_in_a_loop(start, folder, rounds: int) -> None:
    rng = random.Random(7)
    folder.mkdir(exist_ok=True)
    steps = [kill_and_check(start(), folder, rng.uniform(0.0, 0.1)) for _ in range(rounds)]
    assert max(steps) > 100


def test_a_killed_writer_leaves_valid_windows(tmp_path, spawn):
    kill_in_a_loop(lambda: spawn(STEPS, tmp_path, 2), tmp_path, 4)


@pytest.mark.slow
def test_a_killed_writer_leaves_valid_windows_a_hundred_times(tmp_path, spawn):
    farm, folder = spawn(FARM, STEPS), tmp_path / "state"
    kill_in_a_loop(lambda: Forked(farm, folder), folder, 100)


class StopWriting(Exception):
    pass


class DyingMap:
    """A mapping whose process dies after `budget` more bytes."""

    def __init__(self, memory, budget: int) -> None:
        self.memory = memory
        self.budget = budget
        self.written = 0

    def __setitem__(self, span: slice, data) -> None:
        data = bytes(data)
        room = min(len(data), self.budget - self.written)
        self.memory[span.start : span.start + room] = data[:room]
        self.written += room
        if room < len(data):
            raise StopWriting


def cut_points(length: int) -> list[int]:
    """Every byte of both head writes, and bytes spread over the payload."""
    head, whole = RECORD_BYTES, RECORD_BYTES + length
    spread = range(head, whole, max(length // 40, 1))
    return [*range(head + 1), *spread, *range(whole, whole + head)]


class Steps:
    """Writes step after step, each of them whole or cut after some bytes."""

    def __init__(self, folder, meta, buffer, fill, what: str) -> None:
        self.writer = StateWriter.create(folder, meta, StateOptions(slots=4))
        self.buffer, self.fill, self.what = buffer, fill, what
        self.number = 0

    def write(self) -> Window:
        """One whole step; returns what was written."""
        self.fill(self.buffer, self.number)
        self.number += 1
        now = (10 + 10 * self.number) * SECOND
        if self.what == "live":
            self.writer.write_open(self.buffer, now)
            return self.buffer.total()
        window = self.buffer.close(now)
        if self.what == "ring":
            self.writer.write_closed(window)
            return window
        self.writer.write_cumulative(self.buffer.cumulative())
        return self.buffer.cumulative()

    def write_cut(self, budget: int) -> bool:
        """One step that dies after `budget` bytes; returns whether it was cut at all."""
        memory = self.writer._map
        self.writer._map = DyingMap(memory, budget)
        try:
            self.write()
        except StopWriting:
            return True
        finally:
            self.writer._map = memory
        return False


@pytest.fixture
def steps(tmp_path, make_meta, make_buffer, fill, request):
    made = Steps(tmp_path, make_meta(), make_buffer(), fill, request.param)
    yield made
    made.writer.close()


def payload_bytes(steps: Steps) -> int:
    return len(steps.writer._encoder.encode(steps.buffer.open_window(0)))


@pytest.mark.parametrize("steps", ["live", "cumulative"], indirect=True)
def test_a_write_cut_at_any_byte_leaves_the_older_record(steps):
    cut = 0
    with StateReader.open(steps.writer.path) as reader:
        for budget in cut_points(payload_bytes(steps)):
            steps.write()
            before = reader.live() if steps.what == "live" else reader.cumulative()
            was_cut = steps.write_cut(budget)
            after = reader.live() if steps.what == "live" else reader.cumulative()
            assert after.equals(before) == was_cut
            cut += was_cut
    assert cut > 100


@pytest.mark.parametrize("steps", ["ring"], indirect=True)
def test_a_ring_write_cut_at_any_byte_harms_only_the_oldest_window(steps):
    with StateReader.open(steps.writer.path) as reader:
        for budget in cut_points(payload_bytes(steps)):
            kept = [steps.write() for _ in range(4)]
            was_cut = steps.write_cut(budget)
            found, _ = reader._slots.ring(kept[0].number)
            assert all(found[window.number].equals(window) for window in kept[1:])
            assert len(found) == (3 if was_cut else 4)
