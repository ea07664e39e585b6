"""Folding windows into rollups: counts stay the same integers, spent evidence stays spent."""

from datetime import timedelta
from functools import reduce

import duckdb
import numpy as np
import pytest

from calidrift_agent._state import SegmentCount, Window
from calidrift_agent._vocabulary import WindowFlag
from calidrift_analyzer.errors import ConfigurationError, StoreError
from calidrift_analyzer.records import AlarmRow
from calidrift_analyzer.store import Landmarks, Retention, Store, StoreLostError, _writing
from calidrift_analyzer.store import _compaction as compaction_module
from calidrift_analyzer.store import _retention as retention_module
from calidrift_analyzer.store import _store as store_module
from calidrift_analyzer.store._connection import Connection

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 1_800_000_000 * SECOND
COUNTS = ("windows", "coarse_windows", "processes", "first_ns", "last_ns")


def none(history, profile):
    return Landmarks()


def keep(windows, minutes=None, hours=None, days=None, **options):
    """Retention in hours."""
    spans = [windows, minutes, hours, days]
    for place in range(1, 4):
        spans[place] = 10_000_000 if spans[place] is None else spans[place]
    names = ("windows", "minutes", "hours", "days")
    return Retention(
        **{name: timedelta(hours=span) for name, span in zip(names, spans, strict=True)}, **options
    )


@pytest.fixture
def clock(monkeypatch):
    """The analyzer's clock, for arrivals."""

    class Clock:
        now = NOW

        def time_ns(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(_writing, "time", clock)
    return clock


def arrive(store, clock, traffic, metas, hours, every=0.5, points=2):
    """Every half hour a collect run brings four windows of each process."""
    numbers = dict.fromkeys((meta.process for meta in metas), 0)
    windows = {meta.process: [] for meta in metas}
    for step in range(int(hours / every)):
        clock.now = NOW + int(step * every * HOUR)
        batch = store.next_batch()
        for meta in metas:
            first = numbers[meta.process]
            found = [
                moved(traffic.random_window(n, points), clock.now + (n - first) * 20 * SECOND)
                for n in range(first, first + 4)
            ]
            numbers[meta.process] += 4
            windows[meta.process] += found
            store.ingest(meta, found, batch=batch)
    clock.now = NOW + int(hours * HOUR)
    return windows


def moved(window, start_ns, **changes):
    fields = {name: getattr(window, name) for name in window.__slots__}
    times = {"start_ns": start_ns, "end_ns": start_ns + 20 * SECOND}
    return Window(**{**fields, **times, **changes})


def assert_same_totals(store, windows, before=None):
    whole = reduce(Window.plus, [one for found in windows.values() for one in found])
    totals = store.totals("net", "")
    np.testing.assert_array_equal(totals.requests, whole.requests)
    for row, point in enumerate(totals.points):
        np.testing.assert_array_equal(point.counts, whole.counts[row])
        np.testing.assert_array_equal(point.cells, whole.cells[row])
        np.testing.assert_allclose(point.values, whole.values[row], rtol=1e-12)
        assert (point.values[:2] == whole.values[row, :2]).all(), "extremes are exact"
    assert {(one.name, one.units, one.covered) for one in totals.segments} == {
        (one.name, one.units, one.covered) for one in whole.segments
    }
    if before is not None:
        assert [getattr(totals, name) for name in COUNTS] == [
            getattr(before, name) for name in COUNTS
        ]


def rows(store, sql):
    return store._connection.rows(sql)


LADDERS = {
    "nothing": keep(1_000),
    "minutes": keep(5),
    "hours": keep(5, 5),
    "days": keep(5, 5, 5),
    "life": keep(5, 5, 5, 5),
    "all of them": keep(5, 20, 30, 40),
}


@pytest.mark.parametrize("ladder", LADDERS)
def test_totals_sums_and_last_numbers_stay(store, clock, traffic, ladder):
    metas = [traffic.meta() for _ in range(2)]
    windows = arrive(store, clock, traffic, metas, 72 if ladder == "all of them" else 15, every=3)
    before = store.totals("net", "")
    known = [(store.last_number(meta), store.sums(meta)) for meta in metas]
    batch, observed = store.next_batch(), store.observed()
    report = store.retain(LADDERS[ladder], none, now_ns=clock.now)
    assert (report.folded > 0) == (ladder != "nothing")
    assert_same_totals(store, windows, before)
    for meta, (number, sums) in zip(metas, known, strict=True):
        after = store.sums(meta)
        assert store.last_number(meta) == number == after.number
        for name in ("requests", "counts", "cells"):
            np.testing.assert_array_equal(getattr(after, name), getattr(sums, name))
        assert set(after.segments) == set(sums.segments)
        assert (after.start_ns, after.end_ns, after.flags) == (
            sums.start_ns,
            sums.end_ns,
            sums.flags,
        )
        assert store.ingest(meta, windows[meta.process], batch=99) == 0
    assert (store.next_batch(), store.observed()) == (batch, observed)
    again = store.retain(LADDERS[ladder], none, now_ns=clock.now)
    assert (again.folded, again.rollups) == (0, 0)
    assert_same_totals(store, windows, before)


@pytest.mark.slow
def test_each_tier_holds_one_row_per_span(store, clock, traffic):
    meta = traffic.meta()
    arrive(store, clock, traffic, [meta], 120, every=3)
    store.retain(keep(12, 40, 80, 100), none, now_ns=clock.now)
    found = rows(
        store,
        "SELECT tier, COUNT(*), MIN(windows), MAX(windows), SUM(windows) FROM recorded "
        "GROUP BY tier ORDER BY tier",
    )
    assert [row[0] for row in found] == [0, 1, 2, 3, 4]
    by_tier = {int(row[0]): row for row in found}
    assert by_tier[1][3] == 3, "a minute holds three windows of 20 seconds"
    assert by_tier[2][3] == 4, "an hour holds the one run that came in it"
    assert by_tier[3][3] == 8 * 4
    assert by_tier[4][1] == 1, "one row for life"
    assert sum(row[4] for row in found) == 160
    ledger = rows(store, "SELECT tier, SUM(records), SUM(rollups) FROM folds GROUP BY 1 ORDER BY 1")
    assert [row[0] for row in ledger] == [1, 2, 3, 4]
    assert all(records >= rollups > 0 for _, records, rollups in ledger)
    first, last = rows(store, "SELECT MIN(first), MAX(number) FROM recorded WHERE tier = 4")[0]
    assert first == 0
    assert last < rows(store, "SELECT MIN(first) FROM recorded WHERE tier = 3")[0][0]


def test_the_rest_of_an_overrun_ring_is_still_exact(store, clock, traffic):
    """What a cumulative state file is compared with survives every tier."""
    meta = traffic.meta()
    windows = arrive(store, clock, traffic, [meta], 30, every=3)[meta.process]
    store.retain(LADDERS["life"], none, now_ns=clock.now)
    lost = [moved(traffic.random_window(len(windows) + n), clock.now) for n in range(3)]
    total = reduce(Window.plus, windows + lost)
    rest = total.minus(store.sums(meta))
    np.testing.assert_array_equal(rest.cells, reduce(Window.plus, lost).cells)
    np.testing.assert_array_equal(rest.counts, reduce(Window.plus, lost).counts)


def test_coarse_windows_are_counted_through_every_tier(store, clock, traffic):
    meta = traffic.meta()
    flags = WindowFlag.COARSE | WindowFlag.EARLY
    found = [
        moved(traffic.random_window(n), NOW + n * DAY, flags=flags if n % 2 else WindowFlag.NONE)
        for n in range(6)
    ]
    store.ingest(meta, found, batch=1)
    assert store.totals("net", "").coarse_windows == 3
    for ladder in (keep(1), keep(1, 1), keep(1, 1, 1), keep(1, 1, 1, 1)):
        store.retain(ladder, none, now_ns=NOW + 30 * DAY)
        totals = store.totals("net", "")
        assert (totals.windows, totals.coarse_windows) == (6, 3)
    assert store.sums(meta).flags == flags


def test_an_empty_window_folds_too(store, clock, traffic):
    meta = traffic.meta()
    store.ingest(meta, [Window.empty(2, number=n, at_ns=NOW) for n in range(3)], batch=1)
    report = store.retain(LADDERS["life"], none, now_ns=NOW + 30 * DAY)
    assert report.folded > 0
    totals = store.totals("net", "")
    assert totals.windows == 3
    assert not totals.points[0].counts.any()
    assert store.last_number(meta) == 2


class TestHistory:
    def test_looks_are_joined_and_cumulated_counts_run_on(self, store, clock, traffic):
        metas = [traffic.meta(), traffic.meta()]
        arrive(store, clock, traffic, metas, 12)
        before = store.history("net", "")
        store.retain(keep(5), none, now_ns=clock.now)
        after = store.history("net", "")
        assert after.end_ns.size < before.end_ns.size / 2
        assert after.points == before.points
        at = np.searchsorted(np.cumsum(before.seen), np.cumsum(after.seen))
        for name in ("seen", "request_units", "request_covered", "units", "exceedances"):
            whole, joined = getattr(before, name), getattr(after, name)
            np.testing.assert_array_equal(np.cumsum(whole, 0)[at], np.cumsum(joined, 0))
        np.testing.assert_array_equal(before.end_ns[at], after.end_ns)
        fresh = int((before.end_ns > clock.now - 5 * HOUR + 80 * SECOND).sum())
        np.testing.assert_array_equal(before.units[-fresh:], after.units[-fresh:])

    def test_landmarks_stay(self, store, clock, traffic):
        arrive(store, clock, traffic, [traffic.meta(), traffic.meta()], 12)
        before = store.history("net", "")
        wanted = (0, 5, 6, 37, 50)
        store.retain(keep(5), lambda *_: Landmarks(looks=wanted), now_ns=clock.now)
        after = store.history("net", "")
        totals = [tuple(row) for row in np.cumsum(after.units, 0)]
        for look in wanted:
            at = totals.index(tuple(before.units[: look + 1].sum(0)))
            assert after.end_ns[at] == before.end_ns[look]

    def test_looks_that_were_joined_never_change_again(self, store, clock, traffic):
        meta = traffic.meta()
        arrive(store, clock, traffic, [meta], 12)
        store.retain(keep(8), none, now_ns=clock.now)
        first = store.history("net", "")
        joined = rows(store, "SELECT COUNT(*) FROM looks")[0][0]
        store.retain(keep(5, 5, 5, 5), none, now_ns=clock.now)
        second = store.history("net", "")
        np.testing.assert_array_equal(first.units[:joined], second.units[:joined])
        np.testing.assert_array_equal(first.end_ns[:joined], second.end_ns[:joined])

    def test_segments_keep_the_order_in_which_they_appeared(self, store, clock, traffic):
        meta = traffic.meta()
        names = ["zebra", "ape", "mole", "bee"]
        for n, name in enumerate(names):
            window = moved(
                traffic.random_window(n),
                NOW + n * 20 * SECOND,
                segments=(SegmentCount(name, 4, 3), SegmentCount(names[0], 1, 1)),
            )
            store.ingest(meta, [window], batch=n + 1)
        before = store.history("net", "").segments
        store.retain(keep(1), none, now_ns=NOW + DAY)
        after = store.history("net", "").segments
        assert [one.name for one in after] == [one.name for one in before] == names
        assert [one.units.sum() for one in after] == [one.units.sum() for one in before]
        assert store.history("net", "").end_ns.size == 1

    def test_a_window_that_comes_late_is_looked_at_last(self, store, clock, traffic):
        early, late = traffic.meta(), traffic.meta()
        arrive(store, clock, traffic, [early], 12)
        store.retain(keep(1), none, now_ns=clock.now)
        before = store.history("net", "")
        store.ingest(late, [moved(traffic.random_window(0), NOW)], batch=store.next_batch())
        after = store.history("net", "")
        np.testing.assert_array_equal(after.units[:-1], before.units)
        assert after.end_ns[-1] < after.end_ns[-2]


class TestWhatIsReferredTo:
    def test_no_rollup_reaches_across_a_moment(self, store, clock, traffic):
        meta = traffic.meta()
        windows = arrive(store, clock, traffic, [meta], 30, every=2)[meta.process]
        moment = windows[21].end_ns  # inside a minute, an hour and a day
        expected = store.totals("net", "", since_ns=moment)
        for ladder in (keep(5), keep(5, 5), keep(5, 5, 5), keep(5, 5, 5, 5)):
            store.retain(ladder, lambda *_: Landmarks((), (moment,)), now_ns=clock.now)
            found = store.totals("net", "", since_ns=moment)
            np.testing.assert_array_equal(found.requests, expected.requests)
            np.testing.assert_array_equal(found.points[0].cells, expected.points[0].cells)
            assert found.windows == expected.windows

    def test_without_the_moment_the_sum_is_coarser(self, store, clock, traffic):
        """The test above can fail."""
        meta = traffic.meta()
        windows = arrive(store, clock, traffic, [meta], 30, every=2)[meta.process]
        moment = windows[21].end_ns
        expected = store.totals("net", "", since_ns=moment).windows
        store.retain(keep(5, 5, 5, 5), none, now_ns=clock.now)
        assert store.totals("net", "", since_ns=moment).windows > expected

    def test_the_look_of_a_recorded_alarm_stays_whoever_asks(self, store, clock, traffic):
        windows = arrive(store, clock, traffic, [traffic.meta()], 12)
        look = next(iter(windows.values()))[5]
        alarm = AlarmRow(
            model="net", profile="", point="a:input", end_ns=look.end_ns, units=1, observed=1,
            served=1, log10_evidence=5.0, log10_threshold=2.0,
        )  # fmt: skip
        rows(
            store,
            f"INSERT INTO alarms VALUES ('net', '', 'a:input', make_timestamp_ns({look.end_ns}), "
            "1, 1, 1, 5.0, 2.0)",
        )
        store.retain(keep(5), none, now_ns=clock.now)
        assert look.end_ns in store.history("net", "").end_ns
        assert store.outcomes.alarms("net", "") == (alarm,)

    def test_repeated_assessments_go_and_changes_stay(self, store, clock):
        for n, verdict in enumerate("aabbbab"):
            rows(
                store,
                "INSERT INTO assessments (model, profile, created, verdict, document) VALUES "
                f"('net', '', make_timestamp_ns({NOW + n}), '{verdict}', '{n}')",
            )
        store.retain(keep(1, 1), none, now_ns=NOW + DAY)
        kept = [row.document for row in store.outcomes.assessments("net")]
        assert kept == ["6", "5", "2", "0"]


class TestClocks:
    def test_the_clocks_of_agents_step_as_they_like(self, store, clock, traffic):
        """One process is years ahead, one steps back: nothing waits for them, nothing is lost."""
        ahead, behind = traffic.meta(), traffic.meta()
        windows = {ahead.process: [], behind.process: []}
        for n in range(40):
            clock.now = NOW + n * HOUR
            steps = {ahead: 3_650 * DAY if n > 5 else 0, behind: -3_650 * DAY if n > 9 else 0}
            batch = store.next_batch()
            for meta, step in steps.items():
                start = clock.now + step
                if windows[meta.process]:  # an agent never goes back behind what it has closed
                    start = max(start, windows[meta.process][-1].end_ns)
                window = moved(traffic.random_window(n), start)
                store.ingest(meta, [window], batch=batch)
                windows[meta.process].append(window)
        before = store.totals("net", "")
        store.retain(keep(5, 10, 10, 10), none, now_ns=clock.now)
        assert_same_totals(store, windows, before)
        left = rows(store, "SELECT COUNT(*) FROM windows")[0][0]
        assert left <= 2 * 7, "age counts from arrival"

    def test_the_clock_of_the_analyzer_may_step_back(self, store, clock, traffic):
        meta = traffic.meta()
        store.ingest(meta, [traffic.random_window(0)], batch=1)
        clock.now = NOW - 900 * DAY
        store.ingest(meta, [traffic.random_window(1)], batch=2)
        arrived = rows(store, "SELECT epoch_ns(arrived) FROM batches ORDER BY batch")
        assert arrived == [(NOW,), (NOW,)]
        before = store.history("net", "")
        store.retain(keep(5), none, now_ns=clock.now)
        np.testing.assert_array_equal(store.history("net", "").units, before.units)


def bulk(store, clock, traffic):
    """A file of 20 MB: 600 windows of 100 points, the same cells in all of them."""
    meta = traffic.meta(points=tuple(f"p{n}:input" for n in range(100)))
    window = traffic.random_window(0, 100)
    used = window.cells > 0
    for n in range(30):
        cells = used * traffic.rng.integers(1, 2**40, used.shape)
        store.ingest(meta, [moved(window, NOW + n * 20 * SECOND, number=n, cells=cells)], batch=1)
    for name in ("windows", "point_windows"):
        rows(
            store,
            f"INSERT INTO {name} SELECT w.* REPLACE (number + 30 * k AS number) "
            f"FROM {name} AS w, range(1, 20) AS t(k)",
        )
    rows(store, "CHECKPOINT")
    return meta, store.totals("net", "").points[7].cells


class TestDisk:
    def test_the_file_shrinks_and_goes_on(self, store, clock, traffic):
        meta, before = bulk(store, clock, traffic)
        report = store.retain(keep(1, 1, 1), none, now_ns=clock.now + 9 * DAY)
        assert report.bytes_after < report.bytes_before / 2
        assert report.bytes_after == store.path.stat().st_size
        assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]
        np.testing.assert_array_equal(store.totals("net", "").points[7].cells, before)
        assert store.ingest(meta, [traffic.random_window(10_000, 100)], batch=9) == 1
        store.close()
        with Store.open(store.path) as again:
            assert again.last_number(meta) == 10_000
            tags = rows(again, "SELECT tags FROM duckdb_databases() WHERE NOT internal")[0][0]
            assert tags["storage_version"].startswith("v1.5.0")

    def test_numbers_of_outcomes_go_on_after_a_compaction(self, store):
        add = "INSERT INTO versions (model, version, action, created, profile, document) VALUES "
        for n in range(3):
            rows(store, f"{add} ('net', 'v{n}', 'promoted', TIMESTAMP '2030-01-01', 'p', '')")
        compaction_module.compact(store._connection)
        rows(store, f"{add} ('net', 'v3', 'promoted', TIMESTAMP '2030-01-01', 'p', '')")
        assert [row.version for row in store.outcomes.versions("net")] == ["v3", "v2", "v1", "v0"]

    def test_a_limit_shortens_the_spans_until_it_fits(self, store, clock, traffic):
        meta, before = bulk(store, clock, traffic)
        limit = store.path.stat().st_size // 2
        report = store.retain(
            keep(1_000, 1_000, 1_000, 1_000, max_bytes=limit), none, now_ns=clock.now + 9 * DAY
        )
        assert report.fits
        assert report.bytes_after <= limit
        np.testing.assert_array_equal(store.totals("net", "").points[7].cells, before)
        assert store.sums(meta).cells[7].sum() == before.sum()

    def test_a_limit_that_cannot_be_met_is_told_and_costs_no_count(self, store, clock, traffic):
        windows = arrive(store, clock, traffic, [traffic.meta()], 12)
        report = store.retain(
            keep(1_000, 1_000, 1_000, 1_000, max_bytes=1_000), none, now_ns=clock.now
        )
        assert not report.fits
        assert_same_totals(store, windows)

    def test_a_copy_that_cannot_be_put_in_place_changes_nothing(self, store, clock, traffic):
        windows = arrive(store, clock, traffic, [traffic.meta()], 3)

        def refuse(copy, path):
            raise PermissionError(13, "Permission denied")

        with pytest.raises(StoreError, match="stays as it was"):
            compaction_module.compact(store._connection, refuse)
        assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]
        assert_same_totals(store, windows)

    def test_what_a_killed_compaction_left_is_swept_by_the_next(self, store):
        left = store.path.with_name(store.path.name + ".compacting")
        left.write_bytes(b"half")
        compaction_module.compact(store._connection)
        assert not left.exists()


class TestFaults:
    def test_a_fatal_error_while_folding_is_made_up_for(self, store, clock, traffic, monkeypatch):
        monkeypatch.setattr(retention_module, "_PORTION", 4)
        windows = arrive(store, clock, traffic, [traffic.meta()], 10, every=1)
        before = store.totals("net", "")
        original, state = Connection.rows, {"commits": 0}

        def dying(self, sql, parameters=()):
            found = original(self, sql, parameters)
            state["commits"] += sql == "COMMIT"
            if sql == "COMMIT" and state["commits"] == 3:
                with self._guard():
                    raise duckdb.FatalException("COMMIT succeeded and is durable, but")
            return found

        monkeypatch.setattr(Connection, "rows", dying)
        store.retain(keep(1, 1, 1), none, now_ns=clock.now)
        monkeypatch.undo()
        assert state["commits"] > 4
        assert_same_totals(store, windows, before)

    def test_fatal_twice_is_told(self, store, clock, traffic, monkeypatch):
        def dying(*_):
            raise StoreLostError("no space left")

        monkeypatch.setattr(store_module, "fold", dying)
        with pytest.raises(StoreLostError):
            store.retain(keep(1), none)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"windows": timedelta(days=40)}, "spans that grow"),
        ({"windows": timedelta(days=-1)}, "spans that grow"),
        ({"max_bytes": 0}, "above 0"),
    ],
)
def test_impossible_retentions_are_refused(changes, said):
    with pytest.raises(ConfigurationError, match=said):
        Retention(**changes)


def test_the_flag_in_the_view_is_that_of_the_vocabulary(store, traffic):
    for number, flag in enumerate(WindowFlag):
        store.ingest(traffic.meta(), [traffic.random_window(number, flags=flag)], batch=1)
    found = rows(store, "SELECT flags, coarse FROM recorded")
    assert {WindowFlag(flags) for flags, coarse in found if coarse} == {WindowFlag.COARSE}
