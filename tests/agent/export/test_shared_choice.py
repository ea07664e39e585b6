"""Which points of a large model are shown: one choice for everybody who reads a directory."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from calidrift_agent import StateDirectoryCollector
from calidrift_agent._state import (
    PointMeta,
    ShownLog,
    StateDirectories,
    StateMeta,
    StateOptions,
    StateWriter,
    SweepOptions,
    WindowBuffer,
    admitted,
    boot_id,
    new_process_id,
    sweep,
)
from calidrift_agent._state._shown import ShownEntry, shown_path
from calidrift_agent._vocabulary import CountColumn, Instrument, Strategy, ValueColumn

SECOND = 1_000_000_000
NOW = 1_000_000 * SECOND
NAMES = tuple(f"p{number}" for number in range(10))


class Fleet:
    """Processes of a model of ten points, in one directory, at one moment."""

    def __init__(self, folder):
        self.folder = folder
        self.writers = []

    def worker(self, magnitudes=None, *, names=NAMES, bound=1.0, started=0):
        """A process whose points reached these magnitudes (0.5 where none is given)."""
        meta = StateMeta(
            new_process_id(),
            boot_id(),
            1,
            NOW - 1000 * SECOND + started,
            "net",
            "",
            Instrument.RANGE,
            Strategy.INSTEAD,
            "0.1.0",
            10.0,
            tuple(PointMeta(name, bound) for name in names),
        )
        writer = StateWriter.create(self.folder, meta, StateOptions(slots=4))
        self.writers.append(writer)
        self.measured(writer, magnitudes or {}, names)
        return writer

    def measured(self, writer, magnitudes, names=NAMES):
        buffer = WindowBuffer(len(names), window_seconds=10.0, now_ns=NOW - SECOND)
        buffer.requests[0] = 1
        buffer.counts[:, [CountColumn.ROWS, CountColumn.EXCEEDANCES]] = 1
        found = np.array([magnitudes.get(name, 0.5) for name in names])
        buffer.values[:, ValueColumn.HIGHEST] = found
        writer.write_open(buffer, NOW)


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    monkeypatch.setattr("calidrift_agent._state._directory.time.time_ns", lambda: NOW)
    made = Fleet(tmp_path)
    yield made
    for writer in made.writers:
        writer.close()


def shown(collector, name="calidrift_exceedances_total"):
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        sample.labels["point"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def collector(folder, most=4):
    return StateDirectoryCollector(folder, max_points=most)


def test_a_collector_that_comes_later_shows_the_points_of_the_first(fleet, tmp_path):
    writer = fleet.worker({"p1": 0.9, "p2": 0.8})
    first, second = collector(tmp_path), collector(tmp_path)
    assert shown(first) == {"p1", "p2"}
    fleet.measured(writer, {"p5": 0.99, "p6": 0.98})
    assert shown(second) == shown(first) == {"p1", "p2"}
    fleet.measured(writer, {"p7": 2.0})
    assert shown(second) == {"p1", "p2", "p7"}
    fleet.measured(writer, {"p8": 3.0, "p9": 4.0})
    assert shown(first) == shown(second) == {"p1", "p2", "p7", "p9"}
    assert shown(collector(tmp_path)) == shown(first), "one that is made after a restart"


def test_dying_and_being_swept_reshuffles_nothing(fleet, tmp_path):
    loud = fleet.worker({"p1": 9.0, "p2": 0.8})
    fleet.worker({"p3": 0.9})
    before = shown(collector(tmp_path))
    assert before == {"p1", "p3"}
    loud.close()
    assert shown(collector(tmp_path)) == before
    assert sweep(tmp_path, SweepOptions(retention_seconds=0.0), now_ns=NOW + 5 * SECOND).merged
    fleet.worker({"p4": 0.95})
    assert shown(collector(tmp_path)) == before


def test_collectors_of_another_limit_show_a_part_of_each_other(fleet, tmp_path):
    fleet.worker({"p1": 0.9, "p2": 0.8, "p3": 0.7})
    wide, narrow = collector(tmp_path, 6), collector(tmp_path, 2)
    assert shown(wide) == {"p1", "p2", "p3"}
    assert shown(narrow) == {"p1"}


def test_a_new_version_of_the_model_is_not_crowded_out_by_the_old_one(fleet, tmp_path):
    old = fleet.worker({"p1": 9.0, "p2": 9.0, "p3": 9.0, "p4": 9.0})
    reader = collector(tmp_path)
    assert shown(reader) == {"p1", "p2", "p3", "p4"}
    old.close()
    names = tuple(f"q{number}" for number in range(10))
    fleet.worker({"q1": 0.9, "q2": 0.8}, names=names, started=5)
    assert shown(reader) == shown(collector(tmp_path)) == {"q1", "q2"}
    fleet.worker({}, started=9)  # rolled back: the points of old are back at once
    assert shown(reader) == shown(collector(tmp_path)) == {"p1", "p2", "p3", "p4"}


def test_a_version_that_fits_is_shown_whole_beside_dead_points(fleet, tmp_path):
    fleet.worker({}).close()
    fleet.worker({}, names=("q1", "q2", "q3"), started=5)
    assert shown(collector(tmp_path)) == {"q1", "q2", "q3"}
    assert not list(tmp_path.glob("*.shown"))


def test_a_sidecar_of_several_directories_agrees_with_the_workers_of_each(fleet, tmp_path):
    fleet.worker({"p1": 0.9, "p2": 0.8})
    (tmp_path / "other").mkdir()
    sidecar = StateDirectories([tmp_path, tmp_path / "other"])
    assert shown(collector(sidecar)) == {"p1", "p2"}
    assert shown(collector(tmp_path)) == {"p1", "p2"}
    elsewhere = Fleet(tmp_path / "other")
    writer = elsewhere.worker({"p8": 0.9})
    assert shown(collector(tmp_path / "other")) == {"p1", "p2"}
    writer.close()


def test_two_that_choose_at_the_same_time_come_to_the_same_points(fleet, tmp_path, monkeypatch):
    fleet.worker({"p1": 0.9, "p2": 0.8})
    slow, rival = collector(tmp_path), ShownLog([tmp_path])
    add = ShownLog.add

    def later(log, model, names, *, free):
        monkeypatch.setattr(ShownLog, "add", add)
        rival.add(model, ["p5", "p6"], free=False)  # written after `slow` looked
        add(log, model, names, free=free)

    monkeypatch.setattr(ShownLog, "add", later)
    assert shown(slow) == {"p5", "p6"} == shown(collector(tmp_path))


def test_where_nothing_can_be_written_the_choice_is_kept_in_memory(fleet, tmp_path):
    writer = fleet.worker({"p1": 0.9, "p2": 0.8})
    shown_path(tmp_path, "net").mkdir()  # also stops root
    reader = collector(tmp_path)
    assert shown(reader) == {"p1", "p2"}
    fleet.measured(writer, {"p5": 0.99})
    assert shown(reader) == {"p1", "p2"}


def test_the_file_is_private_and_what_is_no_entry_is_passed_over(tmp_path):
    log, path = ShownLog([tmp_path]), shown_path(tmp_path, "net")
    log.add("net", ["a\nb", "ä"], free=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("ab") as file:
        file.write(b'\xff\n{}\n[1, true]\n["x", true, "y"]\n' + b"[" * 5000 + b'\n[1, true, "cut')
    log.add("net", ["c"], free=False)
    assert [(one.free, one.name) for one in log.entries("net")] == [
        (True, "a\nb"),
        (True, "ä"),
        (False, "c"),
    ]
    assert log.entries("other") == []
    log.add("net", [], free=True)


def test_a_pipe_or_a_file_without_end_holds_nobody_up(tmp_path):
    os.mkfifo(shown_path(tmp_path, "pipe"))
    shown_path(tmp_path, "large").write_bytes(b"\n" * (1 << 20))
    log = ShownLog([tmp_path])
    for model in ("pipe", "large"):
        log.add(model, ["a"], free=True)
        assert [one.name for one in log.entries(model)] == ["a"]
        assert ShownLog([tmp_path]).entries(model) == []


def test_places_are_given_in_order_and_only_free_entries_take_the_last_ones():
    entries = [ShownEntry(0, name in "efg", name) for name in "abcdefg"]
    assert admitted(entries, 4, 2, "abcdefg") == set("abef")
    assert admitted(entries, 4, 2, "acdefg") == set("acef")
    assert admitted(entries, 0, 0, "abcdefg") == set()
