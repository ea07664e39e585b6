"""Rows above an observed bound are kept, and a uniform share of all."""

import os
import stat
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions, request_context
from calidrift_agent._capture import _writer, list_captures, read_capture
from calidrift_agent._state import SweepOptions, sweep
from calidrift_agent._vocabulary import CaptureKind, DropReason, RequestColumn, Stage
from calidrift_agent.errors import ConfigurationError


def folder_of(tmp_path):
    (folder,) = (tmp_path / "captures").iterdir()
    return folder


def read_all(tmp_path, kind=CaptureKind.UNCOVERED):
    paths = sorted(folder_of(tmp_path).glob("*.safetensors"))
    return [one for one in map(read_capture, paths) if one.kind is kind]


def test_only_rows_above_a_bound(net, x, bounded, watch_all, tmp_path):
    x = x.clamp(-1, 1)
    x[2, 0, 0, 0] = 7.0
    watch = watch_all(
        net,
        profile=bounded(conv__input=2.0, fc__input=1e6),
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
    )
    with torch.no_grad(), request_context(segment="night", session="secret"):
        net(x)
    watch.flush()
    (capture,) = read_all(tmp_path)
    assert np.array_equal(capture.inputs["arg0"], x[2:3].numpy())
    assert (capture.row, capture.segment, capture.inclusion) == (2, "night", 1.0)
    assert capture.points == ("conv:input", "fc:input")
    assert capture.maxima[0] == 7.0
    assert "secret" not in capture.session
    assert stat.S_IMODE(folder_of(tmp_path).stat().st_mode) == 0o700


def test_inputs_are_kept_as_they_came(bounded, watch_all, tmp_path):
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x, *, mask):
            return self.fc(x.mul_(0.0).add_(9.0) * mask)

    model, x = Writing(), torch.full((1, 4), 3.0)
    watch = watch_all(
        model,
        profile=bounded(fc__input=1.0),
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
    )
    with torch.no_grad():
        model(x, mask=torch.ones(1, 4))
    watch.flush()
    (capture,) = read_all(tmp_path)
    assert set(capture.inputs) == {"arg0", "mask"}
    assert capture.inputs["arg0"].tolist() == [[3.0] * 4]


def test_captures_of_a_living_watch_stay_whatever_the_bounds(net, x, watch_all, tmp_path):
    """Its folder is locked, whether or not it has a state file; that of a closed one is not."""
    watch = watch_all(net, state_dir=tmp_path, capture=CaptureOptions())
    with torch.no_grad():
        net(x)
    watch.flush()
    kept = len(list_captures(tmp_path))
    assert kept == len(x)
    watch.report().state_file.unlink()
    child = os.fork()
    if not child:  # begins anew, and leaves the lock with its parent
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sweep(tmp_path, SweepOptions(capture_count=0)).captures == 0
    watch.close()
    assert sweep(tmp_path, SweepOptions(capture_count=1)).captures == kept - 1


def test_a_uniform_reservoir_of_covered_rows(net, x, bounded, watch_all, tmp_path):
    watch = watch_all(
        net,
        profile=bounded(conv__input=1e6, fc__input=1e6),
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=3),
    )
    with torch.no_grad():
        for _ in range(5):
            net(x)
    watch.flush()
    assert len(read_all(tmp_path, CaptureKind.UNIFORM)) == 3
    assert read_all(tmp_path) == []


def test_bfloat16(net, x, bounded, watch_all, tmp_path):
    watch = watch_all(
        net.bfloat16(),
        profile=bounded(conv__input=0.1, fc__input=1e6),
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
    )
    with torch.no_grad():
        net(x.bfloat16()[:1])
    watch.flush()
    (capture,) = read_all(tmp_path)
    assert np.array_equal(capture.as_float32("arg0"), x.bfloat16()[:1].float().numpy())


def test_of_a_quantized_graph_one_row_is_kept(tiny_int8, copy_graph, watch_all, tmp_path):
    from calidrift_agent import calibrate

    graph = copy_graph(tiny_int8.graph)
    watch = watch_all(
        graph,
        profile=calibrate(graph, [tiny_int8.example * 0.1]),
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
    )
    with torch.no_grad():
        graph(tiny_int8.example)
        watch.flush()
        graph(tiny_int8.example)
        watch.flush()
    captures = read_all(tmp_path)
    assert len(captures) == 2
    rows = tiny_int8.example.numpy()
    for capture in captures:
        assert capture.inputs["arg0"].shape == (1, 1, 8, 8)
        assert any(np.array_equal(capture.inputs["arg0"][0], row) for row in rows)
        assert capture.inclusion == pytest.approx(1 / 16)


def drops(watch, reason):
    place = RequestColumn.DROP_FIRST + list(DropReason).index(reason)
    return int(watch.snapshot()[1].requests[place])


def test_a_redaction_that_fails_is_counted(net, x, bounded, watch_all, tmp_path):
    def redact(inputs):
        raise RuntimeError("cannot say")

    watch = watch_all(
        net,
        profile=bounded(conv__input=0.1, fc__input=1e6),
        state_dir=tmp_path,
        capture=CaptureOptions(redact=redact),
    )
    with torch.no_grad():
        net(x)
    watch.flush()
    assert drops(watch, DropReason.REDACTED) == len(x)
    assert not (tmp_path / "captures").exists()


def test_encrypted_from_end_to_end(net, x, bounded, watch_all, tmp_path, monkeypatch):
    name, key = "CALIDRIFT_CAPTURE_KEYS", "QUFB" * 10 + "QUE="
    options = {
        "profile": bounded(conv__input=0.1, fc__input=1e6),
        "state_dir": tmp_path,
        "capture": CaptureOptions(reservoir=0, encrypt=True),
    }
    monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match=name):
        watch_all(net, **options)
    monkeypatch.setenv(name, key)
    watch = watch_all(net, **options)
    with torch.no_grad():
        net(x[:1])
    watch.flush()
    (path,) = folder_of(tmp_path).glob("*.fernet")
    assert np.array_equal(read_capture(path).inputs["arg0"], x[:1].numpy())
    monkeypatch.delenv(name)
    with torch.no_grad():
        net(x[:1])
    watch.flush()
    assert drops(watch, DropReason.NO_KEY) == 1


def test_the_drain_deletes_what_is_too_old(net, x, bounded, watch_all, tmp_path, monkeypatch):
    watch = watch_all(
        net,
        profile=bounded(conv__input=0.1, fc__input=1e6),
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0, ttl_hours=1.0),
    )
    with torch.no_grad():
        net(x[:1])
    watch.flush()
    assert len(read_all(tmp_path)) == 1
    later = time.monotonic() + 3600.0
    clock = SimpleNamespace(monotonic=lambda: later)
    monkeypatch.setattr(_writer, "time", clock)
    watch._active.engine.tick()
    assert read_all(tmp_path) == []

    def refuse():
        raise PermissionError("read-only")

    monkeypatch.setattr(watch._active.storage.captures, "tidy", refuse)
    watch._active.engine.tick()
    place = RequestColumn.ERROR_FIRST + list(Stage).index(Stage.CAPTURE)
    assert watch.snapshot()[1].requests[place] == 1


def test_off_by_default(net, x, bounded, watch_all, tmp_path):
    watch = watch_all(net, profile=bounded(conv__input=0.1, fc__input=0.1), state_dir=tmp_path)
    net(x)
    watch.flush()
    assert not (tmp_path / "captures").exists()
