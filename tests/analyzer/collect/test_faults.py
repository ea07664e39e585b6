"""What broken disks, killed agents, stepping clocks and old versions do to the store: nothing."""

import gzip
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._state import NO_WINDOW, StateReader, Window
from calidrift_agent._vocabulary import CountColumn, WindowFlag
from calidrift_analyzer.collect import collect
from calidrift_analyzer.store import Store

SECOND = 1_000_000_000
OLDER = Path(__file__).parents[2] / "agent" / "state" / "files" / "format2.state.gz"


class Memory:
    """A store of one process in memory, with the rules of the real one; for thousands of runs."""

    def __init__(self):
        self.windows = []

    def next_batch(self):
        return 1

    def profile_digests(self):
        return ()

    def captures(self):
        return ()

    def last_number(self, meta):
        return max((window.number for window in self.windows), default=NO_WINDOW)

    def sums(self, meta):
        return reduce(Window.plus, self.windows, Window.empty(len(meta.points)))

    def ingest(self, meta, windows, *, batch):
        last = self.last_number(meta)
        fresh = [window for window in windows if window.number > last]
        self.windows += fresh
        return len(fresh)

    def figures(self):
        if not self.windows:
            return np.zeros(1, np.int64)
        total = reduce(Window.plus, self.windows)
        return np.concatenate([total.requests, total.counts.ravel(), total.cells.ravel()])


@pytest.fixture
def written(process, folder):
    """The file of a process that has died, and everything that it ever counted."""
    process = process(slots=6).windows(9).open_window().die()
    total = process.total()
    figures = [total.requests, total.counts.ravel(), total.cells.ravel()]
    return process.writer.path, np.concatenate(figures)


def regions(path):
    """Where each kind of byte lies: one span (first, end) per class."""
    with StateReader.open(path) as reader:
        layout = reader._slots.layout
    spans = {
        "mark": (0, 8),
        "version": (8, 12),
        "header": (12, 80),
        "description": (80, 80 + layout.meta_bytes),
    }
    for kind, offsets, size in (
        ("live", layout.live, layout.live_bytes),
        ("cumulative", layout.cumulative, layout.live_bytes),
        ("ring", [layout.ring(slot) for slot in range(layout.slots)], layout.ring_bytes),
    ):
        for number, offset in enumerate(offsets):
            spans[f"head of {kind} {number}"] = (offset, offset + 36)
            spans[f"window of {kind} {number}"] = (offset + 36, offset + 36 + 700)
            spans[f"cells of {kind} {number}"] = (offset + 700, offset + min(size, 3_000))
    return spans


def judge(folder, path, whole, truth, damaged, *, lasting=True, named=True):
    """Collect a damaged file, then the whole one, and hold both against the truth.

    Returns:
        Whether something was missing while the file was damaged.
    """
    store = Memory()
    path.write_bytes(damaged)
    report = collect([folder], store)
    found = store.figures()
    assert (found <= truth).all(), "a count that never was"
    short = found.size != truth.size or bool((found != truth).any())
    if short and named:
        assert path in {skipped.path for skipped in report.skipped}
        assert all(skipped.reason for skipped in report.skipped)
    path.write_bytes(whole)
    for _ in range(2):
        collect([folder], store)
        found = store.figures()
        assert (found <= truth).all(), "something was counted twice"
        if lasting:
            np.testing.assert_array_equal(found, truth)
    return short


def test_a_flipped_bit_in_any_kind_of_byte(folder, written):
    path, truth = written
    whole = path.read_bytes()
    rng = random.Random(1)
    short = 0
    for first, end in regions(path).values():
        for _ in range(4):
            blob = bytearray(whole)
            blob[rng.randrange(first, min(end, len(blob)))] ^= 1 << rng.randrange(8)
            short += judge(folder, path, whole, truth, bytes(blob))
    assert short > 8, "hardly any of the damage mattered: the test tests nothing"


def test_a_file_cut_at_any_length(folder, written):
    path, truth = written
    whole = path.read_bytes()
    rng = random.Random(2)
    lengths = {0, 1, 7, 8, 79, 80, 81, len(whole) - 1}
    lengths |= {end for span in regions(path).values() for end in span}
    lengths |= {rng.randrange(len(whole)) for _ in range(30)}
    for length in sorted(length for length in lengths if length < len(whole)):
        assert judge(folder, path, whole, truth, whole[:length])


def test_pages_of_two_moments_in_one_file(folder, process):
    """As a copy made while the agent writes: pages of an earlier state beside later ones."""
    made = process(slots=6).windows(4)
    path = made.writer.path
    early = path.read_bytes()
    made.windows(4).open_window().die()
    late = path.read_bytes()
    total = made.total()
    truth = np.concatenate([total.requests, total.counts.ravel(), total.cells.ravel()])
    rng = random.Random(3)
    for _ in range(60):
        pages = [early if rng.random() < 0.5 else late for _ in range(0, len(late), 4_096)]
        torn = b"".join(source[n * 4_096 : (n + 1) * 4_096] for n, source in enumerate(pages))
        # An earlier state that holds together is no damage: more comes later.
        judge(folder, path, late, truth, torn, lasting=False, named=False)


def test_much_damage_never_counts_too_much(folder, written):
    path, truth = written
    whole = path.read_bytes()
    rng = random.Random(4)
    for _ in range(120):
        blob = bytearray(whole)
        for _ in range(rng.choice((2, 8, 40))):
            start = rng.randrange(80, len(blob) - 64)
            size = rng.choice((1, 8, 64))
            blob[start : start + size] = rng.randbytes(size)
        judge(folder, path, whole, truth, bytes(blob), lasting=False)


def test_the_comparison_can_fail(folder, written, monkeypatch):
    """A store that forgets how far it is counts twice, and the test sees it."""
    path, truth = written
    monkeypatch.setattr(Memory, "last_number", lambda self, meta: NO_WINDOW)
    whole = path.read_bytes()
    with pytest.raises(AssertionError, match=r"a count that never was|counted twice"):
        judge(folder, path, whole, truth, whole)


def test_the_real_store_does_as_the_one_in_memory(folder, written, database):
    path, truth = written
    whole = path.read_bytes()
    rng = random.Random(5)
    spans = list(regions(path).values())
    for number in range(6):
        first, end = spans[rng.randrange(len(spans))]
        blob = bytearray(whole)
        blob[rng.randrange(first, min(end, len(blob)))] ^= 0x10
        with Store.open(database.with_name(f"{number}.duckdb")) as store:
            path.write_bytes(bytes(blob))
            collect([folder], store)
            path.write_bytes(whole)
            collect([folder], store)
            assert collect([folder], store).windows == 0
            totals = store.totals("net", "")
            counts = np.concatenate([point.counts for point in totals.points])
            cells = np.concatenate([point.cells for point in totals.points])
            np.testing.assert_array_equal(np.concatenate([totals.requests, counts, cells]), truth)
            assert store.upkeep.check().whole


AGENT = """
import os, sys
from calidrift_agent._state import PointMeta, StateMeta, StateOptions, StateWriter, WindowBuffer
from calidrift_agent._vocabulary import Instrument, Strategy

SECOND = 1_000_000_000
folder, slots, seed, led = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "led"
meta = StateMeta(f"{seed:032x}", "", 1, 0, "net", "", Instrument.RANGE, Strategy.INSTEAD, "0.1.0",
                 10.0, (PointMeta("a:input", 1.0, -1.0, 1.0, ()),))
import random
clock = random.Random(seed)
now = 1_800_000_000 * SECOND
buffer = WindowBuffer(1, window_seconds=10.0, now_ns=now)
writer = StateWriter.create(folder, meta, StateOptions(slots=slots))
while not led or os.read(0, 1):
    # Window n counts n + 1 of everything, whatever the clock says.
    figure = buffer.number + 1
    buffer.requests += figure
    buffer.counts += figure
    buffer.cells[:, ::50] += figure
    buffer.values[:] = 1.0
    writer.write_open(buffer)
    if clock.random() < 0.1:
        now += clock.choice((-7, -1, 1, 30)) * 86_400 * SECOND
    now += 10 * SECOND
    window = buffer.close(now)
    writer.write_closed(window)
    writer.write_cumulative(buffer.cumulative())
    os.write(1, b"w")
"""


def run_agent(folder, database, environment, *, slots, seed, led):
    """A real agent process that is read while it works, then killed.

    Args:
        folder: Where its state file goes.
        database: Where the collector's figures go.
        environment: Of the process.
        slots: Size of the ring.
        seed: What its clock does.
        led: Whether it makes as many windows as it is told to, or as many as it can.

    Returns:
        The reports of all collect runs.
    """
    mode = "led" if led else "free"
    agent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(AGENT), str(folder), str(slots), str(seed), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    reports = []
    try:
        with Store.open(database) as store:
            for wanted in (3, 40, 60):
                if led:
                    os.write(agent.stdin.fileno(), bytes(wanted))
                told = 0
                while told < wanted:
                    assert select.select([agent.stdout], [], [], 60)[0], "the agent is stuck"
                    told += len(os.read(agent.stdout.fileno(), wanted - told))
                reports.append(collect([folder], store))
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.communicate(timeout=60)
    with Store.open(database) as store:
        reports += [collect([folder], store), collect([folder], store)]
    return reports


def assert_complete(database):
    """Every window up to the last one is there once: window n counted n + 1 of everything."""
    with Store.open(database) as store:
        rows = store._connection.rows(
            "SELECT number, epoch_ns(started), epoch_ns(ended), coarse, seen FROM recorded "
            "ORDER BY number"
        )
        totals = store.totals("net", "")
        last = rows[-1][0]
        # The open window of a killed process may be there, half counted or empty.
        closed = (last + 1) * (last + 2) // 2
        whole = {closed, closed - (last + 1)}
        assert int(totals.requests[0]) in whole
        assert int(totals.points[0].counts[CountColumn.ROWS]) in whole
        assert int(totals.points[0].cells[0]) in whole
        assert store.history("net", "").seen.sum() == totals.requests[0]
        ends = [end for _, _, end, _, _ in rows]
        assert ends == sorted(ends), "time never runs back"
        assert all(start <= end for _, start, end, _, _ in rows)
        assert store.upkeep.check().whole
        return rows, totals


@pytest.mark.slow
def test_a_ring_that_overruns_is_flagged_and_counted(folder, database, unmeasured):
    reports = run_agent(folder, database, unmeasured(), slots=4, seed=1, led=False)
    rows, totals = assert_complete(database)
    coarse = sum(row[3] for row in rows)
    assert coarse > 0
    assert totals.coarse_windows == coarse == sum(report.coarse for report in reports)
    assert totals.windows < rows[-1][0]
    with Store.open(database) as store:
        flags = store._connection.rows("SELECT flags FROM windows WHERE flags & 2 <> 0")
    assert len(flags) == coarse
    assert all(WindowFlag(flag) & WindowFlag.COARSE for (flag,) in flags)


@pytest.mark.slow
def test_clocks_that_step_lose_and_double_nothing(folder, database, unmeasured):
    """The agent's clock jumps by days, back and forth; it lives, is read, and is killed."""
    for seed in (2, 3):
        target = database.with_name(f"{seed}.duckdb")
        where = folder / str(seed)
        where.mkdir()
        run_agent(where, target, unmeasured(), slots=64, seed=seed, led=True)
        rows, _ = assert_complete(target)
        numbers = [row[0] for row in rows]
        assert numbers == list(range(len(numbers)))
        lengths = {end - start for _, start, end, _, _ in rows}
        assert max(lengths) > 80_000 * SECOND or 0 in lengths, "no clock stepped"
        aligned = [end % (10 * SECOND) == 0 for _, _, end, _, _ in rows]
        assert sum(aligned) > len(aligned) / 2


@pytest.mark.skipif(not OLDER.exists(), reason="no state file of an older version is here")
def test_the_file_of_an_agent_of_an_older_version_is_read_once(folder, database):
    with gzip.open(OLDER) as packed, (folder / "older.state").open("wb") as file:
        shutil.copyfileobj(packed, file)
    with Store.open(database) as store:
        report = collect([folder], store)
        assert (report.windows, report.skipped) == (4, ())
        assert collect([folder], store).windows == 0
        (seen,) = store.observed()
        totals = store.totals(seen.model, seen.profile)
        assert totals.points[0].units == 12
        assert totals.points[0].counts[CountColumn.UNITS_MEASURED] == 0


def test_the_file_of_an_agent_of_a_newer_version_is_named(folder, desk, process):
    good = process().windows(2)
    bad = process().windows(2).die()
    blob = bytearray(bad.writer.path.read_bytes())
    blob[8:12] = (999).to_bytes(4, "little")
    bad.writer.path.write_bytes(blob)
    report = desk.run()
    assert [skipped.path for skipped in report.skipped] == [bad.writer.path]
    assert "newer calidrift (format 999" in report.skipped[0].reason
    desk.assert_complete(good)
