"""What was compared beside FP32, look by look: folded, checked, and taken over from before."""

from dataclasses import replace
from datetime import timedelta

import duckdb
import numpy as np
import pytest

from calidrift_agent._state import SegmentCount
from calidrift_agent._vocabulary import Instrument, RequestColumn
from calidrift_analyzer.assess import AssessRules
from calidrift_analyzer.assess._measured_harm import measured_harm
from calidrift_analyzer.records import HarmBreach
from calidrift_analyzer.store import Landmarks, Retention, Store, _migrations
from calidrift_analyzer.store._sql import migrations

SECOND = 1_000_000_000
EPOCH = 1_800_000_000 * SECOND
COMPARED = slice(RequestColumn.COMPARED, RequestColumn.DISTANCE_PPB + 1)
VALUES = {
    "VARCHAR[]": "[]",
    "INTEGER": "1",
    "TINYINT": "1",
    "BIGINT": "0",
    "DOUBLE": "1.0",
    "VARCHAR": "'x'",
}
STREAM = {"model": "'net'", "profile": "'p'", "instrument": "'range'"}
HARD = Retention(**dict.fromkeys(("windows", "minutes", "hours", "days"), timedelta(hours=1)))


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "x.duckdb") as opened:
        yield opened


def moment(second):
    return f"make_timestamp_ns({EPOCH + second * SECOND})"


def add(connection, table, **values):
    """A row with these values; the others by their type."""
    columns = connection.execute(f"DESCRIBE {table}").fetchall()
    listed = ", ".join(
        values.get(name) or STREAM.get(name) or VALUES.get(kind) or moment(0)
        for name, kind, *_ in columns
    )
    connection.execute(f"INSERT INTO {table} VALUES ({listed})")


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A database as the schema before this one has it; `old.opened()` migrates it."""
    connection = duckdb.connect(str(tmp_path / "old.duckdb"))
    steps = [step for step in migrations() if step.number < 8]
    with monkeypatch.context() as patched:
        patched.setattr(_migrations, "migrations", lambda: tuple(steps))
        _migrations.migrate(connection, "old")
    return Old(connection, tmp_path / "old.duckdb")


class Old:
    """Writes what that version folded."""

    def __init__(self, connection, path):
        self.connection, self.path = connection, path

    def processes(self, *numbers):
        for number in map(str, numbers):
            add(self.connection, "processes", process_id=number, process=f"'{number}'")
            add(self.connection, "process_points", process_id=number, position="0", point="'a'")

    def rollups(self, *rows):
        """Rows of process, batch, end, and what was compared."""
        names = ("process_id", "batch", "compared", "ranked", "agreed", "noise_ppb")
        for number, (process, batch, second, *counts) in enumerate(rows):
            found = dict(zip(names, map(str, (process, batch, *counts)), strict=True))
            add(self.connection, "rollups", number=str(number), ended=moment(second), **found)

    def looks(self, *seconds, units=0):
        for look, second in enumerate(seconds):
            counts = dict.fromkeys(("windows", "seen", "units", "covered"), str(units))
            place = {"look": str(look), "ended": moment(second)}
            add(self.connection, "looks", **place, **counts)
            add(self.connection, "look_points", look=str(look), point="'a'", units=str(look + 1))
            add(
                self.connection, "look_segments", look=str(look), place="1", segment="'day'",
                units=str(look + 1),
            )  # fmt: skip

    def history(self):
        self.connection.close()
        with Store.open(self.path) as store:
            numbers = store._connection.rows("SELECT look FROM looks ORDER BY look")
            found = store.history("net", "p", instrument=Instrument.RANGE)
        assert [look for (look,) in numbers] == list(range(found.end_ns.size))
        return found


def seconds(history, looks=slice(None)):
    return ((history.end_ns[looks] - EPOCH) // SECOND).tolist()


def test_what_an_earlier_version_folded_are_looks_of_their_own(old):
    old.processes(1)
    old.looks(60, 120, 180)
    old.rollups(
        (1, 0, 50, 10, 10, 7, 5),  # by classes
        (1, 0, 60, 4, 4, 4, 0),
        (1, 0, 61, 20, 3, 3, 9 * 10**9),  # by noise
        (1, 0, 170, 0, 0, 0, 0),
        (1, 0, 500, 6, 6, 5, 0),  # after the last look
    )
    history = old.history()
    assert seconds(history) == [50, 60, 60, 61, 120, 500, 180]
    found = history.compared
    assert found.looks.tolist() == [0, 1, 3, 5]
    assert found.compared.tolist() == [10, 4, 20, 6]
    assert found.ranked.tolist() == [10, 4, 0, 6]
    assert found.agreed.tolist() == [7, 4, 0, 5]
    assert found.noise_ppb.tolist() == [0, 0, 9 * 10**9, 0]


def test_points_and_segments_move_with_their_looks(old):
    old.processes(1)
    old.looks(60, 120, 180, units=7)
    old.rollups((1, 0, 50, 1, 1, 1, 0), (1, 0, 110, 1, 1, 1, 0), (1, 0, 115, 1, 1, 1, 0))
    history = old.history()
    assert seconds(history) == [50, 60, 110, 115, 120, 180]
    assert history.request_units.tolist() == [0, 7, 0, 0, 7, 7]
    assert history.units[:, 0].tolist() == [0, 1, 0, 0, 2, 3]
    assert history.segments[0].looks.tolist() == [1, 4, 5]
    assert history.segments[0].units.tolist() == [1, 2, 3]


def test_rollups_are_looked_at_in_their_order_and_late_ones_stay_late(old):
    old.processes(1, 2)
    add(old.connection, "moments", moment=moment(60))
    old.looks(120, 60)  # the second hour brought what was late
    old.rollups(
        (2, 0, 60, 2, 2, 2, 0),
        (1, 0, 60, 1, 1, 1, 0),
        (2, 0, 120, 8, 8, 8, 0),
        (1, 0, 120, 4, 4, 4, 0),
        (1, 1, 50, 16, 16, 16, 0),
    )
    history = old.history()
    assert history.compared.compared.tolist() == [1, 2, 12, 16], "two at the moment, then one"
    assert seconds(history, history.compared.looks) == [60, 60, 120, 50]


def test_without_comparisons_looks_stay_as_they_are(old):
    old.processes(1)
    old.looks(60, 120)
    old.rollups((1, 0, 60, 0, 0, 0, 0))
    history = old.history()
    assert seconds(history) == [60, 120]
    assert history.compared is None


def test_a_breach_of_harm_that_an_earlier_version_told_stays(old):
    """Calm, ten bad seconds, calm for the rest of the hour, all of it in one joined look."""
    old.processes(1)
    old.looks(2, 600)
    calm = ((1, 0, end, 600, 600, 600, 0) for end in range(120, 660, 60))
    old.rollups((1, 0, 60, 600, 600, 600, 0), (1, 0, 70, 100, 100, 40, 0), *calm)
    breach = measured_harm(old.history(), AssessRules()).breach
    assert breach == HarmBreach(EPOCH + 70 * SECOND, 700, 60.0)


def compared_windows(traffic, number, counts):
    """Windows of four units with these comparisons."""
    made = []
    for place, one in enumerate(counts):
        window = traffic.unit_window(number + place, [np.zeros((4, 8))] * 2, [1.0, 1.0])
        window.requests[COMPARED] = one
        made.append(window)
    return made


def test_windows_of_both_losses_keep_theirs_when_they_are_joined(store, traffic):
    meta = traffic.meta()
    counts = [(10, 10, 8, 10**9, 0), (10, 4, 4, 3 * 10**9, 0), (0, 0, 0, 0, 0), (5, 5, 5, 1, 0)]
    store.ingest(meta, compared_windows(traffic, 0, counts), batch=store.next_batch())
    fine = store.history("net", "").compared
    assert fine.looks.tolist() == [0, 1, 3]
    store.retain(HARD, lambda *_: Landmarks(), now_ns=EPOCH * 2)
    found = store.history("net", "").compared
    assert found.looks.tolist() == [0]
    assert (found.compared.sum(), found.ranked.sum(), found.agreed.sum()) == (25, 15, 13)
    assert found.noise_ppb.tolist() == [3 * 10**9]
    assert found.noise_ppb.sum() == fine.noise_ppb.sum()
    assert store.upkeep.check().whole


def test_a_comparison_that_is_lost_from_the_looks_is_seen(store, traffic):
    meta = traffic.meta()
    counts = [(10, 10, 8, 0, 0)]
    store.ingest(meta, compared_windows(traffic, 0, counts), batch=store.next_batch())
    store.retain(HARD, lambda *_: Landmarks(), now_ns=EPOCH * 2)
    store._connection.rows("UPDATE look_losses SET compared = compared - 1")
    assert not store.upkeep.check().whole


def test_units_of_the_reference_are_counted_by_segment(store, traffic):
    meta = traffic.meta(profile="p")
    windows = compared_windows(traffic, 0, [(0, 0, 0, 0, 0)] * 3)
    named = [
        replace(window, segments=segments)
        for window, segments in zip(
            windows,
            [
                (SegmentCount("day", 3, 3),),
                (SegmentCount("day", 1, 0), SegmentCount("night", 3, 3)),
                (SegmentCount("late", 4, 4),),
            ],
            strict=True,
        )
    ]
    store.ingest(meta, named, batch=store.next_batch())
    found = store.references.first_units("net", "p", Instrument.RANGE, 8)
    assert found.segments == {"day": 4, "night": 3, "": 1}
    store.references.put_segments("q", found.segments)
    store.references.put_segments("q", {"day": 99})  # of a profile that is known already
    after = traffic.meta(profile="q")
    store.ingest(after, [one for one in named if one.number < 3], batch=store.next_batch())
    known = {one.name: one.reference_units for one in store.history("net", "q").segments}
    assert known == {"day": 4, "night": 3, "late": 0}


def test_without_bounds_nobody_counts_segments(store, traffic):
    window = traffic.unit_window(0, [np.zeros((4, 8))] * 2, [None, None])
    store.ingest(traffic.meta(profile="p"), [window], batch=store.next_batch())
    assert store.references.first_units("net", "p", Instrument.RANGE, 4).segments is None
    assert store.references.first_units("net", "none", Instrument.RANGE, 4).segments is None


def test_another_archive_brings_the_segments_of_its_references(store, traffic, tmp_path):
    with Store.open(tmp_path / "other.duckdb") as other:
        other.references.put_segments("q", {"day": 4, "": 1})
    store.upkeep.merge(tmp_path / "other.duckdb")
    (window,) = compared_windows(traffic, 0, [(0, 0, 0, 0, 0)])
    window = replace(window, segments=(SegmentCount("day", 4, 4),))
    store.ingest(traffic.meta(profile="q"), [window], batch=store.next_batch())
    assert store.history("net", "q").segments[0].reference_units == 4
