"""Whatever fails inside the agent: the request gets its output, and the failure is counted."""

import errno
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions
from calidrift_agent._capture import CaptureWriter
from calidrift_agent._observe import Gate, Instead, Intake, Sampler
from calidrift_agent._observe._armed import ArmedTree
from calidrift_agent._state import StateWriter, WindowBuffer, scan
from calidrift_agent._taps import CONSECUTIVE_LIMIT, Folder, Harvest, Recorder
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage
from calidrift_agent._watch import watch
from calidrift_agent._watch._budget import BudgetController
from calidrift_agent._watch._storage import Storage
from calidrift_agent.errors import ConfigurationError


def broken(*_, **__):
    raise ZeroDivisionError("planted")


def errors(watch):
    total = watch.snapshot()[1].requests
    return {
        stage: int(total[RequestColumn.ERROR_FIRST + index])
        for index, stage in enumerate(Stage)
        if total[RequestColumn.ERROR_FIRST + index]
    }


def drops(watch):
    total = watch.snapshot()[1].requests
    return {
        reason: int(total[RequestColumn.DROP_FIRST + index])
        for index, reason in enumerate(DropReason)
        if total[RequestColumn.DROP_FIRST + index]
    }


@pytest.mark.parametrize(
    ("owner", "name", "stage"),
    [
        (Sampler, "row", Stage.SAMPLE),
        (Instead, "_begin", Stage.SAMPLE),
        (ArmedTree, "__init__", Stage.SAMPLE),
        (Intake, "has_room", Stage.SAMPLE),
        (Intake, "put", Stage.SAMPLE),
        (Recorder, "finish", Stage.SAMPLE),
        (Recorder, "_keep", Stage.TAP),
        (Harvest, "seen", Stage.DRAIN),
        (Folder, "fold_ranges", Stage.DRAIN),
        (WindowBuffer, "add_segment", None),
    ],
)
@pytest.mark.usefixtures("python_taps")
def test_a_fault_at_every_stage(net, x, watch_all, monkeypatch, owner, name, stage):
    expected = net(x)
    watch = watch_all(net)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        for _ in range(2):
            assert torch.equal(net(x), expected)
        watch._active.engine.tick()
    assert set(errors(watch)) == ({stage} if stage else set())
    assert "forward" not in net.fc.__dict__
    net(x)
    assert watch.report().observed_calls >= 1


def test_a_fault_of_the_controller_or_the_writer(net, x, watch_all, monkeypatch, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    with monkeypatch.context() as patch:
        patch.setattr(BudgetController, "update", broken)
        watch._active.engine.tick()
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_open", broken)
        watch._active.engine.tick()
    assert errors(watch) == {Stage.DRAIN: 2}


def test_a_state_file_that_fails_leaves_memory(net, x, watch_all, monkeypatch, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StateWriter, "_write", lambda *_: (_ for _ in ()).throw(OSError(5, "io")))
        net(x)
        watch._active.engine.tick()
    net(x)
    watch.flush()
    assert errors(watch) == {Stage.STATE: 1}
    assert drops(watch) == {DropReason.STATE_UNAVAILABLE: 2}
    assert watch.report().state_file is None
    assert watch.report().observed_calls == 2


def test_no_space_for_the_state_file(net, x, monkeypatch, tmp_path, caplog):
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        one = watch(net, name="net", sample_rate=1.0, state_dir=tmp_path)
    net(x)
    one.flush()
    assert one.report().state_file is None
    assert one.report().observed_calls == 1
    assert drops(one) == {DropReason.STATE_UNAVAILABLE: 2}
    assert "no room for the state file" in caplog.text
    assert list(tmp_path.glob("*.state")) == []
    one.close()


def test_a_state_directory_that_cannot_be_one(net, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        watch(net, name="net", state_dir=tmp_path / "file")
    assert "forward" not in net.__dict__


def test_a_full_disk_for_captures(net, x, bounded, watch_all, monkeypatch, tmp_path):
    from calidrift_agent._capture import _folder

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    watch = watch_all(
        net,
        profile=bounded(conv__input=0.1, fc__input=0.1),
        state_dir=tmp_path,
        capture=CaptureOptions(),
    )
    monkeypatch.setattr(_folder, "write_privately", full)
    net(x)
    assert drops(watch) == {DropReason.DISK_FULL: 4}
    monkeypatch.setattr(CaptureWriter, "offer", broken)
    net(x)
    assert errors(watch) == {Stage.CAPTURE: 1}
    assert watch.report().observed_calls == 2


@pytest.mark.usefixtures("python_taps")
def test_twenty_errors_in_a_row_detach(net, x, watch_all, monkeypatch, caplog):
    watch = watch_all(net)
    monkeypatch.setattr(Recorder, "_keep", broken)
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        for _ in range(CONSECUTIVE_LIMIT):
            net(x)
    assert "forward" not in net.__dict__
    report = watch.report()
    assert not report.active
    assert report.sampling_ratio == 0.0
    assert any("too many errors" in note for note in report.notes)
    assert sum("failed while watching" in record.message for record in caplog.records) == 1
    assert errors(watch)[Stage.TAP] >= CONSECUTIVE_LIMIT


def test_errors_with_successes_between_them_do_not_detach(net, x, watch_all, monkeypatch):
    watch = watch_all(net)
    for _ in range(CONSECUTIVE_LIMIT):
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "fold_ranges", broken)
            net(x)
            watch.snapshot()
        net(x)
        watch.snapshot()
    assert watch.report().active
    assert errors(watch)[Stage.DRAIN] == CONSECUTIVE_LIMIT


class Boom(Exception):
    pass


def test_the_models_own_exception_passes_unchanged_and_nothing_runs_twice(x, watch_all):
    class Raising(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(50, 2)
            self.calls = 0
            self.error = Boom("mine")

        def forward(self, x):
            self.calls += 1
            self.fc(x.flatten(1))
            if self.calls < 3:
                raise self.error
            return x

    model = Raising()
    watch = watch_all(model)
    for calls in (1, 2):
        with pytest.raises(Boom) as caught:
            model(x)
        assert caught.value is model.error
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert model.calls == calls
        assert "forward" not in model.fc.__dict__
    model(x)
    total = watch.snapshot()[1].requests
    seen, sampled, observed = total[: RequestColumn.OBSERVED + 1].tolist()
    assert (seen, sampled, observed) == (3, 3, 1)
    assert errors(watch) == {}


def test_an_interrupt_is_not_swallowed(net, x, watch_all, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    watch_all(net)
    monkeypatch.setattr(type(net.fc), "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        net(x)
    assert "forward" not in net.fc.__dict__


def test_wrong_inputs_raise_what_the_model_raises(net, watch_all):
    with pytest.raises(TypeError) as plain:
        net(1, 2, 3)
    watch_all(net)
    with pytest.raises(TypeError) as watched:
        net(1, 2, 3)
    assert str(watched.value) == str(plain.value)


def test_a_gate_passes_on_while_it_is_taken_out(net, x, watch_all):
    watch = watch_all(net)
    held = net.forward
    assert isinstance(held, Gate)
    watch.close()
    assert torch.equal(held(x), net(x))
    assert watch.report().observed_calls == 0


def test_a_profile_that_cannot_be_saved_beside_the_state(net, x, bounded, tmp_path):
    (tmp_path / "profiles").write_text("in the way")
    one = watch(
        net,
        name="net",
        profile=bounded(conv__input=1.0, fc__input=1.0),
        state_dir=tmp_path,
    )
    assert errors(one) == {Stage.STATE: 1}
    one.close()
    assert len(scan(tmp_path)) == 1
    assert Path(tmp_path / "profiles").is_file()
