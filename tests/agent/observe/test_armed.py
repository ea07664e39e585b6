"""The taps, native and of Python, in front of whatever a class has as its forward."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from calidrift_agent._observe._armed import LiveTap
from calidrift_agent._taps._python_tap import Tap


class PythonTap(Tap):
    """The tap of Python, also where the native one was built."""

    bind = LiveTap.bind


class Doubled:
    def __call__(self, x):
        return x * 2


class Plain(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class Static(nn.Linear):
    forward = staticmethod(torch.relu)


class StaticFunction(nn.Linear):
    @staticmethod
    def forward(x, by=2):
        return x * by


class OfClass(nn.Linear):
    @classmethod
    def forward(cls, x):
        return x * len(cls.__name__)


class Partial(nn.Linear):
    forward = functools.partial(torch.mul, torch.tensor(3.0))


class PartialMethod(nn.Linear):
    def scaled(self, x, by):
        return super().forward(x) * by

    forward = functools.partialmethod(scaled, by=3)


class Builtin(nn.Linear):
    forward = torch.relu


class CallableObject(nn.Linear):
    forward = Doubled()


class Dispatched(nn.Linear):
    @functools.singledispatchmethod
    def forward(self, x):
        raise AssertionError("the module was taken for the argument")

    @forward.register
    def _(self, x: torch.Tensor):
        return super().forward(x) * 2


KINDS = (
    Plain,
    Static,
    StaticFunction,
    OfClass,
    Partial,
    PartialMethod,
    Builtin,
    CallableObject,
    Dispatched,
)
X = torch.tensor([[1.0, -2.0], [3.0, -4.0]])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("tap", [LiveTap, PythonTap])
def test_a_tap_calls_it_as_the_module_would(tap, kind):
    module = kind(2, 2)
    expected = module(X)
    made = tap(module, -1, -1, {})
    for _ in range(3):
        assert torch.equal(made(X), expected)


@pytest.mark.parametrize("tap", [LiveTap, PythonTap])
def test_a_class_may_get_another_kind_of_forward_at_any_time(tap):
    class Layer(nn.Linear):
        def forward(self, x):
            return x + 1

    made = tap(Layer(2, 2), -1, -1, {})
    assert torch.equal(made(X), X + 1)
    Layer.forward = staticmethod(torch.relu)
    assert torch.equal(made(X), X.relu())
    Layer.forward = lambda self, x, *, by=1: x - by
    assert torch.equal(made(X), X - 1)
    assert torch.equal(made(X, by=2), X - 2)


@pytest.mark.parametrize("tap", [LiveTap, PythonTap])
def test_an_error_of_binding_is_the_hosts(tap):
    class Refuses:
        def __get__(self, instance, owner):
            if instance is None:
                return self
            raise AttributeError("not bound")

    class Layer(nn.Linear):
        forward = Refuses()

    with pytest.raises(AttributeError, match="not bound"):
        tap(Layer(2, 2), -1, -1, {})(X)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_copies_made_while_it_stands_hold_the_original(kind):
    module = kind(2, 2)
    expected = module(X)
    tap = LiveTap(module, -1, -1, {})
    tap.arm()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not isinstance(twin.__dict__["forward"], LiveTap)
        assert torch.equal(twin(X), expected)
    assert tap.disarm()
    assert "forward" not in module.__dict__


class Hidden(nn.Linear):
    @property
    def forward(self):
        weight = self.weight
        return lambda x: x @ weight


def test_a_property_is_not_asked_for_by_a_copy():
    module = Hidden(2, 2)
    tap = LiveTap(module, -1, -1, {})
    tap.arm()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.__dict__["forward"] is None
        assert torch.equal(twin(X), module(X))


def test_a_tap_that_the_host_gave_to_another_module_is_no_longer_one_there():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    taps = [LiveTap(one, -1, -1, {}) for one in (first, second)]
    for tap in taps:
        tap.arm()
    first.forward = second.forward
    assert not taps[0].disarm()  # nobody knows where it is now
    assert first.__dict__["forward"] == second.__class__.forward.__get__(second)
    assert taps[1].disarm()
    assert "forward" not in second.__dict__


def test_such_a_tap_is_found_below_another_one():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.forward = own = torch.relu
    given, above = LiveTap(second, -1, -1, {}), LiveTap(first, -1, -1, {})
    given.arm()
    first.forward = second.forward
    above.arm()
    assert given.disarm()
    assert above.disarm()
    assert first.__dict__["forward"] is own
    assert second.__dict__["forward"] is own
