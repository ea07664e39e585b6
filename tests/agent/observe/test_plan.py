"""What the shadow of a compiled module accepts, and the clone that it runs on."""

import threading

import pytest
import torch
from torch import nn

from calidrift_agent._observe._clone import TreeClone
from calidrift_agent._observe._forward_code import notices_clone
from calidrift_agent._observe._plan import TreePlan
from calidrift_agent._points import discover
from calidrift_agent._taps import Ledger, PointTable, Recorder, ShelfPool


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)
        self.scale = 1.0

    @property
    def factor(self):
        return self.scale

    def forward(self, x):
        part = lambda y: self.fc(y)  # noqa: E731
        return self.out(part(x)) * self.factor


class Inheriting(Plain):
    def forward(self, x):
        return super().forward(x)


class Writing(Plain):
    def forward(self, x):
        self.calls = 1
        return super().forward(x)


class WritingInside(Plain):
    def forward(self, x):
        def count():
            self.calls = 1

        count()
        return super().forward(x)


class Deleting(Plain):
    def forward(self, x):
        del self.scale
        return x


class HandingOn(Plain):
    def forward(self, x):
        return id(self) and super().forward(x)


class Reflecting(Plain):
    def helper(self):
        return vars(self.fc)

    def forward(self, x):
        return super().forward(x)


class Slotted(Plain):
    __slots__ = ("extra",)


class Custom(Plain):
    def __getattr__(self, name):
        return super().__getattr__(name)


@pytest.mark.parametrize("kind", [Plain, Inheriting, nn.Linear, nn.TransformerEncoderLayer])
def test_forwards_that_keep_to_their_tensors(kind):
    assert notices_clone(kind) is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Writing, "writes calls"),
        (WritingInside, "writes calls"),
        (Deleting, "writes scale"),
        (HandingOn, "hands self on"),
        (Reflecting, "uses vars"),
        (Slotted, "__slots__"),
        (Custom, "__getattr__"),
    ],
)
def test_forwards_that_would_notice(kind, reason):
    assert reason in notices_clone(kind)


def plan_of(model):
    return TreePlan(model, discover(model).points)


def with_attribute(value):
    model = Plain()
    model.__dict__["extra"] = value(model)
    return model


@pytest.mark.parametrize(
    "value",
    [
        lambda model: [model.fc],
        lambda model: {"a": (model.fc,)},
        lambda model: model.fc.forward,
        lambda model: lambda x: model.fc(x),
        lambda model: threading.Lock(),
        lambda model: threading.RLock(),
    ],
    ids=["list", "nested", "bound method", "closure", "lock", "rlock"],
)
def test_attributes_that_lead_out_of_the_clone(value):
    assert plan_of(with_attribute(value)).why_not_clone() is not None


@pytest.mark.parametrize("value", [lambda _: 3, lambda _: [1, 2], lambda _: torch.relu])
def test_attributes_that_do_not(value):
    assert plan_of(with_attribute(value)).why_not_clone() is None


def test_an_own_forward_and_hooks():
    model = Plain()
    assert plan_of(model).why_not_clone() is None
    model.fc.register_forward_hook(lambda *_: None)
    assert "hooks" in plan_of(model).why_not_clone()
    model = Plain()
    model.fc.forward = lambda x: x
    assert "forward of its own" in plan_of(model).why_not_clone()


def test_global_hooks():
    plan = plan_of(Plain())
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert plan.has_hooks()
    finally:
        handle.remove()
    assert not plan.has_hooks()


def test_a_plan_notices_changes_of_the_tree():
    for change in (
        lambda model: setattr(model, "fc", nn.Linear(4, 4)),
        lambda model: model.add_module("more", nn.ReLU()),
        lambda model: delattr(model, "out"),
        lambda model: setattr(model.fc, "__class__", type("Other", (nn.Linear,), {})),
        lambda model: object.__setattr__(model.fc, "__dict__", dict(model.fc.__dict__)),
        lambda model: model.fc.__dict__.update(_modules=dict(model.fc._modules)),
    ):
        model = Plain()
        plan = plan_of(model)
        model.scale = 2.0
        assert plan.is_current()
        change(model)
        assert not plan.is_current()


@pytest.fixture
def recorder():
    table = PointTable.of([("fc:input", ()), ("out:input", ())])
    return Recorder(table, Ledger("m", lambda: None), ShelfPool(), rows=2)


def test_a_clone_computes_the_same_and_is_observed(recorder):
    model, x = Plain(), torch.randn(2, 4)
    clone = TreeClone(plan_of(model))
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    clone.refresh()
    assert torch.equal(clone.run(recorder, (x,), {}), model(x))
    assert [reading.points for reading in recorder.readings()] == [[0], [1]]
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before


def test_a_clone_follows_the_live_tree(recorder):
    model, x = Plain(), torch.randn(2, 4)
    clone = TreeClone(plan_of(model))
    for change in (
        lambda: setattr(model, "scale", 5.0),
        lambda: model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()}),
        lambda: model.load_state_dict(
            {k: v * 2 for k, v in model.state_dict().items()}, assign=True
        ),
        lambda: model.to(torch.float64),
    ):
        change()
        x = x.to(model.fc.weight.dtype)
        clone.refresh()
        assert torch.equal(clone.run(recorder, (x,), {}), model(x))


def test_a_shared_module_is_one_clone_and_a_failing_one_lets_go(recorder):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = self.one

        def forward(self, x):
            return self.one(x) + self.two(x) + 1 / 0

    model = Shared()
    clone = TreeClone(plan_of(model))
    clone.refresh()
    with pytest.raises(ZeroDivisionError):
        clone.run(recorder, (torch.ones(2, 4),), {})
    assert [reading.points for reading in recorder.readings()] == [[0, 0]]
    assert clone._slot.recorder is None


def test_outputs_and_roots_are_observed_on_clones():
    model = nn.Linear(4, 2)
    points = discover(model, outputs=True).points
    table = PointTable.of([(point.name, ()) for point in points])
    recorder = Recorder(table, Ledger("m", lambda: None), ShelfPool(), rows=2)
    clone = TreeClone(TreePlan(model, points))
    clone.refresh()
    output = clone.run(recorder, (torch.ones(2, 4),), {})
    readings = recorder.readings()
    assert [reading.points for reading in readings] == [[0], [1]]
    assert readings[1].extremes.highs == output.amax(1).tolist()
