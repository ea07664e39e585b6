"""The first random units of a profile, cut at whole windows, out of a real database."""

import time
from dataclasses import replace

import duckdb
import numpy as np
import pytest

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import CountColumn, Instrument, ValueColumn, WindowFlag
from calidrift_analyzer.store import Landmarks, Retention, Store, _migrations
from calidrift_analyzer.store._sql import migrations

POINTS = ("a:input", "b:input")
SECOND = 1_000_000_000
EPOCH = 1_800_000_000 * SECOND
VALUES = {
    "model": "'net'",
    "profile": "'p'",
    "instrument": "'range'",
    "INTEGER": "1",
    "BIGINT": "1",
    "DOUBLE": "1.0",
    "VARCHAR": "'x'",
    "VARCHAR[]": "[]",
    "TIMESTAMP_NS": "TIMESTAMP '2027-01-15 08:00:00'",
    "STRUCT": "[]",
}
"""A value for every column of an older schema, by name, else by type."""


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "x.duckdb") as opened:
        yield opened


class Fleet:
    """Processes that write windows of known peaks."""

    def __init__(self, store, traffic):
        self.store, self.traffic = store, traffic
        self.meta = traffic.meta(points=POINTS, profile="p" * 64)

    def write(self, *peaks, meta=None, number=0, change=None):
        """One window per list of peaks; both points see them, the second one halved."""
        windows = []
        for offset, chosen in enumerate(peaks):
            values = [np.array(chosen)[:, None] * np.array([[1.0, -0.5]]) * s for s in (1, 0.5)]
            window = self.traffic.unit_window(number + offset, values, [None, None])
            windows.append(change(window) if change else window)
        self.store.ingest(meta or self.meta, windows, batch=self.store.next_batch())

    def units(self, wanted, **changes):
        meta = replace(self.meta, **changes)
        return self.store.references.first_units(meta.model, meta.profile, meta.instrument, wanted)


@pytest.fixture
def fleet(store, traffic):
    return Fleet(store, traffic)


def highest(found):
    return {one.name: one.highest for one in found.points}


def test_as_few_whole_windows_as_hold_the_wanted_number(fleet):
    fleet.write([1.0, 5.0], [2.0, 3.0], [9.0, 1.0])
    for wanted, units, peak in ((1, 2, 5.0), (2, 2, 5.0), (3, 4, 5.0), (4, 4, 5.0), (5, 6, 9.0)):
        found = fleet.units(wanted)
        assert (found.units, found.windows) == (units, units // 2), wanted
        assert highest(found) == {"a:input": peak, "b:input": peak / 2}
        assert (found.measured, found.missing) == (6, 0)


def test_too_few_are_all_there_are(fleet):
    fleet.write([1.0, 5.0], [2.0, 3.0])
    found = fleet.units(10)
    assert (found.units, found.missing) == (4, 6)
    assert found.time_left == ", in about 3 s at this traffic"
    assert (found.first_ns, found.last_ns) == (EPOCH, EPOCH + 2 * SECOND)


def test_nothing_recorded_is_nothing(fleet):
    found = fleet.units(10)
    assert (found.units, found.measured, found.points, found.time_left) == (0, 0, (), "")


def test_windows_count_in_the_order_in_which_they_arrived(fleet, traffic):
    # The second process ran earlier, but is collected later: what was first stays first.
    fleet.write([1.0, 2.0], number=5)
    before = fleet.units(2)
    late = traffic.meta(points=POINTS, profile="p" * 64)
    fleet.write([8.0, 8.0], meta=late, number=0)
    assert highest(fleet.units(2)) == highest(before) == {"a:input": 2.0, "b:input": 1.0}
    assert highest(fleet.units(3))["a:input"] == 8.0


def test_processes_of_one_profile_are_one_stream(fleet, traffic):
    fleet.write([1.0, 2.0])
    other = traffic.meta(points=tuple(reversed(POINTS)), profile="p" * 64)
    fleet.write([4.0, 4.0], meta=other, number=1)
    found = fleet.units(4)
    assert highest(found) == {"a:input": 2.0, "b:input": 4.0}
    assert [one.units for one in found.points] == [4, 4]


def test_other_profiles_models_and_instruments_are_other_streams(fleet, traffic):
    fleet.write([1.0, 2.0])
    fleet.write([9.0], meta=traffic.meta(points=POINTS, profile="q" * 64))
    fleet.write([9.0], meta=traffic.meta(points=POINTS, profile="p" * 64, model="else"))
    clip = traffic.meta(points=POINTS, profile="p" * 64, instrument=Instrument.CLIP)
    fleet.write([9.0], meta=clip)
    assert fleet.units(99).measured == 2
    assert fleet.units(99, instrument=Instrument.CLIP).measured == 1


def test_the_sketch_is_that_of_the_windows_taken(fleet):
    fleet.write([1.0, 5.0], [700.0, 3.0])
    oracle = MagnitudeSketch()
    oracle.update(np.float32([1.0, -0.5, 5.0, -2.5]))
    found = fleet.units(2).points[0].sketch
    assert np.array_equal(found.cells, oracle.cells)
    assert (found.minimum, found.maximum) == (-2.5, 5.0)


def test_units_that_are_not_finite_are_counted(fleet):
    def broken(window):
        window.counts[0, CountColumn.UNITS_NOT_FINITE] = 2
        window.values[0, ValueColumn.UNIT_HIGHEST] = -np.inf
        return window

    fleet.write([1.0, 5.0], change=broken)
    first, second = fleet.units(2).points
    assert (first.not_finite, first.highest) == (2, None)
    assert (second.not_finite, second.highest) == (0, 2.5)


def test_coarse_windows_are_told(fleet):
    fleet.write([1.0, 5.0], change=lambda window: window.with_flags(WindowFlag.COARSE))
    assert fleet.units(2).coarse_windows == 1


def test_windows_of_an_older_agent_hold_no_unit(fleet):
    def old(window):
        window.counts[:, [CountColumn.UNITS_MEASURED, CountColumn.UNITS_NOT_FINITE]] = 0
        window.values[:, ValueColumn.UNIT_HIGHEST] = -np.inf
        return window

    fleet.write([1.0, 5.0], change=old)
    assert fleet.units(2).measured == 0
    fleet.write([2.0], number=1)
    found = fleet.units(2)
    assert (found.measured, highest(found)["a:input"]) == (1, 2.0)


def test_folding_keeps_every_unit(fleet):
    rng = np.random.default_rng(4)
    windows = rng.lognormal(size=(40, 3))
    fleet.write(*windows.tolist())
    whole = fleet.units(10**9)
    report = fleet.store.retain(
        Retention(),
        lambda history, profile: Landmarks(),
        now_ns=time.time_ns() + 20 * 365 * 86_400 * SECOND,
    )
    assert report.folded
    again = fleet.units(10**9)
    assert (again.units, highest(again)) == (whole.units, highest(whole))
    assert highest(again)["a:input"] == windows.max()
    assert np.array_equal(again.points[0].sketch.cells, whole.points[0].sketch.cells)
    assert fleet.units(1).units >= 1  # a folded record is taken whole


def test_a_database_from_before_has_no_units_and_loses_nothing(tmp_path, traffic, monkeypatch):
    path = tmp_path / "old.duckdb"
    steps = [step for step in migrations() if step.number < 5]
    connection = duckdb.connect(str(path))
    monkeypatch.setattr(_migrations, "migrations", lambda: tuple(steps))
    _migrations.migrate(connection, "old")
    names = {row[0] for row in connection.execute("DESCRIBE point_windows").fetchall()}
    assert "unit_highest" not in names
    for table in ("processes", "process_points", "windows", "point_windows"):
        kinds = connection.execute(f"DESCRIBE {table}").fetchall()
        values = ", ".join(
            VALUES.get(name) or VALUES[kind.split("(")[0]] for name, kind, *_ in kinds
        )
        connection.execute(f"INSERT INTO {table} VALUES ({values})")
    connection.close()
    monkeypatch.undo()
    with Store.open(path) as store:
        assert store.references.first_units("net", "p", Instrument.RANGE, 5).units == 0
        totals = store.totals("net", "p").points[0]
        assert totals.units == 1
        assert totals.counts[CountColumn.UNITS_MEASURED] == 0
        assert totals.values[ValueColumn.UNIT_HIGHEST] == -np.inf
        fleet = Fleet(store, traffic)
        fleet.write([1.0, 3.0])
        assert highest(fleet.units(2))["a:input"] == 3.0
