"""Sweeping dead processes beside the collector: each window is still collected exactly once."""

import time

from calidrift_agent._state import StateReader, SweepOptions, sweep
from calidrift_analyzer.collect import _collect as collect_module

SECOND = 1_000_000_000
KEEP = SweepOptions(retention_seconds=3_600.0)


def test_the_files_of_the_dead_wait_for_the_collector(folder, desk, process):
    began = {"boot": "", "started_ns": 0}
    first = process(**began).windows(3).die()
    second = process(**began).windows(2)
    ended = first.now
    assert sweep(folder, KEEP, now_ns=ended + 3_599 * SECOND).kept == 1
    assert desk.run().windows == 5
    assert sweep(folder, KEEP, now_ns=ended + 3_600 * SECOND).merged == 1
    second.windows(1)
    report = desk.run()
    assert (report.windows, report.skipped) == (1, ())
    desk.assert_complete(first, second)


def test_a_sweep_between_opening_and_reading(folder, desk, process, monkeypatch):
    """The collector has the file open: it reads it to the end although it has no name any more."""
    first = process(boot="", started_ns=0).windows(3).die()
    original = collect_module.collect_windows

    def late(reader, *rest):
        sweep(folder, SweepOptions(retention_seconds=0.0), now_ns=time.time_ns())
        original(reader, *rest)

    monkeypatch.setattr(collect_module, "collect_windows", late)
    assert desk.run().windows == 3
    assert not list(folder.glob("*.state"))
    desk.assert_complete(first)
    assert desk.run().windows == 0


def test_a_sweep_between_listing_and_opening(folder, desk, process, monkeypatch):
    """Somebody sweeps with no regard to the collector: it says what it could not read."""
    process(boot="", started_ns=0).windows(3).die()
    original = StateReader.open.__func__

    def late(cls, path):
        monkeypatch.undo()
        sweep(folder, SweepOptions(retention_seconds=0.0), now_ns=time.time_ns())
        return original(cls, path)

    monkeypatch.setattr(StateReader, "open", classmethod(late))
    report = desk.run()
    assert report.windows == 0
    assert "cannot be opened" in report.skipped[0].reason
