"""Calls in which nothing can be read: never counted as observed, always told."""

import warnings

import pytest
import torch
from torch import nn


def layer():
    return nn.Linear(4, 4)


class Streaming(nn.Module):
    """Answers piece by piece: its layers run after `forward` has returned."""

    def __init__(self):
        super().__init__()
        self.inner = layer()

    def forward(self, x):
        for _ in range(2):
            x = self.inner(x)
            yield x


class Renewing(nn.Module):
    """Puts a new layer into its tree at each call."""

    def __init__(self):
        super().__init__()
        self.inner = layer()

    def forward(self, x):
        self.inner = layer()
        return self.inner(x)


class Remembering(nn.Module):
    """Answers every second call without its layers."""

    def __init__(self):
        super().__init__()
        self.inner = layer()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x) if self.calls % 2 else x


def serve(model, calls=6):
    with torch.no_grad():
        for number in range(calls):
            answer = model(torch.full((3, 4), float(number)))
            if not isinstance(answer, torch.Tensor):
                list(answer)


@pytest.mark.parametrize("kind", [Streaming, Renewing])
def test_calls_without_a_reading_are_not_observed_and_their_points_never_fired(kind, watch_all):
    model = kind().eval()
    watch = watch_all(model)

    serve(model)

    report = watch.report()
    assert (report.observed_calls, report.unread_calls) == (0, 6)
    assert report.never_fired == report.points == ("inner:input",)
    assert any("no point fired in 6 sampled calls" in note for note in report.notes)
    requests = watch.flush().requests.tolist()
    assert requests[:3] == [6, 6, 0], "seen and sampled, but not observed"


def test_calls_with_a_reading_count_and_the_others_do_not(watch_all):
    model = Remembering().eval()
    watch = watch_all(model)

    serve(model)

    report = watch.report()
    assert (report.observed_calls, report.unread_calls) == (3, 3)
    assert report.never_fired == ()
    assert any("no point fired in 3 sampled calls" in note for note in report.notes)


def test_before_the_first_call_nothing_is_said(watch_all):
    report = watch_all(Streaming().eval()).report()

    assert report.unread_calls == 0
    assert report.never_fired == ()
    assert not any("fired" in note for note in report.notes)


def test_a_session_of_unread_calls_keeps_its_unit_for_the_first_that_is_read(watch_all):
    from calidrift_agent import calibrate, request_context

    model = Remembering().eval()
    profile = calibrate(model, [torch.zeros(2, 4)])
    model.calls = 1  # the first call of the session answers from memory
    watch = watch_all(model, profile=profile)

    with request_context(session="one"):
        serve(model, calls=2)

    window = watch.flush()
    assert window.requests.tolist()[2:4] == [1, 1]


def test_a_torchscript_part_is_reported_as_skipped(watch_all):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Sequential(layer(), nn.ReLU()).eval())
    model = nn.Sequential(layer(), scripted, layer()).eval()
    watch = watch_all(model)

    serve(model)

    report = watch.report()
    assert report.points == report.observed == ("0:input", "2:input")
    assert list(report.skipped) == ["1"]
    assert "TorchScript" in report.skipped["1"]
