"""Several state directories as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._state import StateDirectories, StateDirectory
from calidrift_agent._vocabulary import AgentState, RequestColumn

SECOND = 1_000_000_000


@pytest.fixture
def folders(tmp_path):
    made = tmp_path / "a", tmp_path / "b"
    for one in made:
        one.mkdir()
    return made


def seen(model):
    return int(model.total.requests[RequestColumn.SEEN])


def test_models_of_both_and_sums_of_what_both_have(worker, folders):
    first, second = folders
    worker(10.0, first, points=["x", "y"]).serve(10, 12.0, absmax=4.0)
    worker(11.0, second, points=["y", "z"]).serve(5, 13.0, absmax=3.0)
    worker(11.0, second, points=["y", "z"]).serve(5, 12.5, absmax=1.0).die()
    worker(11.0, second, model="other").serve(7, 13.0)
    found = {model.meta.model: model for model in StateDirectories(folders).read(14 * SECOND)}
    assert {name: seen(model) for name, model in found.items()} == {"net": 20, "other": 7}
    net = found["net"]
    names = [point.name for point in net.meta.points]
    assert names == ["y", "z", "x"]
    assert dict(zip(names, net.recent_absmax.tolist(), strict=True)) == {"y": 4, "z": 3, "x": 4}
    assert net.total.cells[:, 700].tolist() == [20, 10, 10]
    assert (net.alive, net.dead, net.age_seconds) == (2, 1, 2.0)
    assert net.states[AgentState.ACTIVE] == 2
    assert net.total.sampling_ratio == 0.5
    assert (net.points_expected, net.points_observed) == (2, 2)


def test_one_directory_is_as_without(worker, tmp_path):
    worker(10.0).serve(10, 12.0)
    [alone] = StateDirectory(tmp_path).read(13 * SECOND)
    [found] = StateDirectories([tmp_path, tmp_path / "." / "later"]).read(13 * SECOND)
    assert np.array_equal(found.total.cells, alone.total.cells)
    assert found.meta == alone.meta


def test_dead_in_both(worker, folders):
    for folder in folders:
        worker(10.0, folder).serve(3, 12.0).die()
    [found] = StateDirectories(folders).read(13 * SECOND)
    assert (seen(found), found.alive, found.age_seconds) == (6, 0, None)
    assert found.total.sampling_ratio == 0.0


def test_a_directory_that_fails_takes_its_models_along(worker, folders):
    first, second = folders
    worker(10.0, first).serve(10, 12.0)
    worker(10.0, second).serve(5, 12.0)
    worker(10.0, second, model="other").serve(1, 12.0)
    worker(10.0, first, model="mine").serve(1, 12.0)
    directories = StateDirectories(folders)
    assert [seen(model) for model in directories.read(13 * SECOND)] == [1, 15, 1]
    hidden = second.rename(second.with_name("away"))
    second.touch()
    # `net` would fall from 15 to 10, which looks like a restart: better no figure.
    assert [model.meta.model for model in directories.read(13 * SECOND)] == ["mine"]
    [complaint] = directories.damaged
    assert str(second) in complaint
    second.unlink()
    hidden.rename(second)
    assert len(directories.read(13 * SECOND)) == 3
    assert directories.damaged == ()


def test_a_folder_that_is_mounted_twice_is_counted_once(worker, tmp_path, monkeypatch):
    """Two mounts of one folder resolve to two paths: here, a link that nobody resolves."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to(tmp_path / "one")
    worker(0.0, tmp_path / "one").serve(3, 5.0)
    monkeypatch.setattr(Path, "resolve", lambda path: path)
    both = StateDirectories([tmp_path / "one", tmp_path / "two", tmp_path / "not yet"])
    assert len(both.folders) == 3
    (model,) = both.read(6 * SECOND)
    assert (model.total.requests[0], model.alive) == (3, 1)


def test_folders_are_counted_once(tmp_path):
    assert StateDirectories([tmp_path, tmp_path / "x" / ".."]).folders == (tmp_path.resolve(),)
