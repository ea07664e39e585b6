"""State directories as agents leave them."""

from functools import reduce

import numpy as np
import pytest

from calidrift_agent._capture import CaptureRow, CaptureWriter
from calidrift_agent._state import StateOptions, StateWriter, Window, WindowBuffer
from calidrift_analyzer.collect import collect
from calidrift_analyzer.store import Store

SECOND = 1_000_000_000


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def database(tmp_path):
    return tmp_path / "x.duckdb"


class Process:
    """An agent without a model: fills windows and writes its state file."""

    def __init__(self, traffic, folder, *, slots=None, **meta):
        self.traffic = traffic
        self.meta = traffic.meta(**meta)
        self.writer = StateWriter.create(folder, self.meta, StateOptions(slots=slots))
        self.now = 0
        self.buffer = WindowBuffer(len(self.meta.points), window_seconds=10.0, now_ns=0)
        self.written = []

    def fill(self):
        window = self.traffic.random_window(0, points=len(self.meta.points))
        self.buffer.requests += window.requests
        self.buffer.counts += window.counts
        self.buffer.cells += window.cells
        self.buffer.values[:] = window.values
        self.buffer.add_segment("day", 3, 2)

    def windows(self, count):
        for _ in range(count):
            self.fill()
            self.now += 10 * SECOND
            window = self.buffer.close(self.now)
            self.writer.write_closed(window)
            self.writer.write_cumulative(self.buffer.cumulative())
            self.written.append(window)
        return self

    def open_window(self):
        self.fill()
        self.writer.write_open(self.buffer)
        total = self.buffer.open_window(self.now)
        self.written.append(total.plus(Window.empty(total.points, number=total.number)))
        return self

    def die(self):
        """As a kill leaves it: the file stays, the lock goes."""
        self.writer.close()
        return self

    def total(self):
        return reduce(Window.plus, self.written)


class Desk:
    """The analyzer's side: runs the collector, and holds the store against the truth."""

    def __init__(self, folder, database):
        self.folder, self.database = folder, database

    def run(self):
        with Store.open(self.database) as store:
            return collect([self.folder], store)

    def assert_complete(self, *processes):
        """The database holds the counts of every process once."""
        with Store.open(self.database) as store:
            self.assert_stored(store, *processes)

    def assert_stored(self, store, *processes):
        """The same of a store that is open."""
        whole = reduce(Window.plus, [process.total() for process in processes])
        totals = store.totals("net", "")
        history = store.history("net", "")
        np.testing.assert_array_equal(totals.requests, whole.requests)
        for row, point in enumerate(totals.points):
            np.testing.assert_array_equal(point.counts, whole.counts[row])
            np.testing.assert_array_equal(point.cells, whole.cells[row])
        assert history.units.sum() == sum(int(point.counts[0]) for point in totals.points)
        segments = {segment.name: (segment.units, segment.covered) for segment in totals.segments}
        assert segments == {one.name: (one.units, one.covered) for one in whole.segments}


@pytest.fixture
def desk(folder, database):
    return Desk(folder, database)


@pytest.fixture
def process(traffic, folder):
    """Makes processes in the state directory."""
    return lambda **options: Process(traffic, folder, **options)


@pytest.fixture
def captures(traffic, folder):
    writer = CaptureWriter(folder / "captures" / ("c" * 32), "net", "f" * 64, ("a:input",))

    def write(time_ns, uncovered=True):
        writer.offer(
            CaptureRow(
                inputs={"x": np.zeros((1, 3), np.float32)},
                maxima=np.array([2.0], np.float32),
                uncovered=uncovered,
                time_ns=time_ns,
                segment="night",
            )
        )

    return write
