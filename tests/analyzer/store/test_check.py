"""The integrity check passes on what the store writes, and sees what nobody may write."""

import shutil
from datetime import timedelta

import pytest

from calidrift_agent._state import Window
from calidrift_agent._vocabulary import WindowFlag
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.store import Landmarks, Retention, Store

DAY = 86_400_000_000_000
NOW = 1_800_000_000_000_000_000


def moved(window, start_ns, **changes):
    fields = {name: getattr(window, name) for name in window.__slots__}
    return Window(**{**fields, "start_ns": start_ns, "end_ns": start_ns + 10, **changes})


def fold(store, *days):
    names = ("windows", "minutes", "hours", "days")
    spans = {name: timedelta(days=n) for name, n in zip(names, days, strict=True)}
    store.retain(Retention(**spans), lambda *_: Landmarks(), now_ns=NOW + 99_999 * DAY)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return tmp_path_factory.mktemp("template") / "calidrift.duckdb"


@pytest.fixture
def filled(template, traffic, tmp_path):
    """Twenty windows of two processes, some of them in every tier; made once and copied."""
    if not template.exists():
        fill(template.with_suffix(".part"), traffic)
        template.with_suffix(".part").rename(template)
    path = tmp_path / "calidrift.duckdb"
    shutil.copyfile(template, path)
    with Store.open(path) as store:
        yield store


def fill(path, traffic):
    metas = [traffic.meta(), traffic.meta()]
    ages = (0, 0, 0, 0), (0, 0, 0, 1e6), (0, 0, 1e6, 1e6), (0, 1e6, 1e6, 1e6), None
    with Store.open(path) as store:
        for step, days in enumerate(ages):
            for meta in metas:
                numbers = range(4 * step, 4 * step + 4)
                windows = [moved(traffic.random_window(n), NOW + n * DAY // 50) for n in numbers]
                store.ingest(meta, windows, batch=step + 1)
            if days is not None:
                fold(store, *days)


def rows(store, sql):
    return store._connection.rows(sql)


def test_what_the_store_writes_is_whole(filled):
    report = filled.upkeep.check()
    assert report.problems == ()
    assert report.whole
    assert (report.processes, report.windows, report.coarse_windows) == (2, 40, 0)
    assert (report.lost_windows, report.gaps) == (0, ())
    assert report.point_rows == 2 * report.records
    tiers = rows(filled, "SELECT DISTINCT tier FROM recorded ORDER BY tier")
    assert tiers == [(0,), (1,), (2,), (3,), (4,)]


def test_an_empty_database_is_whole(store):
    report = store.upkeep.check()
    assert (report.windows, report.problems) == (0, ())


def numbered(store, traffic, numbers, meta=None, **changes):
    meta = meta or traffic.meta()
    windows = [moved(traffic.random_window(n), NOW + n * DAY // 50, **changes) for n in numbers]
    store.ingest(meta, windows, batch=store.next_batch())
    return meta


def test_windows_that_never_came_are_told_and_no_damage(store, traffic):
    numbered(store, traffic, range(4))
    numbered(store, traffic, (0, 1, 2, 7, 8, 10))
    numbered(store, traffic, (1,))
    report = store.upkeep.check()
    assert report.whole
    assert report.lost_windows == 6
    assert report.gaps == (
        "process 2 lacks 5: windows 3 to 6, 9",
        "process 3 lacks 1: windows 0",
    )


def test_gaps_stay_told_when_they_are_folded(store, traffic):
    numbered(store, traffic, (0, 1, 2, 7, 8))
    fold(store, 0, 0, 0, 0)
    assert [row[0] for row in rows(store, "SELECT COUNT(*) FROM recorded")] == [1]
    report = store.upkeep.check()
    assert (report.lost_windows, report.problems) == (4, ())
    assert report.gaps == ("process 1 lacks 4, inside rollups",)


def test_a_coarse_window_stands_for_what_was_before_it(store, traffic):
    meta = numbered(store, traffic, (0, 1))
    numbered(store, traffic, (7,), meta, flags=WindowFlag.COARSE)
    numbered(store, traffic, (8, 9), meta)
    assert store.upkeep.check().gaps == ()
    numbered(store, traffic, (12,), meta)
    assert store.upkeep.check().gaps == ("process 1 lacks 2: windows 10 to 11",)


def test_a_figure_changed_before_folding_is_not_seen(store, traffic):
    """What the documentation says that it cannot see."""
    numbered(store, traffic, range(3))
    rows(store, "UPDATE windows SET seen = seen + 1 WHERE number = 1")
    assert store.upkeep.check().whole


DAMAGE = {
    "a window twice": (
        "INSERT INTO windows SELECT w.* REPLACE (r.number AS number) FROM windows AS w, rollups "
        "AS r WHERE w.process_id = r.process_id AND w.number = 16 AND r.tier = 1",
        "there twice",
    ),
    "a window inside a rollup": (
        "INSERT INTO windows SELECT w.* REPLACE (1 AS number) FROM windows AS w WHERE number = 16",
        "inside a rollup",
    ),
    "more windows than numbers": (
        "UPDATE rollups SET windows = windows + 1 WHERE tier = 4 AND process_id = 1",
        "more windows than numbers",
    ),
    "a head gone": ("DELETE FROM windows WHERE number = 17", "lack their process"),
    "a point gone": ("DELETE FROM process_points WHERE position = 1", "lack their process"),
    "a count below 0": ("UPDATE point_windows SET rows = -1 WHERE number = 17", "cannot be"),
    "more exceedances than units": (
        "UPDATE rollup_points SET exceedances = units + 1 WHERE tier = 2",
        "cannot be",
    ),
    "cells out of order": (
        "UPDATE point_windows SET cells = LIST_REVERSE(cells) WHERE number = 17",
        "sketches that are damaged",
    ),
    "a cell off the grid": (
        "UPDATE point_windows SET cells = [{'cell': 60000, 'count': 1}] WHERE number = 17",
        "sketches that are damaged",
    ),
    "a cell without a count": (
        "UPDATE point_windows SET cells = [{'cell': 6, 'count': 0}] WHERE number = 17",
        "sketches that are damaged",
    ),
    "a rollup of requests changed": (
        "UPDATE rollups SET seen = seen + 1 WHERE tier = 3 AND process_id = 1",
        "days (tier 3)",
    ),
    "a rollup of points changed": (
        "UPDATE rollup_points SET elements = elements + 1 WHERE tier = 3 AND process_id = 1",
        "ledger of moves",
    ),
    "a rolled up sketch changed": (
        "UPDATE rollup_points SET cells = cells[:-2] WHERE tier = 1 AND process_id = 1",
        "minutes (tier 1)",
    ),
    "a rollup gone": (
        "DELETE FROM rollup_points WHERE tier = 3 AND process_id = 1",
        "the looks of 2 points differ",
    ),
    "looks changed": ("UPDATE looks SET units = units + 1", "the looks of 1 models differ"),
    "a migration gone": ("DELETE FROM schema_migrations WHERE number = 3", "migration 3"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_seen(filled, name):
    sql, said = DAMAGE[name]
    rows(filled, sql)
    report = filled.upkeep.check()
    assert not report.whole
    assert said in " | ".join(report.problems)


def test_a_ledger_of_an_earlier_version_says_nothing(filled):
    rows(filled, "UPDATE folds SET windows = NULL, seen = NULL, elements = NULL, cells = NULL")
    assert filled.upkeep.check().whole


def test_compact_gives_disk_back_and_changes_nothing(filled, traffic):
    before = filled.totals("net", "").requests
    sizes = filled.upkeep.compact()
    assert sizes[1] == filled.path.stat().st_size
    assert (filled.totals("net", "").requests == before).all()
    assert filled.upkeep.check().whole


def test_a_file_whose_blocks_are_damaged_is_told_and_not_read(filled):
    rows(filled, "CHECKPOINT")
    filled.close()
    blob = bytearray(filled.path.read_bytes())
    for at in range(3 * 4096, len(blob), 700):
        blob[at] ^= 0x55
    filled.path.write_bytes(bytes(blob))
    with pytest.raises(StoreError), Store.open(filled.path) as store:
        store.upkeep.check()
