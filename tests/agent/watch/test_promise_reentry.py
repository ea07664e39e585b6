"""Calls that come where nobody expects them, and code that looks at what it is called through."""

import signal

import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions, calibrate, watch
from calidrift_agent._observe import _armed
from calidrift_agent._taps import Recorder
from calidrift_agent._vocabulary import CountColumn, RequestColumn

OPTIONS = WatchOptions(budget=None, window_seconds=3600.0, drain_seconds=60.0)


def test_a_call_between_two_steps_of_arming_goes_on(monkeypatch):
    """As of a signal handler: the same thread calls the model while it holds the lock."""
    model, x = nn.Sequential(nn.Linear(8, 8)).eval(), torch.ones(1, 8)
    expected = model(x)
    answers = []
    arm = _armed.arm

    def interrupted(taps):
        answers.append(model(x))
        arm(taps)

    with watch(model, name="net", sample_rate=1.0, options=OPTIONS) as one:
        monkeypatch.setattr(_armed, "arm", interrupted)
        answers.append(model(x))
        monkeypatch.undo()
        answers.append(model(x))
        total = one.snapshot()[1]
    assert len(answers) == 3
    assert all(torch.equal(answer, expected) for answer in answers)
    assert total.requests[RequestColumn.SEEN] == 3
    assert "forward" not in model[0].__dict__


def test_a_signal_handler_may_call_the_model():
    model, x = nn.Sequential(nn.Linear(8, 8)).eval(), torch.ones(1, 8)
    expected = model(x)
    handled = []
    inside = False

    def handle(*_):
        nonlocal inside
        if not inside:
            inside = True
            handled.append(torch.equal(model(x), expected))
            inside = False

    before = signal.signal(signal.SIGVTALRM, handle)
    try:
        with watch(model, name="net", sample_rate=1.0, options=OPTIONS):
            # Far apart: a handler that is due again when it ends would leave no time to the rest.
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.01, 0.01)
            for _ in range(20_000):
                assert torch.equal(model(x), expected)
                if len(handled) >= 40:
                    break
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert handled
    assert all(handled)
    assert "forward" not in model[0].__dict__


def test_code_that_looks_at_a_layers_forward_sees_its_own():
    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            own = self.fc.forward
            return own.__name__, own.__func__ is nn.Linear.forward, self.fc(x)

    model, x = Looking().eval(), torch.ones(1, 8)
    expected = model(x)
    with watch(model, name="net", sample_rate=1.0, options=OPTIONS):
        found = model(x)
    assert found[:2] == expected[:2] == ("forward", True)
    assert torch.equal(found[2], expected[2])


@pytest.mark.usefixtures("python_taps")
def test_a_request_whose_tap_failed_is_not_called_covered(monkeypatch):
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).eval(), torch.ones(4, 8)
    profile = calibrate(model, [x])
    keep = Recorder._keep

    def failing(recorder, point, tensor):
        if point == 1:
            raise RuntimeError("no memory")
        keep(recorder, point, tensor)

    with watch(model, name="net", profile=profile, sample_rate=1.0, options=OPTIONS) as one:
        monkeypatch.setattr(Recorder, "_keep", failing)
        model(x)
        failed = one.snapshot()[1]
        monkeypatch.undo()
        model(x)
        total = one.snapshot()[1]
    assert failed.requests[RequestColumn.OBSERVED] == 1
    assert failed.requests[RequestColumn.UNITS] == 0
    assert failed.requests[RequestColumn.UNITS_COVERED] == 0
    assert total.requests[RequestColumn.UNITS] == total.requests[RequestColumn.UNITS_COVERED] == 1
    assert total.counts[:, CountColumn.UNITS].tolist() == [1, 1]


def test_transforms_are_passed_over_and_the_watch_goes_on():
    """A batched tensor of `torch.vmap` has no memory of its own to read."""

    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 8)

        def forward(self, x):
            return torch.vmap(self.second)(self.first(x))

    model, x = Mapped().eval(), torch.ones(4, 8)
    with torch.no_grad():
        expected = model(x)
        with watch(model, name="net", sample_rate=1.0, options=OPTIONS) as one:
            for _ in range(30):
                assert torch.equal(model(x), expected)
            report, total = one.report(), one.snapshot()[1]
    assert report.active
    assert report.observed == ("first:input",)
    assert not total.requests[RequestColumn.ERROR_FIRST :].any()
