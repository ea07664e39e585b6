"""A class may have anything as its forward; a watched model answers as an unwatched one."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from calidrift_agent._observe._armed import LiveTap
from calidrift_agent._vocabulary import RequestColumn

INNER = nn.Linear(4, 4)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)


class StaticRoot(Outer):
    @staticmethod
    def forward(x):
        return INNER(x)


class ClassRoot(Outer):
    @classmethod
    def forward(cls, x):
        return INNER(x)


class PartialRoot(Outer):
    forward = functools.partial(torch.mul, torch.tensor(2.0))


class BuiltinRoot(Outer):
    forward = torch.relu


class ObjectRoot(Outer):
    class Call:
        def __call__(self, x):
            return INNER(x) * 2

    forward = Call()


class DispatchedRoot(Outer):
    @functools.singledispatchmethod
    def forward(self, x):
        raise AssertionError("the module was taken for the argument")

    @forward.register
    def _(self, x: torch.Tensor):
        return self.layer(x)


class StaticLeaf(nn.Linear):
    forward = staticmethod(torch.relu)


class PropertyRoot(Outer):
    @property
    def forward(self):
        return self.layer


def leaf():
    return nn.Sequential(StaticLeaf(4, 4), nn.Linear(4, 2))


MODELS = (StaticRoot, ClassRoot, PartialRoot, BuiltinRoot, ObjectRoot, DispatchedRoot, leaf)
QUIETLY = {"CALIDRIFT_NO_NATIVE": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("sample_rate", [0.0, 1.0])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_no_request_fails(watch_all, make, sample_rate, caplog):
    model, x = make().eval(), torch.ones(2, 4)
    with torch.no_grad():
        expected = model(x)
        watch = watch_all(model, sample_rate=sample_rate)
        for _ in range(3):
            assert torch.equal(model(x), expected)
        total = watch.flush()
        assert watch.report().active
        assert total.requests[RequestColumn.SEEN] == 3
        assert not caplog.records
        watch.close()
        assert torch.equal(model(x), expected)
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.slow
def test_no_request_fails_without_the_native_tap():
    here = os.fspath(Path(__file__))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", here, "-k", "request"],
        env={**os.environ, **QUIETLY, "PYTEST_ADDOPTS": "-m 'not slow'"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


class Patching(nn.Module):
    """Gives one of its layers the forward of another, in the middle of a request."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 2:
            self.first.forward = self.second.forward
        return self.second(self.first(x))


@pytest.mark.parametrize("sample_rate", [0.0, 0.5, 1.0])
def test_what_the_host_patches_in_an_observed_request_stays(watch_all, sample_rate):
    x = torch.ones(2, 4)
    with torch.no_grad():
        plain = Patching()
        expected = [plain(x) for _ in range(6)]
        model = Patching()
        watch = watch_all(model, sample_rate=sample_rate)
        for one in expected[:5]:
            assert torch.equal(model(x), one)
        watch.close()
        assert torch.equal(model(x), expected[5])
    assert model.first.forward == plain.first.forward.__func__.__get__(model.second)
    assert not any(isinstance(vars(one).get("forward"), LiveTap) for one in model.modules())


def test_a_model_whose_class_answers_forward_itself_says_that_nothing_is_seen(watch_all):
    model = PropertyRoot().eval()
    watch = watch_all(model)
    with torch.no_grad():
        assert torch.equal(model(torch.ones(2, 4)), model.layer(torch.ones(2, 4)))
    report = watch.report()
    assert report.observed_calls == 0
    assert any("calls are not seen: the class of the model answers" in one for one in report.notes)
    watch.close()
    assert not any("calls are not seen" in one for one in watch.report().notes)


def test_a_property_that_fails_counts_as_one(watch_all):
    class Fails(PropertyRoot):
        ready = True

        @property
        def forward(self):
            if self.ready:
                return self.layer
            raise RuntimeError("not yet")

    model = Fails().eval()
    watch = watch_all(model)
    model.ready = False
    assert any("calls are not seen" in one for one in watch.report().notes)
