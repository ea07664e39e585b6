import subprocess
import sys
import textwrap
from functools import reduce

import duckdb
import numpy as np
import pytest

from calidrift_agent._state import NO_WINDOW, Window
from calidrift_agent._vocabulary import CaptureKind, Instrument, WindowFlag
from calidrift_agent.errors import StateFormatError
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import CaptureEntry, ValidationRow, VersionRow
from calidrift_analyzer.store import Store, StoreLostError
from calidrift_analyzer.store._connection import Connection


def plus(windows):
    return reduce(Window.plus, windows)


class TestIngest:
    def test_totals_are_the_merge_of_all_windows_bit_for_bit(self, store, traffic):
        metas = [traffic.meta() for _ in range(3)]
        windows = {meta.process: [traffic.random_window(n) for n in range(5)] for meta in metas}
        for meta in metas:
            assert store.ingest(meta, windows[meta.process], batch=1) == 5
        totals = store.totals("net", "")
        whole = plus([plus(found) for found in windows.values()])
        assert [point.name for point in totals.points] == ["a:input", "b:input"]
        for row, point in enumerate(totals.points):
            np.testing.assert_array_equal(point.cells, whole.cells[row])
            np.testing.assert_array_equal(point.counts, whole.counts[row])
            np.testing.assert_allclose(point.values, whole.values[row], rtol=1e-12)
            assert point.values[0] == whole.values[row, 0]
            assert point.values[1] == whole.values[row, 1]
            assert point.sketch().count > 0
        np.testing.assert_array_equal(totals.requests, whole.requests)
        assert [(s.name, s.units, s.covered) for s in totals.segments] == [
            ("day", 45, 30),
            ("night", 75, 75),
        ]
        assert (totals.processes, totals.windows, totals.coarse_windows) == (3, 15, 0)
        assert totals.instrument is Instrument.RANGE
        assert (totals.first_ns, totals.last_ns) == (whole.start_ns, whole.end_ns)
        assert totals.units == whole.requests[3]
        assert totals.units_covered == whole.requests[4]

    def test_the_merge_test_can_fail(self, store, traffic):
        """A window ingested under another number is counted twice, and the comparison sees it."""
        meta = traffic.meta()
        window = traffic.random_window(0)
        store.ingest(meta, [window], batch=1)
        doubled = Window(
            **{
                **{name: getattr(window, name) for name in window.__slots__},
                "number": 1,
            }
        )
        store.ingest(meta, [doubled], batch=1)
        assert not np.array_equal(store.totals("net", "").points[0].cells, window.cells[0])

    def test_again_and_overlapping_changes_nothing(self, store, traffic):
        meta = traffic.meta()
        windows = [traffic.random_window(n) for n in range(6)]
        assert store.ingest(meta, windows[:3], batch=1) == 3
        assert store.ingest(meta, windows[:3], batch=2) == 0
        assert store.ingest(meta, windows[1:], batch=3) == 3
        assert store.ingest(meta, reversed(windows), batch=4) == 0
        np.testing.assert_array_equal(
            store.totals("net", "").points[1].cells, plus(windows).cells[1]
        )
        assert store.last_number(meta) == 5

    def test_reopening_keeps_everything(self, store, traffic):
        meta = traffic.meta()
        windows = [traffic.random_window(n) for n in range(2)]
        store.ingest(meta, windows[:1], batch=1)
        store.close()
        with Store.open(store.path) as again:
            assert again.last_number(meta) == 0
            assert again.ingest(meta, windows, batch=again.next_batch()) == 1

    def test_all_or_nothing(self, store, traffic, monkeypatch):
        meta = traffic.meta()
        original = Connection.insert

        def failing(self, name, rows):
            if name == "point_windows":
                raise RuntimeError("injected")
            original(self, name, rows)

        monkeypatch.setattr(Connection, "insert", failing)
        with pytest.raises(RuntimeError, match="injected"):
            store.ingest(meta, [traffic.random_window(0)], batch=1)
        monkeypatch.undo()
        assert store.last_number(meta) == NO_WINDOW
        assert store.observed() == ()
        assert store.ingest(meta, [traffic.random_window(0)], batch=1) == 1

    def test_idle_windows_take_no_point_rows(self, store, traffic):
        meta = traffic.meta()
        assert store.ingest(meta, [Window.empty(2, number=0), Window.empty(2, number=1)], batch=1)
        totals = store.totals("net", "")
        assert totals.windows == 2
        assert not totals.points[0].counts.any()
        assert totals.points[0].values[0] == np.inf
        assert store.history("net", "").units.shape == (2, 2)

    def test_no_windows_still_registers_the_process(self, store, traffic):
        meta = traffic.meta()
        assert store.ingest(meta, [], batch=1) == 0
        assert [point.name for point in store.totals("net", "").points] == ["a:input", "b:input"]

    def test_a_model_without_points(self, store, traffic):
        meta = traffic.meta(points=())
        assert store.ingest(meta, [Window.empty(0, number=0)], batch=1) == 1
        assert store.totals("net", "").points == ()

    def test_wrong_number_of_points_is_refused(self, store, traffic):
        with pytest.raises(StateFormatError, match="3 points, but the process lists 2"):
            store.ingest(traffic.meta(), [traffic.random_window(0, points=3)], batch=1)

    def test_large_counts_stay_exact(self, store, traffic):
        meta = traffic.meta(points=("a:input",))
        window = traffic.random_window(0, points=1)
        window.cells[0, 7] = 2**61 + 1
        store.ingest(meta, [window], batch=1)
        assert store.totals("net", "").points[0].cells[7] == 2**61 + 1

    def test_two_instruments_are_never_added(self, store, traffic):
        for instrument in Instrument:
            meta = traffic.meta(instrument=instrument)
            store.ingest(meta, [traffic.random_window(0)], batch=1)
        with pytest.raises(StoreError, match="two instruments"):
            store.totals("net", "")
        assert store.totals("net", "", instrument=Instrument.CLIP).windows == 1
        assert store.history("net", "", instrument=Instrument.CLIP).units.shape == (1, 2)

    def test_models_and_profiles_are_kept_apart(self, store, traffic):
        metas = [
            traffic.meta(),
            traffic.meta(model="other"),
            traffic.meta(profile="f" * 64),
        ]
        for meta in metas:
            store.ingest(meta, [traffic.random_window(0)], batch=1)
        assert store.totals("net", "").windows == 1
        assert {(row.model, row.profile) for row in store.observed()} == {
            ("net", ""),
            ("other", ""),
            ("net", "f" * 64),
        }
        assert [row.model for row in store.observed("other")] == ["other"]

    def test_the_same_process_may_watch_two_models(self, store, traffic):
        meta = traffic.meta()
        other = traffic.meta(process=meta.process, model="other")
        assert store.ingest(meta, [traffic.random_window(0)], batch=1) == 1
        assert store.ingest(other, [traffic.random_window(0)], batch=1) == 1

    def test_nothing_recorded(self, store):
        totals = store.totals("net", "")
        assert (totals.instrument, totals.points, totals.units) == (None, (), 0)
        history = store.history("net", "", instrument=Instrument.RANGE)
        assert history.points == ()
        assert history.units.shape == (0, 0)

    def test_coarse_windows_are_counted(self, store, traffic):
        window = traffic.random_window(4, flags=WindowFlag.COARSE | WindowFlag.EARLY)
        store.ingest(traffic.meta(), [window], batch=1)
        assert store.totals("net", "").coarse_windows == 1


class TestSums:
    def test_sums_are_what_is_stored(self, store, traffic):
        meta = traffic.meta()
        assert store.sums(meta).number == NO_WINDOW
        windows = [traffic.random_window(n) for n in range(4)]
        store.ingest(meta, windows, batch=1)
        sums, whole = store.sums(meta), plus(windows)
        np.testing.assert_array_equal(sums.cells, whole.cells)
        np.testing.assert_array_equal(sums.counts, whole.counts)
        np.testing.assert_array_equal(sums.requests, whole.requests)
        assert sums.number == 3
        assert set(sums.segments) == set(whole.segments)
        rest = plus([whole, traffic.random_window(4)]).minus(sums)
        assert rest.flags & WindowFlag.COARSE


class TestHistory:
    def test_windows_in_the_order_of_time(self, store, traffic):
        metas = [traffic.meta(), traffic.meta()]
        windows = [[traffic.random_window(n) for n in range(3)] for _ in metas]
        for meta, found in zip(metas, windows, strict=True):
            store.ingest(meta, found, batch=1)
        history = store.history("net", "")
        assert list(history.end_ns) == sorted(history.end_ns)
        expected = [windows[p][n].counts[:, 0] for n in range(3) for p in range(2)]
        np.testing.assert_array_equal(history.units, np.stack(expected))
        assert history.exceedances.sum() == sum(
            int(window.counts[:, 1].sum()) for found in windows for window in found
        )
        assert list(history.seen) == [
            int(windows[p][n].requests[0]) for n in range(3) for p in (0, 1)
        ]
        assert list(history.request_units) == [
            int(windows[p][n].requests[3]) for n in range(3) for p in (0, 1)
        ]

    def test_a_late_window_is_appended_never_inserted(self, store, traffic):
        early, late = traffic.meta(), traffic.meta()
        store.ingest(early, [traffic.random_window(n) for n in range(5)], batch=store.next_batch())
        before = store.history("net", "")
        assert store.next_batch() == 2
        store.ingest(late, [traffic.random_window(0)], batch=store.next_batch())
        after = store.history("net", "")
        np.testing.assert_array_equal(after.units[:5], before.units)
        assert after.end_ns[5] < after.end_ns[4]


class TestFatal:
    def test_a_durable_commit_that_failed_is_not_repeated(self, store, traffic, monkeypatch):
        """DuckDB can die after a commit became durable: the retry must find it."""
        meta = traffic.meta()
        windows = [traffic.random_window(n) for n in range(2)]
        original, state = Connection.rows, {"armed": True}

        def dying(self, sql, parameters=()):
            found = original(self, sql, parameters)
            if sql == "COMMIT" and state.pop("armed", False):
                with self._guard():
                    raise duckdb.FatalException("Transaction COMMIT succeeded and is durable, but")
            return found

        monkeypatch.setattr(Connection, "rows", dying)
        assert store.ingest(meta, windows, batch=1) == 2
        np.testing.assert_array_equal(
            store.totals("net", "").points[0].cells, plus(windows).cells[0]
        )

    def test_a_full_disk_loses_and_doubles_nothing(self, tmp_path):
        """A real fatal error: the file may not grow any more, so that a checkpoint fails."""
        code = textwrap.dedent(
            """
            import resource, sys
            from pathlib import Path
            sys.path.insert(0, sys.argv[2])
            from conftest import Traffic
            from calidrift_analyzer.errors import StoreError
            from calidrift_analyzer.store import Store
            traffic = Traffic()
            meta = traffic.meta()
            windows = [traffic.random_window(n) for n in range(400)]
            store = Store.open(Path(sys.argv[1]))
            store._connection.rows("SET wal_autocheckpoint='64KB'")
            acknowledged = 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
            try:
                for start in range(0, 400, 20):
                    acknowledged += store.ingest(meta, windows[start:start + 20], batch=1)
            except StoreError as error:
                print(type(error).__name__, acknowledged)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            again = store.ingest(meta, windows, batch=2)
            totals = store.totals("net", "")
            cells = sum(window.cells for window in windows)
            assert totals.windows == 400, totals.windows
            assert (totals.points[0].cells == cells[0]).all()
            assert again <= 400 - acknowledged
            store.close()
            print("whole")
            """
        )
        from pathlib import Path

        folder = str(Path(__file__).parent.parent)
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x.duckdb"), folder],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stderr
        assert "whole" in ended.stdout
        assert "Store" in ended.stdout, "the limit was never reached: the test tests nothing"

    def test_lost_twice_is_reported(self, store, traffic, monkeypatch):
        def dying(self, name, rows):
            with self._guard():
                raise duckdb.FatalException("no space left")

        monkeypatch.setattr(Connection, "insert", dying)
        with pytest.raises(StoreLostError, match="no space left"):
            store.ingest(traffic.meta(), [traffic.random_window(0)], batch=1)
        monkeypatch.undo()
        assert store.observed() == ()


class TestProfilesAndCaptures:
    def test_profile_round_trip(self, store, traffic):
        profile = traffic.profile({"a:input": traffic.rng.normal(size=(40, 8))})
        assert store.profile(profile.digest) is None
        store.put_profile(profile)
        store.put_profile(profile)
        assert store.profile_digests() == (profile.digest,)
        assert store.profile(profile.digest).digest == profile.digest

    def test_capture_listing_is_replaced(self, store, tmp_path):
        def row(name, model="net"):
            return CaptureEntry(
                path=str(tmp_path / name),
                process="p",
                model=model,
                kind=CaptureKind.UNCOVERED,
                captured_ns=1_800_000_000_123_456_789,
                segment=None,
                profile="f",
                size=10,
            )

        store.put_captures(tmp_path, [row("a"), row("b", "other")])
        assert store.captures() == (row("a"), row("b", "other"))
        assert store.captures("other") == (row("b", "other"),)
        store.put_captures(tmp_path, [row("b")])
        assert store.captures() == (row("b"),)
        store.put_captures(tmp_path / "elsewhere", [])
        assert len(store.captures()) == 1

    def test_outcomes(self, store):
        validation = ValidationRow(
            model="net", candidate="c", created_ns=5, accepted=False, document="{}"
        )
        version = VersionRow(
            model="net",
            version="v1",
            action="promoted",
            created_ns=6,
            profile="p",
            document="{}",
        )
        store.outcomes.record_validation(validation)
        store.outcomes.record_version(version)
        assert store.outcomes.validations("net") == (validation,)
        assert store.outcomes.versions("net") == (version,)
        assert store.outcomes.versions("other") == ()
