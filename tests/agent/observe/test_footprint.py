import itertools
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent._observe import _footprint
from calidrift_agent._observe._footprint import footprint


class Slotted:
    __slots__ = ("missing", "value")

    def __init__(self):
        self.value = 1


class Plain:
    shared = 1

    def __init__(self):
        self.value = 1


TABLE = {"a": 1}


class Net(nn.Module):
    limit = 3

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("total", torch.zeros(2))
        self.number = float("nan")
        self.items = [1, [2], deque([3])]
        self.names = {"a", "b"}
        self.array = np.zeros(3)
        self.series = itertools.count()
        self.generator = torch.Generator()
        self.slotted = Slotted()
        self.plain = Plain()
        self.bound = self.helper
        self.run = partial(max, [1])
        self.loop = self.items
        self.itself = [self]

    def helper(self, x, most=3, *, least=1):
        return x

    def forward(self, x):
        TABLE.get("a")
        return self.fc(x)


def set_(name, value):
    return lambda net: setattr(net, name, value)


CHANGES = {
    "number": set_("number", 2.0),
    "item": lambda net: net.items.append(2),
    "inner item": lambda net: net.items[1].append(2),
    "deque": lambda net: net.items[2].append(2),
    "set": lambda net: net.names.add("c"),
    "array": lambda net: net.array.__setitem__(0, 1.0),
    "series": lambda net: next(net.series),
    "generator": lambda net: torch.rand(1, generator=net.generator),
    "slot": lambda net: setattr(net.slotted, "value", 2),
    "filled slot": lambda net: setattr(net.slotted, "missing", 2),
    "attribute of an attribute": lambda net: setattr(net.plain, "value", 2),
    "class of an attribute": lambda net: setattr(Plain, "shared", Plain.shared + 1),
    "own class": lambda net: setattr(Net, "limit", Net.limit + 1),
    "global": lambda net: TABLE.update(a=TABLE["a"] + 1),
    "partial": lambda net: net.run.args[0].append(2),
    "write": lambda net: net.total.add_(1),
    "new tensor": lambda net: setattr(net, "total", torch.zeros(2)),
    "new attribute": set_("other", 1),
    "removed": lambda net: delattr(net, "number"),
    "hook": lambda net: net.fc.register_forward_hook(print),
    "mode": lambda net: net.train(not net.training),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(change):
    net = Net().eval()
    before = footprint(net)
    assert before.difference(footprint(net)) is None
    with torch.no_grad():
        CHANGES[change](net)
    assert before.difference(footprint(net)) is not None


def test_a_run_changes_nothing():
    net = Net().eval()
    before = footprint(net)
    with torch.inference_mode():
        net(torch.ones(1, 2))
    assert before.difference(footprint(net)) is None


def test_the_place_is_named():
    net = Net()
    before = footprint(net)
    net.plain.value = 5
    assert before.difference(footprint(net)) == "Net.plain.value"


def test_what_is_found():
    net = Net()
    found = footprint(net)
    assert found.modules == {id(net), id(net.fc)}
    assert {id(one) for one in found.tensors} == {
        id(one) for one in (*net.parameters(), *net.buffers())
    }
    assert found.compiled == []


def test_compiled_functions_are_named_and_disabled_ones_are_not():
    net = Net()
    net.disabled = torch.compiler.disable(lambda x: x)
    assert footprint(net).compiled == []
    net.fast = torch.compile(lambda x: x, backend="eager")
    assert len(footprint(net).compiled) == 1


def test_special_tensors():
    net = Net()
    with torch.inference_mode():
        net.inference = torch.ones(2)
    net.meta = torch.ones(2, device="meta")
    net.sparse = torch.ones(2).to_sparse()
    before = footprint(net)
    assert before.difference(footprint(net)) is None


def test_not_more_than_the_limit_is_looked_at(monkeypatch):
    monkeypatch.setattr(_footprint, "LIMIT", 10)
    assert len(footprint(Net()).facts) == 10


def test_closures_that_are_not_filled_yet():
    def make():
        def forward(x):
            return late(x)

        net = nn.Identity()
        net.forward = forward
        before = footprint(net)
        late = torch.relu
        return before, footprint(net), late

    before, after, _ = make()
    assert before.difference(after) is not None
