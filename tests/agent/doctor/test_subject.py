import pytest
import torch

from calidrift_agent._doctor import load_subject
from calidrift_agent.errors import ConfigurationError

GOOD = """
import torch
from torch import nn

class Shop:
    @staticmethod
    def build():
        return nn.Linear(4, 2)

def build():
    return nn.Linear(4, 2), torch.ones(3, 4)

def many():
    return [torch.ones(1, 4), (torch.zeros(2, 4),), {"input": torch.ones(5, 4)}]

def stream():
    yield torch.ones(1, 4)
    yield torch.ones(2, 4)

def nothing():
    return []

def fails():
    raise RuntimeError("no weights\\nhere")

def leaves():
    raise SystemExit

def breaks():
    yield torch.ones(1, 4)
    raise KeyError("x")

def forgets():
    nn.Linear(4, 2)

def listed():
    return [nn.Linear(4, 2), torch.ones(3, 4)]

def kind():
    return nn.Linear, torch.ones(3, 4)

def asks(size):
    return size

def three():
    return 1, 2, 3

def yields():
    yield nn.Linear(4, 2)

async def waits():
    return nn.Linear(4, 2), torch.ones(3, 4)

async def trickles():
    yield torch.ones(1, 4)

def exits():
    yield torch.ones(1, 4)
    raise SystemExit(2)

value = 7
"""


def test_a_model_with_its_inputs(module):
    subject = load_subject(f"{module(GOOD)}:build")
    (request,) = subject.requests
    assert request.args[0].shape == (3, 4)
    assert request.kwargs == {}


def test_inputs_of_their_own_win_and_may_be_several(module):
    name = module(GOOD)
    first, second, third = load_subject(f"{name}:build", f"{name}:many").requests
    assert torch.equal(first.args[0], torch.ones(1, 4))
    assert second.args[0].shape == (2, 4)
    assert (third.args, set(third.kwargs)) == ((), {"input"})
    assert len(load_subject(f"{name}:Shop.build", f"{name}:stream").requests) == 2


@pytest.mark.parametrize(
    ("factory", "inputs", "sentence"),
    [
        ("nocolon", None, "must name a callable as package.module:callable"),
        (":x", None, "must name a callable"),
        ("{}:", None, "must name a callable"),
        ("absent_module_x:f", None, "cannot be imported: ModuleNotFoundError: .*; run it in the f"),
        ("models/{}.py:build", None, r"names a file, .* and write \w+:build$"),
        ("{}.py:build", None, "names a file"),
        ("..{}:build", None, "names a file"),
        ("{}:forgets", None, "returned None, but must return the model"),
        ("{}:listed", None, "returned a list, but must return the model, or a tuple"),
        ("{}:kind", None, r"returned the class Linear, .* let it return Linear\(\.\.\.\)"),
        ("{}:asks", None, "missing 1 required .* it is called without arguments"),
        ("{}:build:x", None, "has no callable 'build:x'"),
        ("{}:absent", None, "has no callable 'absent'"),
        ("{}:value", None, "has no callable 'value'"),
        ("{}:Absent.build", None, "has no callable 'Absent.build'"),
        ("{}:fails", None, "the factory .*:fails failed: RuntimeError: no weights here"),
        ("{}:leaves", None, "failed: SystemExit"),
        ("{}:three", None, "returned a tuple of 3"),
        ("{}:Shop.build", None, "there are no example inputs"),
        ("{}:yields", None, "the factory .*:yields yields, but must return .* return instead of"),
        ("{}:trickles", None, "the factory .*:trickles yields, but must return"),
        ("{}:waits", None, "the factory .*:waits is an async function, .* asyncio.run"),
        ("{}:build", "{}:waits", "--inputs .*:waits is an async function"),
        ("{}:build", "{}:trickles", "come from an asynchronous iterator"),
        ("{}:build", "{}:exits", "cannot be read: SystemExit: 2"),
        ("{}:build", "{}:nothing", "gave no example inputs"),
        ("{}:build", "{}:breaks", "cannot be read: KeyError"),
        ("{}:build", "{}:fails", "--inputs .*:fails failed"),
    ],
)
def test_what_the_user_does_wrong_is_one_sentence(module, factory, inputs, sentence):
    name = module(GOOD)
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        load_subject(factory.format(name), inputs and inputs.format(name))
    assert "\n" not in str(caught.value)


def test_a_module_that_breaks_while_it_is_imported(module):
    name = module("raise SystemExit('bye')")
    with pytest.raises(ConfigurationError, match="cannot be imported: SystemExit: bye"):
        load_subject(f"{name}:build")
