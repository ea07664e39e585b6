"""What was compared beside FP32, look by look: folded, checked, and taken over from before."""

from dataclasses import replace
from datetime import timedelta

import duckdb
import numpy as np
import pytest

from calidrift_agent._state import SegmentCount
from calidrift_agent._vocabulary import Instrument, RequestColumn
from calidrift_analyzer.store import Landmarks, Retention, Store, _migrations
from calidrift_analyzer.store._sql import migrations

SECOND = 1_000_000_000
EPOCH = 1_800_000_000 * SECOND
COMPARED = slice(RequestColumn.COMPARED, RequestColumn.DISTANCE_PPB + 1)
VALUES = {"INTEGER": "1", "TINYINT": "1", "BIGINT": "0", "DOUBLE": "1.0", "VARCHAR": "'x'"}
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


def test_what_an_earlier_version_folded_counts_in_the_look_that_ended_with_it(
    tmp_path, monkeypatch
):
    path = tmp_path / "old.duckdb"
    steps = [step for step in migrations() if step.number < 8]
    connection = duckdb.connect(str(path))
    monkeypatch.setattr(_migrations, "migrations", lambda: tuple(steps))
    _migrations.migrate(connection, "old")
    add(connection, "processes", process_id="1")
    for look, second in enumerate((60, 120, 180)):
        add(connection, "looks", look=str(look), ended=moment(second))
    figures = ("compared", "ranked", "agreed", "noise_ppb")
    for second, *counts in (
        (50, 10, 10, 7, 5),  # by classes
        (60, 4, 4, 4, 0),
        (61, 20, 3, 3, 9 * 10**9),  # by noise
        (500, 6, 6, 5, 0),  # after the last look
        (170, 0, 0, 0, 0),
    ):
        found = dict(zip(figures, map(str, counts), strict=True))
        add(connection, "rollups", number=str(second), ended=moment(second), **found)
    connection.close()
    monkeypatch.undo()
    with Store.open(path) as store:
        found = store.history("net", "p", instrument=Instrument.RANGE).compared
        assert found.looks.tolist() == [0, 1, 2]
        assert found.compared.tolist() == [14, 20, 6]
        assert found.ranked.tolist() == [14, 0, 6]
        assert found.agreed.tolist() == [11, 0, 5]
        assert found.noise_ppb.tolist() == [0, 9 * 10**9, 0]


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
