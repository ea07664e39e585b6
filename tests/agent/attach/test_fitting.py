"""Which models a watch may be put on."""

import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions, watch
from calidrift_agent.errors import AttachError


@pytest.fixture
def start():
    made = []

    def make(model):
        made.append(watch(model, name="net", sample_rate=1.0, options=WatchOptions(budget=None)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 4)).eval()


@pytest.mark.parametrize("watches", [1, 2])
def test_the_gate_of_a_closed_watch_that_the_host_put_back_is_taken_out(start, model, watches):
    x = torch.ones(1, 4)
    expected = model(x)
    for _ in range(watches):
        first = start(model)
        saved = model.forward
        model.forward = lambda *args, saved=saved: saved(*args)
        model(x)
        first.close()
        model.forward = saved
    second = start(model)
    assert torch.equal(model(x), expected)
    assert second.flush().requests[0] == 1
    second.close()
    assert "forward" not in model.__dict__


def test_a_gate_of_a_running_watch_is_left(start, model):
    start(model)
    with pytest.raises(AttachError, match="watched already"):
        start(model)
