"""Off by the environment, by a file, by `close`; and what `watch` refuses."""

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions, calibrate
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import RequestColumn, Stage
from calidrift_agent._watch import WatchOptions, watch
from calidrift_agent._watch._report import Reference
from calidrift_agent.errors import AttachError, ConfigurationError, ProfileMismatchError


def test_disabled_by_the_environment(net, x, monkeypatch, tmp_path):
    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    one = watch(net, name="net", sample_rate=1.0, state_dir=tmp_path)
    net(x)
    assert "forward" not in net.__dict__
    report = one.report()
    assert (report.active, report.points, report.sampling_ratio) == (False, (), 0.0)
    assert report.notes == ("switched off by CALIDRIFT_DISABLED",)
    assert one.flush().is_empty
    assert list(one.collector().describe())
    assert list(tmp_path.iterdir()) == []
    assert "switched off" in repr(one)
    one.close()


def test_a_switched_off_watch_takes_any_model(monkeypatch):
    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    watch(nn.ReLU(), name="net").close()


def test_a_mistyped_switch_is_an_error(net, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_DISABLED", "ture")
    with pytest.raises(ConfigurationError, match="CALIDRIFT_DISABLED"):
        watch(net, name="net")


def test_the_state_directory_of_the_environment(net, monkeypatch, tmp_path, watch_all):
    monkeypatch.setenv("CALIDRIFT_STATE_DIR", str(tmp_path))
    assert watch_all(net).report().state_file.parent == tmp_path


def test_a_kill_file_before_and_while_watching(net, x, watch_all, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    (tmp_path / "DISABLED").touch()
    assert watch.report().active
    watch._active.engine.tick()
    report = watch.report()
    assert not report.active
    assert any("kill file" in note for note in report.notes)
    assert "forward" not in net.__dict__
    assert report.observed_calls == 1
    second = watch_all(net, state_dir=tmp_path)
    assert any("kill file" in note for note in second.report().notes)
    assert "forward" not in net.__dict__


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("text", "got str"),
        (nn.Linear, "got type"),
    ],
    ids=["text", "class"],
)
def test_what_cannot_be_watched(model, message):
    with pytest.raises(AttachError, match=message):
        watch(model, name="net")


@pytest.mark.parametrize(
    "options",
    [
        {"sample_rate": 1.5},
        {"sample_rate": -0.1},
        {"sample_rate": float("nan")},
        {"name": ""},
        {"name": 5},
        {"name": "a\nb"},
        {"capture": CaptureOptions()},
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used(net, options):
    with pytest.raises(ConfigurationError):
        watch(net, **{"name": "net", **options})
    assert "forward" not in net.__dict__


@pytest.mark.parametrize(
    "options",
    [{"budget": 0.0}, {"budget": 2.0}, {"window_seconds": 0.0}, {"drain_seconds": 0.001}],
    ids=str,
)
def test_options_that_cannot_be_used(options):
    with pytest.raises(ConfigurationError):
        WatchOptions(**options)


def test_a_sample_rate_of_zero_only_counts(net, x, watch_all):
    watch = watch_all(net, sample_rate=0.0)
    for _ in range(5):
        net(x)
    requests = watch.snapshot()[1].requests
    assert requests[: RequestColumn.OBSERVED + 1].tolist() == [5, 0, 0]


class TestProfile:
    @pytest.fixture
    def profile(self, net, x):
        return calibrate(net, [x])

    def test_fits(self, net, x, profile, watch_all):
        watch = watch_all(net, profile=profile)
        assert watch.report().reference is Reference.OBSERVED
        assert all(point.observed_bound is not None for point in watch.snapshot()[0].points)
        net(x)
        requests = watch.snapshot()[1].requests
        units = [RequestColumn.UNITS, RequestColumn.UNITS_COVERED]
        assert requests[units].tolist() == [1, 1]

    def test_by_path_and_saved_beside_the_state(self, net, profile, watch_all, tmp_path):
        profile.save(tmp_path / "profile.json")
        watch = watch_all(net, profile=tmp_path / "profile.json", state_dir=tmp_path / "state")
        assert watch.snapshot()[0].profile == profile.digest
        copy = tmp_path / "state" / "profiles" / f"{profile.digest}.json"
        assert CalibrationProfile.load(copy) == profile

    def test_of_a_model_with_other_points(self, profile):
        model = nn.Sequential(nn.Linear(2, 2))
        with pytest.raises(ProfileMismatchError, match="0:input"):
            watch(model, name="net", profile=profile)
        assert "forward" not in model.__dict__

    def test_of_the_same_model_with_other_weights(self, net, profile):
        torch.nn.init.ones_(net.fc.weight)
        with pytest.raises(ProfileMismatchError, match="weights"):
            watch(net, name="net", profile=profile)

    def test_of_another_instrument(self, net, profile):
        from dataclasses import replace

        from calidrift_agent._vocabulary import Instrument

        with pytest.raises(ProfileMismatchError, match="clip instrument"):
            watch(net, name="net", profile=replace(profile, instrument=Instrument.CLIP))

    def test_without_one_nothing_is_called_covered(self, net, x, watch_all):
        watch = watch_all(net)
        net(x * 1000)
        report = watch.report()
        requests = watch.snapshot()[1].requests
        assert report.reference is Reference.NONE
        assert any("no profile" in note for note in report.notes)
        assert not requests[[RequestColumn.UNITS, RequestColumn.UNITS_COVERED]].any()

    def test_with_a_bound_missing(self, net, bounded, watch_all):
        watch = watch_all(net, profile=bounded(conv__input=1.0, fc__input=None))
        assert any("1 of 2 points" in note for note in watch.report().notes)


def test_a_state_directory_that_cannot_be_looked_into_is_one_sentence(net, monkeypatch, tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot be looked into \(File name too long\)"):
        watch(net, name="net", state_dir=tmp_path / ("x" * 300))
    closed_to_this_user(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"cannot be looked into .* may enter, read and"):
        watch(net, name="net", state_dir=tmp_path)
    assert "forward" not in net.__dict__


def test_a_state_directory_that_is_closed_later_switches_nothing_off(
    net, x, watch_all, tmp_path, monkeypatch
):
    watch = watch_all(net, state_dir=tmp_path)
    closed_to_this_user(monkeypatch)
    net(x)
    watch._active.engine.tick()
    report = watch.report()
    assert report.active
    assert report.observed_calls == 1
    first = RequestColumn.ERROR_FIRST
    assert not watch.snapshot()[1].requests[first : first + len(Stage)].any()


def closed_to_this_user(monkeypatch):
    """What `chmod 0` does to anybody but root."""
    exists = Path.exists

    def refused(path, **options):
        if path.name == "DISABLED":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", refused)
