"""Merging archives: whatever either has seen, rolled up or lost, every window counts once."""

import subprocess
import sys
from datetime import timedelta
from functools import reduce

import duckdb
import numpy as np
import pytest

from calidrift_agent._state import SegmentCount, Window
from calidrift_agent._vocabulary import CaptureKind, WindowFlag
from calidrift_analyzer.errors import StoreBusyError, StoreError, StoreVersionError
from calidrift_analyzer.records import CaptureEntry, ValidationRow, VersionRow
from calidrift_analyzer.store import (
    Landmarks,
    Retention,
    Store,
    StoreLostError,
    _migrations,
    _writing,
)
from calidrift_analyzer.store import _coverage as coverage_module
from calidrift_analyzer.store import _merging as merging_module
from calidrift_analyzer.store import _upkeep as upkeep_module
from calidrift_analyzer.store._coverage import Plan, Record, plan
from calidrift_analyzer.store._sql import migrations

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 1_800_000_000 * SECOND
LADDERS = ((0.2, 0.5, 1, 2), (0.2, 3, 5, 8), (1, 1, 1, 1), (2, 5, 30, 60))
"""Days that windows, minutes, hours and days stay."""


@pytest.fixture
def make(tmp_path):
    """Opens databases by name, and closes them in the end."""
    opened = {}

    def open_store(name):
        if name not in opened:
            opened[name] = Store.open(tmp_path / f"{name}.duckdb")
        return opened[name]

    yield open_store
    for store in opened.values():
        store.close()


def merge(into, other):
    """Merge two open stores: the other one is closed meanwhile, and opened again."""
    other.close()
    report = into.upkeep.merge(other.path)
    other.__init__(Store.open(other.path)._connection)
    return report


def keep(days):
    names = ("windows", "minutes", "hours", "days")
    return Retention(
        **{name: timedelta(days=n) for name, n in zip(names, days, strict=True)}, max_bytes=None
    )


def changed(window, **changes):
    fields = {name: getattr(window, name) for name in window.__slots__}
    return Window(**{**fields, **changes})


class Fleet:
    """The truth: what processes counted, and readers that come late, lose rings and roll up."""

    def __init__(self, traffic, seed, processes=2, windows=24):
        self.rng = np.random.default_rng(seed)
        self.metas = [traffic.meta() for _ in range(processes)]
        base = traffic.random_window(0)
        self.truth = {
            meta.process: [self._window(base, number) for number in range(windows)]
            for meta in self.metas
        }

    def _window(self, base, number):
        start = NOW + number * 2 * HOUR + int(self.rng.integers(HOUR))
        name = ("day", "night")[number % 2]
        return changed(
            base,
            number=number,
            start_ns=start,
            end_ns=start + 10 * SECOND,
            cells=base.cells * int(self.rng.integers(1, 9)),
            counts=base.counts * int(self.rng.integers(1, 9)),
            requests=base.requests * int(self.rng.integers(1, 9)),
            segments=(SegmentCount(name, 4 + number, 3),),
        )

    def read(self, store, meta, until):
        """A collect run when the process has closed `until` windows; the ring keeps six."""
        known = store.last_number(meta) + 1
        windows = self.truth[meta.process][known:until]
        if len(windows) > 6 or (len(windows) > 3 and self.rng.random() < 0.4):
            # The cumulative state makes up for what the ring has lost; of these, one was kept.
            lost = len(windows) - int(self.rng.integers(1, 4))
            kept = windows[int(self.rng.integers(lost - 1))] if lost > 2 else None
            gone = [one for one in windows[:lost] if one is not kept]
            coarse = changed(reduce(Window.plus, gone), flags=WindowFlag.COARSE)
            windows = [*([] if kept is None else [kept]), coarse, *windows[lost:]]
        if windows:
            store.ingest(meta, windows, batch=store.next_batch())

    def fold(self, store, clock):
        ladder = keep(LADDERS[int(self.rng.integers(len(LADDERS)))])
        store.retain(ladder, lambda *_: Landmarks(range(0, 99, 5)), now_ns=clock.now)

    def assert_seen(self, store, until):
        """Requests of each process, and nothing else: what is looked at after every step."""
        found = store._connection.rows(
            "SELECT p.process, MAX(r.number), SUM(r.seen) FROM recorded AS r "
            "JOIN processes AS p USING (process_id) GROUP BY p.process"
        )
        wanted = [
            (process, end - 1, sum(int(one.requests[0]) for one in self.truth[process][:end]))
            for process, end in until.items()
            if end
        ]
        assert sorted(found) == sorted(wanted)

    def assert_stored(self, store, until):
        """The store holds the first `until` windows of each process, whatever came over."""
        windows = [
            one for meta in self.metas for one in self.truth[meta.process][: until[meta.process]]
        ]
        if not windows:
            return
        whole = reduce(Window.plus, windows)
        totals, history = store.totals("net", ""), store.history("net", "")
        np.testing.assert_array_equal(totals.requests, whole.requests)
        for row, point in enumerate(totals.points):
            np.testing.assert_array_equal(point.counts, whole.counts[row])
            np.testing.assert_array_equal(point.cells, whole.cells[row])
            assert (point.values[:2] == whole.values[row, :2]).all(), "extremes are exact"
            np.testing.assert_allclose(point.values, whole.values[row], rtol=1e-9)
        found = {one.name: (one.units, one.covered) for one in totals.segments}
        assert found == {one.name: (one.units, one.covered) for one in whole.segments}
        np.testing.assert_array_equal(history.units.sum(0), whole.counts[:, 0])
        assert history.seen.sum() == whole.requests[0]
        assert totals.windows <= len(windows)
        for meta in self.metas:
            assert store.last_number(meta) == until[meta.process] - 1
            assert store.sums(meta).requests[0] == sum(
                one.requests[0] for one in self.truth[meta.process][: until[meta.process]]
            )


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = NOW + 30 * DAY

        def time_ns(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(_writing, "time", clock)
    monkeypatch.setattr(merging_module, "time", clock)
    return clock


def live(fleet, stores, clock, steps):
    """A random life of several archives; gives how far each of them is by process."""
    until = {name: dict.fromkeys((meta.process for meta in fleet.metas), 0) for name in stores}
    now = dict.fromkeys((meta.process for meta in fleet.metas), 0)
    names = list(stores)
    for _ in range(steps):
        clock.now += DAY // 3
        for process, windows in fleet.truth.items():
            now[process] = min(len(windows), now[process] + int(fleet.rng.integers(5)))
        name = names[int(fleet.rng.integers(len(names)))]
        move = fleet.rng.random()
        if move < 0.55:
            for meta in fleet.metas:
                if fleet.rng.random() < 0.8:
                    fleet.read(stores[name], meta, now[meta.process])
                    until[name][meta.process] = now[meta.process]
        elif move < 0.8:
            fleet.fold(stores[name], clock)
        else:
            other = names[(names.index(name) + 1) % len(names)]
            report = merge(stores[name], stores[other])
            assert report.unclear == ()
            for process in now:
                until[name][process] = max(until[name][process], until[other][process])
        fleet.assert_seen(stores[name], until[name])
    return until


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_lives_of_three_archives_hold_what_one_that_saw_everything_holds(
    make, traffic, clock, seed
):
    fleet = Fleet(traffic, seed)
    stores = {name: make(name) for name in "abc"}
    until = live(fleet, stores, clock, 20)
    far = {process: max(until[name][process] for name in stores) for process in until["a"]}
    for name, other in ("ab", "ac", "ba", "ca", "ab"):
        assert merge(stores[name], stores[other]).unclear == ()
    for name in stores:
        fleet.assert_stored(stores[name], far)
    again = merge(stores["a"], stores["c"])
    assert (again.records, again.differences, again.rows, again.processes) == (0, 0, 0, 0)
    fleet.fold(stores["a"], clock)
    fleet.assert_stored(stores["a"], far)


class Paper:
    """An archive of one process on paper: records, and which windows are in each of them."""

    def __init__(self):
        self.rows = []

    @property
    def windows(self):
        return set().union(*(inside for _, inside in self.rows))

    @property
    def records(self):
        return [one for one, _ in self.rows]

    def add(self, number, inside, coarse):
        assert not inside & self.windows, "a window counts twice"
        held = 1 if coarse else len(inside)
        first = number if coarse else min(inside)
        self.rows.append((Record(number, first, held, int(coarse)), frozenset(inside)))
        self.rows.sort(key=lambda row: row[0].number)

    def read(self, rng, until):
        """Windows up to `until`; what the ring has lost comes in one coarse window."""
        missing = sorted(set(range(until)) - self.windows)
        fresh = [number for number in missing if number >= self.last + 1]
        if len(fresh) > 2 and rng.random() < 0.5:
            kept = {number for number in fresh if rng.random() < 0.4} | {fresh[-1]}
            lost = sorted(set(missing) - kept)
            if lost:
                for number in sorted(kept):
                    self.add(number, {number}, False)
                self.add(lost[-1], set(lost), True)
                return
        for number in fresh:
            self.add(number, {number}, False)

    @property
    def last(self):
        return max((one.number for one, _ in self.rows), default=-1)

    def lose(self, rng, until):
        """Windows of a dead process with damaged slots: some never come."""
        for number in range(self.last + 1, until):
            if rng.random() < 0.7 or number == until - 1:
                self.add(number, {number}, False)

    def fold(self, rng):
        """Neighbours become one row."""
        start = int(rng.integers(len(self.rows) + 1))
        part = self.rows[start : start + int(rng.integers(2, 7))]
        if len(part) < 2:
            return
        heads = [one for one, _ in part]
        row = Record(
            heads[-1].number,
            min(one.first for one in heads),
            sum(one.windows for one in heads),
            sum(one.coarse for one in heads),
        )
        inside = frozenset().union(*(windows for _, windows in part))
        self.rows[start : start + len(part)] = [(row, inside)]

    def merge(self, other):
        """As `_merging` does; gives whether something stayed there."""
        found = plan(self.records, other.records)
        if found.rest_through is not None:
            theirs = {n: inside for one, inside in other.rows for n in inside
                      if one.number <= found.rest_through}  # fmt: skip
            if not self.windows <= set(theirs):
                return True
            self.add(found.rest_through, set(theirs) - self.windows, True)
        inside = {one.number: (one, windows) for one, windows in other.rows}
        for number in found.numbers:
            one, windows = inside[number]
            assert not windows & self.windows, "a window counts twice"
            self.rows.append((one, windows))
        self.rows.sort(key=lambda row: row[0].number)
        numbers = [one.number for one in self.records]
        assert len(set(numbers)) == len(numbers), "a number is taken twice"
        return bool(found.unclear)


def test_thousands_of_histories_on_paper():
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        papers, now = [Paper() for _ in range(3)], 0
        for _ in range(12):
            now += int(rng.integers(5))
            paper, other = (papers[n] for n in rng.permutation(3)[:2])
            move = int(rng.integers(3))
            if move == 0:
                paper.read(rng, now)
            elif move == 1:
                paper.fold(rng)
            else:
                far = max(paper.last, other.last)
                assert not paper.merge(other)
                assert paper.windows == set(range(far + 1)), seed
            assert paper.windows == set(range(paper.last + 1)), seed


def test_thousands_of_histories_with_lost_windows_never_count_twice():
    gained = left = 0
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        papers = [Paper() for _ in range(2)]
        for paper in papers:
            paper.read(rng, int(rng.integers(6)))
            if rng.random() < 0.3:
                paper.fold(rng)
            paper.lose(rng, int(rng.integers(6, 12)))
            for _ in range(int(rng.integers(3))):
                paper.fold(rng)
        for paper, other in (papers, papers[::-1], papers):
            before = paper.windows
            left += paper.merge(other)
            assert before <= paper.windows <= before | other.windows
            gained += len(paper.windows - before)
    assert gained > 300
    assert left > 30


def test_the_comparison_can_fail(make, traffic, clock):
    fleet = Fleet(traffic, 0)
    store = make("a")
    for meta in fleet.metas:
        fleet.read(store, meta, 3)
    with pytest.raises(AssertionError):
        fleet.assert_stored(store, dict.fromkeys(fleet.truth, 4))


def test_into_an_empty_archive_everything_comes_once(make, traffic, clock):
    fleet = Fleet(traffic, 1)
    full, empty = make("full"), make("empty")
    for meta in fleet.metas:
        full.ingest(meta, fleet.truth[meta.process], batch=1)
    fleet.fold(full, clock)
    until = dict.fromkeys(fleet.truth, 24)
    first, again = merge(empty, full), merge(empty, full)
    assert (first.processes, first.differences, first.unclear) == (2, 0, ())
    assert first.records > 4
    assert (again.processes, again.records, again.rows) == (0, 0, 0)
    fleet.assert_stored(empty, until)
    assert empty.totals("net", "").windows == full.totals("net", "").windows == 48
    assert empty.totals("net", "").coarse_windows == 0


def test_the_end_of_one_inside_a_rollup_of_the_other_gives_the_difference(make, traffic, clock):
    fleet = Fleet(traffic, 2, processes=1)
    (meta,) = fleet.metas
    here, there = make("here"), make("there")
    here.ingest(meta, fleet.truth[meta.process][:9], batch=1)
    there.ingest(meta, fleet.truth[meta.process][:20], batch=1)
    there.retain(keep((0, 0, 0, 0)), lambda *_: Landmarks(), now_ns=clock.now + 9 * DAY)
    there.ingest(meta, fleet.truth[meta.process][20:], batch=2)
    report = merge(here, there)
    assert (report.differences, report.records) == (1, 4)
    fleet.assert_stored(here, {meta.process: 24})
    totals = here.totals("net", "")
    assert (totals.windows, totals.coarse_windows) == (24, 11)
    history = here.history("net", "")
    assert history.end_ns.size == 9 + 1 + 4
    assert merge(there, here).records == 0
    assert merge(here, there).differences == 0


def test_a_window_inside_a_coarse_one_does_not_count_twice(make, traffic, clock):
    """Number 6 lies in the ring, 4, 5 and 7 come as coarse 7: the end 6 is no end of a prefix."""
    fleet = Fleet(traffic, 3, processes=1)
    (meta,) = fleet.metas
    truth = fleet.truth[meta.process]
    here, there = make("here"), make("there")
    here.ingest(meta, truth[:7], batch=1)
    coarse = changed(reduce(Window.plus, [truth[4], truth[5], truth[7]]), flags=WindowFlag.COARSE)
    there.ingest(meta, [*truth[:4], truth[6], coarse, truth[8]], batch=1)
    assert merge(here, there).differences == 1
    fleet.assert_stored(here, {meta.process: 9})


def test_what_comes_over_is_looked_at_last(make, traffic, clock):
    fleet = Fleet(traffic, 4)
    here, there = make("here"), make("there")
    first, second = fleet.metas
    here.ingest(first, fleet.truth[first.process][:10], batch=1)
    there.ingest(second, fleet.truth[second.process][:10], batch=1)
    fleet.fold(there, clock)
    before = here.history("net", "")
    merge(here, there)
    after = here.history("net", "")
    np.testing.assert_array_equal(after.units[:10], before.units)
    np.testing.assert_array_equal(after.end_ns[:10], before.end_ns)


def test_the_look_of_an_alarm_that_came_over_stays(make, traffic, clock):
    fleet = Fleet(traffic, 7, processes=1)
    (meta,) = fleet.metas
    here, there = make("here"), make("there")
    there.ingest(meta, fleet.truth[meta.process][:12], batch=1)
    end_ns = fleet.truth[meta.process][5].end_ns
    there._connection.rows(
        f"INSERT INTO alarms VALUES ('net', '', 'a:input', make_timestamp_ns({end_ns}), "
        "1, 1, 1, 5.0, 2.0)"
    )
    merge(here, there)
    here.retain(keep((0, 0, 9_999, 9_999)), lambda *_: Landmarks(), now_ns=clock.now + 9 * DAY)
    history = here.history("net", "")
    assert history.end_ns.size == 2, "everything else was joined"
    assert end_ns in history.end_ns


class TestLostWindows:
    """Damaged slots of a process that died: nobody can make up for them but another archive."""

    @pytest.fixture
    def fleet(self, traffic):
        return Fleet(traffic, 5, processes=1)

    @pytest.mark.parametrize("folded", [False, True])
    def test_holes_are_filled(self, make, fleet, clock, folded):
        (meta,) = fleet.metas
        truth = fleet.truth[meta.process]
        here, there = make("here"), make("there")
        here.ingest(meta, [*truth[:3], *truth[6:]], batch=1)
        there.ingest(meta, truth[:7], batch=1)
        if folded:
            for store in (here, there):
                store.retain(keep((0, 9, 9, 9)), lambda *_: Landmarks(), now_ns=clock.now + DAY)
        assert merge(here, there).records == 3
        fleet.assert_stored(here, {meta.process: 24})
        assert merge(here, there).records == 0
        for days in ((0, 9, 9, 9), (0, 0, 9, 9), (0, 0, 0, 9), (0, 0, 0, 0)):
            here.retain(keep(days), lambda *_: Landmarks(), now_ns=clock.now + 20 * DAY)
            fleet.assert_stored(here, {meta.process: 24})
        assert merge(there, here).unclear == ()
        fleet.assert_stored(there, {meta.process: 24})

    def test_a_hole_that_a_life_was_made_of_gets_its_own_row(self, make, fleet, clock):
        (meta,) = fleet.metas
        truth = fleet.truth[meta.process]
        here, there = make("here"), make("there")
        here.ingest(meta, [*truth[:3], *truth[6:]], batch=1)
        days = keep((0, 0, 0, 9_999))
        here.retain(days, lambda *_: Landmarks(), now_ns=clock.now + 20 * DAY)
        there.ingest(meta, truth[:7], batch=1)
        merge(here, there)
        held = here.totals("net", "").windows
        here.retain(keep((0, 0, 0, 0)), lambda *_: Landmarks(), now_ns=clock.now + 60 * DAY)
        assert here.totals("net", "").windows == held

    def test_what_cannot_be_told_apart_stays_there_and_is_named(self, make, fleet, clock):
        (meta,) = fleet.metas
        truth = fleet.truth[meta.process]
        here, there = make("here"), make("there")
        here.ingest(meta, truth[:6], batch=1)
        there.ingest(meta, [*truth[:3], *truth[4:]], batch=1)
        there.retain(keep((0, 0, 0, 0)), lambda *_: Landmarks(), now_ns=clock.now + 20 * DAY)
        before = here.totals("net", "").requests
        report = merge(here, there)
        assert len(report.unclear) == 1
        assert meta.process in report.unclear[0]
        assert "lost windows" in report.unclear[0]
        np.testing.assert_array_equal(here.totals("net", "").requests, before)

    def test_a_coarse_sum_that_does_not_hold_what_is_here_is_refused(self, make, fleet, clock):
        (meta,) = fleet.metas
        truth = fleet.truth[meta.process]
        here, there = make("here"), make("there")
        here.ingest(meta, truth[:6], batch=1)
        there.ingest(meta, [changed(truth[9], flags=WindowFlag.COARSE)], batch=1)
        report = merge(here, there)
        assert "does not hold what is here" in report.unclear[0]
        fleet.assert_stored(here, {meta.process: 6})


def record(number, first=None, windows=None, coarse=0):
    first = number if first is None else first
    return Record(number, first, number - first + 1 if windows is None else windows, coarse)


@pytest.mark.parametrize(
    ("here", "there", "wanted"),
    [
        ([], [], Plan()),
        ([], [record(0), record(5, 1)], Plan(None, (0, 5))),
        ([record(5, 0)], [record(0), record(1)], Plan()),
        ([record(0), record(1)], [record(5, 0), record(6)], Plan(5, (6,))),
        ([record(5, 0)], [record(5, 0), record(9, 6)], Plan(None, (9,))),
        ([record(4)], [record(4), record(5)], Plan(None, (5,))),
        ([record(0), record(3)], [record(1), record(2)], Plan(None, (1, 2))),
        ([record(0), record(3)], [record(0), record(4, 1)], Plan(4, ())),
        ([record(0)], [record(9, 0, 7), record(10)], Plan(None, (10,), (9,))),
        ([record(6, 0, 6)], [record(6, 0)], Plan()),
    ],
    ids=range(10),
)
def test_plans(here, there, wanted):
    assert plan(here, there) == wanted


def test_the_ends_of_prefixes_decide(monkeypatch):
    """A planted error: an archive that takes every number for an end of a prefix counts twice."""
    here, there = [record(n) for n in range(7)], [record(3, 0), record(6), record(7, 7, 1, 1)]
    assert plan(here, there) == Plan(7, ())
    monkeypatch.setattr(coverage_module, "_cover", _careless(coverage_module._cover))
    assert plan(here, there) == Plan(None, (7,))


def _careless(cover):
    def careless(records):
        found = cover(records)
        found.ends = [-1, *(one.number for one in records)]
        return found

    return careless


class TestOtherRows:
    def test_decisions_come_in_the_order_of_time_without_doubles(self, make, clock):
        here, there = make("here"), make("there")
        for n, store in enumerate((here, there, here, there, there)):
            for outcomes in (store.outcomes,):
                outcomes.record_version(
                    VersionRow(model="net", version=f"v{n}", action="promoted", created_ns=NOW + n,
                               profile="p", document="{}")
                )  # fmt: skip
                outcomes.record_validation(
                    ValidationRow(model="net", candidate=f"c{n}", created_ns=NOW + n,
                                  accepted=True, document="{}")
                )  # fmt: skip
        assert merge(here, there).rows == 6
        assert [row.version for row in here.outcomes.versions("net")] == ["v4", "v3", "v2", "v1",
                                                                          "v0"]  # fmt: skip
        assert [row.candidate[1] for row in here.outcomes.validations("net")] == list("43210")
        assert merge(here, there).rows == 0
        assert merge(there, here).rows == 4
        assert here.outcomes.versions("net") == there.outcomes.versions("net")
        row = VersionRow(model="net", version="v5", action="rolled_back", created_ns=NOW + 9,
                         profile="p", document="{}")  # fmt: skip
        here.outcomes.record_version(row)
        assert here.outcomes.versions("net")[0] == row, "numbers of new rows go on"

    def test_a_clock_that_was_set_back_does_not_reorder_a_list(self, make):
        here, there = make("here"), make("there")
        for version, at in (("v0", 50), ("v1", 20), ("v2", 60)):
            here.outcomes.record_version(
                VersionRow(model="net", version=version, action="promoted", created_ns=NOW + at,
                           profile="p", document="{}")
            )  # fmt: skip
        there.outcomes.record_version(
            VersionRow(model="net", version="x", action="promoted", created_ns=NOW + 55,
                       profile="p", document="{}")
        )  # fmt: skip
        merge(here, there)
        found = [row.version for row in here.outcomes.versions("net")]
        assert found == ["v2", "x", "v1", "v0"]

    def test_the_earlier_alarm_stays_whoever_merges(self, make):
        here, there = make("here"), make("there")
        for store, at in ((here, 20), (there, 10)):
            store._connection.rows(
                f"INSERT INTO alarms VALUES ('net', '', 'a:input', make_timestamp_ns({NOW + at}), "
                f"{at}, 1, 1, 5.0, 2.0)"
            )
        merge(here, there)
        assert here.outcomes.alarms("net", "")[0].units == 10
        merge(there, here)
        assert there.outcomes.alarms("net", "") == here.outcomes.alarms("net", "")

    def test_profiles_captures_and_audit_come(self, make, traffic, tmp_path):
        here, there = make("here"), make("there")
        profile = traffic.profile({"a:input": traffic.rng.normal(size=(40, 8))})
        there.put_profile(profile)
        there.put_captures(
            tmp_path,
            [CaptureEntry(path=str(tmp_path / "x"), process="p", model="net", captured_ns=NOW,
                          kind=CaptureKind.UNCOVERED, segment=None, profile="f", size=10)],
        )  # fmt: skip
        for store, first in ((here, 0), (there, 5)):
            for n in range(2):
                store._connection.rows(
                    f"INSERT INTO audit VALUES ({n}, make_timestamp_ns({NOW + first + n}), 'me', "
                    f"'freeze', 'net', '{first + n}', 'done', '')"
                )
        assert merge(here, there).rows == 4
        assert merge(here, there).rows == 0
        assert here.profile_digests() == (profile.digest,)
        assert here.captures() == there.captures()
        found = here._connection.rows("SELECT subject FROM audit ORDER BY entry")
        assert [subject for (subject,) in found] == ["0", "1", "5", "6"]

    def test_a_table_that_merging_does_not_know_comes_too(self, make):
        """What later migrations add is not forgotten."""
        here, there = make("here"), make("there")
        for n, store in enumerate((here, there)):
            store._connection.rows("CREATE TABLE notes (text VARCHAR)")
            store._connection.rows("CREATE TABLE keyed (name VARCHAR PRIMARY KEY, text VARCHAR)")
            store._connection.rows(f"INSERT INTO notes VALUES ('both'), ('{n}')")
            store._connection.rows(f"INSERT INTO keyed VALUES ('both', '{n}'), ('{n}', '')")
        merge(here, there)
        merge(here, there)
        assert sorted(here._connection.rows("FROM notes")) == [("0",), ("1",), ("both",)]
        assert len(here._connection.rows("FROM keyed")) == 3

    def test_work_of_another_analyzer_is_not_taken_over(self, make):
        here, there = make("here"), make("there")
        there._connection.rows(
            f"INSERT INTO jobs VALUES (1, 'net', 'k', 't', 'c', 'a', make_timestamp_ns({NOW}))"
        )
        merge(here, there)
        assert here._connection.rows("FROM jobs") == []


class TestRefusals:
    def test_this_database_itself(self, make):
        store = make("a")
        with pytest.raises(StoreError, match="this database itself"):
            store.upkeep.merge(store.path)

    def test_no_file(self, make, tmp_path):
        with pytest.raises(StoreError, match="there is no archive"):
            make("a").upkeep.merge(tmp_path / "nothing.duckdb")

    def test_no_archive(self, make, tmp_path):
        duckdb.connect(str(tmp_path / "x.duckdb")).close()
        with pytest.raises(StoreError, match="no archive of calidrift"):
            make("a").upkeep.merge(tmp_path / "x.duckdb")
        (tmp_path / "text").write_bytes(b"text" * 5_000)
        with pytest.raises(StoreError, match="cannot be opened"):
            make("a").upkeep.merge(tmp_path / "text")

    def test_a_newer_version(self, make):
        here, there = make("here"), make("there")
        there._connection.rows(
            "INSERT INTO schema_migrations VALUES (999, 'future', '9.9', TIMESTAMP '2040-01-01')"
        )
        there.close()
        with pytest.raises(StoreVersionError, match="999"):
            here.upkeep.merge(there.path)
        assert [path.name for path in here.path.parent.glob("*merging*")] == []

    def test_another_process_holds_it(self, make, monkeypatch):
        here, there = make("here"), make("there")
        there.close()
        code = (
            "import duckdb, sys\n"
            "held = duckdb.connect(sys.argv[1])\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
            "held.close()\n"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(there.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(StoreBusyError, match=f"held by process {holder.pid}"):
                here.upkeep.merge(there.path)
        finally:
            holder.communicate(timeout=30)

    def test_a_process_that_differs_is_named_and_left(self, make, traffic):
        here, there = make("here"), make("there")
        meta = traffic.meta()
        other = traffic.meta(points=("c:input", "b:input"), process=meta.process)
        here.ingest(meta, [traffic.random_window(0)], batch=1)
        there.ingest(other, [traffic.random_window(n) for n in range(2)], batch=1)
        report = merge(here, there)
        assert "other points" in report.unclear[0]
        assert here.last_number(meta) == 0


def test_an_archive_of_an_older_version_is_merged_from_a_copy(make, traffic, monkeypatch):
    known = migrations()
    monkeypatch.setattr(_migrations, "migrations", lambda: known[:-1])
    old = make("old")
    meta = traffic.meta()
    windows = [traffic.random_window(n) for n in range(3)]
    old.ingest(meta, windows, batch=1)
    old.close()
    monkeypatch.undo()
    before = old.path.read_bytes()
    here = make("here")
    assert here.upkeep.merge(old.path).records == 3
    assert old.path.read_bytes() == before
    assert [path.name for path in here.path.parent.glob("*merging*")] == []
    np.testing.assert_array_equal(
        here.totals("net", "").requests, reduce(Window.plus, windows).requests
    )


def test_dying_on_the_way_is_made_up_for(make, traffic, clock, monkeypatch):
    monkeypatch.setattr(merging_module, "_PORTION", 4)
    fleet = Fleet(traffic, 6)
    here, there = make("here"), make("there")
    for meta in fleet.metas:
        there.ingest(meta, fleet.truth[meta.process], batch=1)
    there.close()
    original, state = merging_module._add, {"left": 3}

    def dying(connection, portion, batch):
        original(connection, portion, batch)
        state["left"] -= 1
        if state["left"] == 0:
            connection.reopen()
            raise StoreLostError("COMMIT succeeded and is durable, but")

    monkeypatch.setattr(merging_module, "_add", dying)
    report = here.upkeep.merge(there.path)
    assert 0 < report.records < 48
    fleet.assert_stored(here, dict.fromkeys(fleet.truth, 24))


def test_dying_twice_is_told(make, monkeypatch):
    def dying(*_):
        raise StoreLostError("no space left")

    monkeypatch.setattr(upkeep_module, "merge_archive", dying)
    with pytest.raises(StoreLostError):
        make("a").upkeep.merge(make("b").path)
