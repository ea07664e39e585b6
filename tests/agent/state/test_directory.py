"""All processes of a directory as one model each."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._state import PointMeta, StateDirectory, StateReader, SweepOptions, sweep
from calidrift_agent._state import _directory as directory_module
from calidrift_agent._vocabulary import AgentState, CountColumn, RequestColumn, WindowFlag
from calidrift_agent.errors import StateError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SECOND = 1_000_000_000


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def read(folder, now):
    (model,) = StateDirectory(folder).read(round(now * SECOND))
    return model


def test_living_dead_and_swept_processes_add_up(worker, tmp_path):
    for requests in (5, 7):
        worker(0.0).serve(requests, 5.0).die()
    sweep(tmp_path, SweepOptions(retention_seconds=0.0), now_ns=10 * SECOND)
    worker(0.0).serve(11, 5.0).serve(1, 15.0).die()
    worker(1.0).serve(13, 5.0).serve(1, 15.0)
    model = read(tmp_path, 16.0)
    assert (model.alive, model.dead) == (1, 1)
    assert model.total.requests[RequestColumn.SEEN] == 38
    assert model.total.counts[:, CountColumn.ROWS].tolist() == [38, 38]
    assert model.total.cells.sum() == 76
    assert (model.points_expected, model.points_observed) == (2, 2)
    assert model.total.sampling_ratio == 0.5
    assert model.age_seconds == 1.0


def test_nothing_is_no_model(tmp_path):
    assert StateDirectory(tmp_path / "not there").read() == ()
    assert StateDirectory(tmp_path).read() == ()


def test_a_peak_stays_for_two_minutes_after_its_process(worker, tmp_path):
    directory = StateDirectory(tmp_path)
    early = worker(0.0).serve(1, 5.0, absmax=9.0)
    late = worker(0.0).serve(1, 5.0, absmax=2.0)
    early.die()

    def absmax(now):
        late.serve(1, now, absmax=2.0)
        (model,) = directory.read(round(now * SECOND))
        (fresh,) = StateDirectory(tmp_path).read(round(now * SECOND))
        assert np.array_equal(fresh.recent_absmax, model.recent_absmax)
        return model.recent_absmax.tolist()

    moments = (6.0, 100.0, 130.0, 150.0, 270.0)
    assert [absmax(now)[0] for now in moments] == [9.0, 9.0, 9.0, 2.0, 2.0]
    late.die()
    (model,) = directory.read(700 * SECOND)
    assert model.recent_absmax.tolist() == [-np.inf, -np.inf]
    assert model.age_seconds is None


def test_a_peak_of_one_window_of_a_living_process_ages(worker, tmp_path):
    directory = StateDirectory(tmp_path)
    one = worker(0.0).serve(1, 5.0, absmax=9.0)
    found = []
    for now in range(10, 200, 10):
        one.serve(1, float(now), absmax=1.0)
        found.append(directory.read(now * SECOND)[0].recent_absmax[0])
    assert found[:12] == [9.0] * 12
    assert found[15:] == [1.0] * 4


def test_points_of_several_versions(worker, tmp_path):
    worker(1.0, points=(PointMeta("a:input", 1.0), PointMeta("old:input", 5.0))).serve(3, 5.0).die()
    new = (PointMeta("new:input", 3.0), PointMeta("a:input", 2.0), PointMeta("dead:input"))
    alive = worker(2.0, points=new).serve(4, 5.0)
    alive.buffer.counts[2] = 0
    alive.writer.write_open(alive.buffer, 5 * SECOND)
    model = read(tmp_path, 6.0)
    names = [point.name for point in model.meta.points]
    assert names == ["new:input", "a:input", "dead:input", "old:input"]
    assert [point.observed_bound for point in model.meta.points] == [3.0, 2.0, None, 5.0]
    assert model.total.counts[:, CountColumn.ROWS].tolist() == [4, 7, 0, 3]
    # A point of the dead version is not expected any more, and what only it saw is not seen now.
    assert (model.points_expected, model.points_observed) == (3, 2)


def test_a_master_that_never_served_has_no_say(worker, tmp_path):
    worker(9.0, points=("x:input",))
    worker(1.0).serve(1, 5.0)
    model = read(tmp_path, 8.0)
    assert model.alive == 2
    assert [point.name for point in model.meta.points] == ["a:input", "b:input", "x:input"]
    assert (model.points_expected, model.age_seconds) == (2, 3.0)
    assert model.total.sampling_ratio == 0.5
    assert sum(model.states.values()) == 1


def test_what_living_processes_are_doing(worker, tmp_path):
    worker(0.0).serve(1, 5.0)
    worker(0.0).serve(1, 5.0, flags=WindowFlag.BUDGET)
    worker(0.0).serve(1, 5.0, flags=WindowFlag.ERRORS).serve(1, 15.0)
    worker(0.0).serve(1, 5.0, flags=WindowFlag.KILLED).die()
    states = read(tmp_path, 20.0).states
    assert {state for state, number in states.items() if number} == {
        AgentState.ACTIVE,
        AgentState.BUDGET,
        AgentState.ERRORS,
    }


def test_a_sweep_in_the_middle_of_a_read(worker, tmp_path, monkeypatch):
    """Read again: otherwise the swept process would be missing, or count twice."""
    worker(0.0).serve(1, 5.0).die()
    sweep(tmp_path, SweepOptions(retention_seconds=0.0), now_ns=10 * SECOND)
    worker(0.0).serve(2, 5.0).die()
    worker(0.0).serve(4, 5.0)
    original, swept = StateDirectory._read_processes, []

    def sweep_before(self, *args):
        if not swept:
            swept.append(sweep(tmp_path, SweepOptions(retention_seconds=0.0)).merged)
        return original(self, *args)

    def sweep_after(self, *args):
        found = original(self, *args)
        if not swept:
            swept.append(sweep(tmp_path, SweepOptions(retention_seconds=0.0)).merged)
        return found

    for meddling in (sweep_before, sweep_after):
        monkeypatch.setattr(StateDirectory, "_read_processes", meddling)
        assert read(tmp_path, 6.0).total.requests[0] == 7
        assert swept == [1]
        swept.clear()
        worker(0.0).serve(0, 5.0).die()


def test_swept_without_end(worker, tmp_path, monkeypatch):
    worker(0.0).serve(1, 5.0)
    numbers = iter(range(10**6))
    monkeypatch.setattr(
        StateDirectory, "_generations", lambda self: {tmp_path / "x": next(numbers)}
    )
    monkeypatch.setattr(directory_module, "_PAUSE_SECONDS", 0.0)
    with pytest.raises(StateError, match="swept faster"):
        StateDirectory(tmp_path).read()


def test_damage_is_named_and_the_rest_is_read(worker, tmp_path):
    worker(0.0).serve(3, 5.0)
    (tmp_path / "1-net.state").write_bytes(b"somebody's")
    (tmp_path / "net-1.carried").write_bytes(b"CALICARR")
    dead = worker(0.0).serve(1, 5.0).die()
    sweep(tmp_path, SweepOptions(retention_seconds=0.0))
    (path,) = [p for p in tmp_path.glob("*.carried") if p.stat().st_size > 8]
    blob = bytearray(path.read_bytes())
    blob[-9] ^= 1
    path.write_bytes(blob)
    directory = StateDirectory(tmp_path)
    (model,) = directory.read(6 * SECOND)
    assert model.total.requests[0] == 3
    assert len(directory.damaged) == 3
    assert (
        len({path.name for path in tmp_path.iterdir() if path.name in str(directory.damaged)}) == 3
    )
    assert not dead.path.exists()


def test_too_many_open_files_is_no_smaller_sum(worker, tmp_path, monkeypatch):
    worker(0.0).serve(3, 5.0)
    worker(0.0).serve(3, 5.0)
    original, opened = os.open, []

    def short(path, *args, **kwargs):
        if str(path).endswith(".state"):
            opened.append(path)
            if len(opened) == 2:
                raise OSError(errno.EMFILE, "Too many open files")
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", short)
    with pytest.raises(StateError, match="Too many open files"):
        read(tmp_path, 6.0)


def test_a_carry_over_file_that_cannot_be_opened_is_no_smaller_sum(worker, tmp_path, monkeypatch):
    """A counter that goes down for one scrape counts everything anew for whoever reads rates."""
    worker(0.0).serve(3, 5.0).die()
    sweep(tmp_path, SweepOptions(retention_seconds=0.0))
    worker(0.0).serve(4, 5.0)
    original = os.open

    def short(path, *args, **kwargs):
        if str(path).endswith(".carried"):
            raise OSError(errno.EMFILE, "Too many open files")
        return original(path, *args, **kwargs)

    directory = StateDirectory(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", short)
        with pytest.raises(StateError, match="Too many open files"):
            directory.read(6 * SECOND)
    (model,) = directory.read(6 * SECOND)
    assert model.total.requests[0] == 7


def test_a_file_that_goes_while_it_is_opened(worker, tmp_path, monkeypatch):
    worker(0.0).serve(3, 5.0)
    gone = worker(0.0).serve(0, 5.0).die()
    original = StateReader.open.__func__

    def late(cls, path):
        if path == gone.path:
            path.unlink()
        return original(cls, path)

    monkeypatch.setattr(StateReader, "open", classmethod(late))
    assert read(tmp_path, 6.0).total.requests[0] == 3


def test_a_forbidden_directory_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be listed"):
        StateDirectory(tmp_path / "file").read()


def test_a_fork_while_another_thread_reads(worker, tmp_path):
    worker(0.0).serve(3, 5.0)
    directory = StateDirectory(tmp_path)
    with directory._lock:
        child = os.fork()
        if not child:
            (model,) = directory.read()
            os._exit(int(model.total.requests[0]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_reading_leaves_nothing_open(worker, tmp_path):
    for _ in range(3):
        worker(0.0).serve(3, 5.0)
    directory = StateDirectory(tmp_path)
    threads = [threading.Thread(target=directory.read) for _ in range(4)]
    before = descriptors()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert descriptors() == before


def test_a_process_with_the_pid_of_a_dead_one_is_another(worker, tmp_path):
    directory, pid = StateDirectory(tmp_path), os.getpid()
    early = worker(0.0, pid=pid).serve(5, 5.0, absmax=9.0).die()
    late = worker(6.0, pid=pid).serve(7, 8.0, absmax=2.0)
    assert early.meta.pid == late.meta.pid
    assert early.meta.process != late.meta.process
    (model,) = directory.read(9 * SECOND)
    assert (model.alive, model.dead) == (1, 1)
    assert model.meta.process == late.meta.process
    assert model.total.requests[RequestColumn.SEEN] == 12
    sweep(tmp_path, SweepOptions(retention_seconds=0.0), now_ns=9 * SECOND)
    assert [early.path.exists(), late.path.exists()] == [False, True]
    late.serve(1, 140.0, absmax=2.0)
    (model,) = directory.read(141 * SECOND)
    assert model.recent_absmax.max() == 2.0, "not the maximum of the dead one"
    assert model.total.requests[RequestColumn.SEEN] == 13
