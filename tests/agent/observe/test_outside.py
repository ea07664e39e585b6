"""What the source of a model's functions tells: here, compiled functions that may run layers."""

import sys
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from calidrift_agent._observe import compiled_from, compiled_with_layers

LAYER = nn.Linear(2, 2)
LAYERS = {"a": LAYER}


def helper(value, x):
    return value(x)


def tensors_only(x):
    return torch.nn.functional.gelu(x)


def compiled(function):
    return torch.compile(function, backend="eager")


class Base(nn.Module):
    """Calls `self.function`, which each test puts into the globals of this file."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return FUNCTION(self.fc, x)


FUNCTION = None


def calls_it(given, x):
    return given(x)


def calls_a_part(given, x):
    return given.attention(x)


def calls_an_entry(given, x):
    return given[0](x)


def calls_each(given, x):
    for one in given:
        x = one(x)
    return x


def calls_another_name(given, x):
    inner = given
    return inner(x)


def passes_it_on(given, x):
    return helper(given, x)


def knows_a_layer(given, x):
    return LAYER(x)


def knows_layers(given, x):
    return LAYERS["a"](x)


def calls_a_norm(given, x):
    return given.norm(x)


def computes(given, x):
    y = x.matmul(given).norm(dim=-1)
    return tensors_only(y).relu() + y.shape[0]


def computes_with_lists(given, x):
    found = [x]
    for one in x.unbind():
        found.append(one.sum())
        found.extend(one.unbind())
    return found


def defines(given, x):
    def inner(y):
        return y + 1

    return inner(x)


RUN_LAYERS = [
    calls_it,
    calls_a_part,
    calls_an_entry,
    calls_each,
    calls_another_name,
    passes_it_on,
    knows_a_layer,
    knows_layers,
    calls_a_norm,
]
COMPUTE = [computes, computes_with_lists, defines]


@pytest.mark.parametrize("function", RUN_LAYERS, ids=lambda one: one.__name__)
def test_functions_that_may_run_layers(monkeypatch, function):
    monkeypatch.setattr(sys.modules[__name__], "FUNCTION", compiled(function))
    assert compiled_with_layers(Base()) == function.__name__
    monkeypatch.setattr(sys.modules[__name__], "FUNCTION", function)
    assert compiled_with_layers(Base()) is None  # it is not compiled
    disabled = torch.compiler.disable(function)
    monkeypatch.setattr(sys.modules[__name__], "FUNCTION", disabled)
    assert compiled_from(disabled) is None
    assert compiled_with_layers(Base()) is None


@pytest.mark.parametrize("function", COMPUTE, ids=lambda one: one.__name__)
def test_functions_of_tensors(monkeypatch, function):
    monkeypatch.setattr(sys.modules[__name__], "FUNCTION", compiled(function))
    assert compiled_with_layers(Base()) is None


def test_a_function_without_source_may_do_anything(monkeypatch):
    space = {}
    exec("def made(given, x): return x", space)
    monkeypatch.setattr(sys.modules[__name__], "FUNCTION", compiled(space["made"]))
    assert compiled_with_layers(Base()) == "made"


def test_a_function_that_a_method_calls(monkeypatch):
    class Deep(Base):
        def forward(self, x):
            return self.step(x)

        def step(self, x):
            return FUNCTION(self.fc, x)

    monkeypatch.setattr(sys.modules[__name__], "FUNCTION", compiled(calls_it))
    assert compiled_with_layers(nn.Sequential(Deep())) == "calls_it"


def test_odd_objects_in_globals_are_no_obstacle(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "FUNCTION", Mock())
    assert compiled_with_layers(Base()) is None


def test_nothing_is_read_where_nothing_was_compiled(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    model = Base()
    monkeypatch.setattr(model, "modules", lambda: pytest.fail("walked"))
    assert compiled_with_layers(model) is None
