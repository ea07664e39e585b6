"""Workers tidy up after dead ones: now and then, and where there is no room for a new one."""

import copy
import time

import pytest

from calidrift_agent._state import StateDirectory, StateWriter
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage
from calidrift_agent._watch import WatchOptions
from calidrift_agent._watch import _storage as storage_module
from calidrift_agent.errors import ConfigurationError, StateError, StateSpaceError

ERRORS = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))
UNAVAILABLE = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.STATE_UNAVAILABLE)


def options(**more):
    return WatchOptions(**{"budget": None, "window_seconds": 0.01, "drain_seconds": 3600.0, **more})


def dead_worker(net, x, watch_all, folder, requests=3):
    watch = watch_all(net, state_dir=folder)
    for _ in range(requests):
        net(x)
    watch.close()
    return watch


def next_window(watch):
    time.sleep(0.02)
    watch._active.engine.tick()


def seen(folder):
    (model,) = StateDirectory(folder).read()
    return int(model.total.requests[RequestColumn.SEEN])


@pytest.mark.parametrize(("retention", "files"), [(0.0, 1), (3600.0, 2), (None, 2)])
def test_a_worker_sweeps_when_a_window_closes(net, x, watch_all, tmp_path, retention, files):
    dead_worker(net, x, watch_all, tmp_path)
    watch = watch_all(net, state_dir=tmp_path, options=options(retention_seconds=retention))
    net(x)
    next_window(watch)
    assert len(list(tmp_path.glob("*.state"))) == files
    assert (tmp_path / ".sweep.lock").exists() is (retention is not None)
    assert seen(tmp_path) == 4


def test_not_more_than_once_a_minute(net, x, watch_all, tmp_path, monkeypatch):
    swept = []
    original = storage_module.sweep

    def counting(*arguments, **more):
        swept.append(original(*arguments, **more))

    monkeypatch.setattr(storage_module, "sweep", counting)
    twin = copy.deepcopy(net)
    first, second = (watch_all(one, state_dir=tmp_path, options=options()) for one in (net, twin))
    for watch in (first, second):
        for _ in range(3):
            next_window(watch)
    # Each asks once; of the two in one directory only one does it.
    assert [report.busy for report in swept] == [False, True]


def test_a_directory_that_cannot_be_swept_is_counted(net, x, watch_all, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise StateError("planted")

    watch = watch_all(net, state_dir=tmp_path, options=options())
    monkeypatch.setattr(storage_module, "sweep", broken)
    next_window(watch)
    total = watch.snapshot()[1].requests
    assert total[ERRORS].tolist() == [stage is Stage.STATE for stage in Stage]


@pytest.fixture
def full_once(monkeypatch):
    """There is no room for one more file as long as there are two."""
    original = StateWriter.create.__func__

    def create(cls, directory, meta, *more):
        if len(list(directory.glob("*.state"))) >= 2:
            raise StateSpaceError("no room")
        return original(cls, directory, meta, *more)

    monkeypatch.setattr(StateWriter, "create", classmethod(create))


@pytest.mark.parametrize(("retention", "in_memory"), [(3600.0, False), (None, True)])
def test_the_dead_make_room_for_the_living(
    net, x, watch_all, tmp_path, full_once, retention, in_memory
):
    for _ in range(2):
        dead_worker(net, x, watch_all, tmp_path)
    watch = watch_all(net, state_dir=tmp_path, options=options(retention_seconds=retention))
    assert (watch.report().state_file is None) is in_memory
    net(x)
    next_window(watch)
    assert seen(tmp_path) == 6 + (not in_memory)
    assert bool(watch.snapshot()[1].requests[UNAVAILABLE]) is in_memory


def test_retention_is_checked():
    with pytest.raises(ConfigurationError, match="retention_seconds"):
        WatchOptions(retention_seconds=-1.0)
