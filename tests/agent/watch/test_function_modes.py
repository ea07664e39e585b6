"""A function mode of the host is shown its own calls of torch, and none of the agent's."""

import copy

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from calidrift_agent._taps import function_modes


class Counts(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


class Net(nn.Module):
    """Large enough activations that Python measures them at once, and small ones."""

    def __init__(self, width=4):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.second(self.first(x).relu())


def eager(model, watch_all, **how):
    return model, watch_all(model, **how)


def compared(model, watch_all):
    return eager(model, watch_all, reference=copy.deepcopy(model))


def compiled(model, watch_all):
    made = torch.compile(model, backend="eager")
    with torch.no_grad():
        made(torch.ones(2, 4))
    return made, watch_all(made)


def at_its_edges(model, watch_all):
    watch = watch_all(lambda x: model(x))
    return watch, watch


def inner(mode, call):
    """The outer mode of two also sees nothing of the agent's."""
    with mode, Counts():
        return call()


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("way", [eager, compared, compiled, at_its_edges])
def test_it_sees_the_hosts_calls_only(watch_all, request, way, python):
    if python:
        request.getfixturevalue("python_taps")
    model, x = Net().eval(), torch.ones(2, 4)
    with torch.no_grad():
        served, watch = way(model, watch_all)
        watch.close()
        with Counts() as plain:
            expected = served(x)
        assert len(plain.seen) >= 3
        served, watch = way(model, watch_all)
        for _ in range(3):
            with Counts() as mode:
                found = served(x)
                assert function_modes() == 1
            assert torch.equal(found, expected)
            assert mode.seen == plain.seen
            two = Counts()
            inner(two, lambda: served(x))
            assert two.seen == plain.seen
        assert watch.report().observed_calls == 6
    assert function_modes() == 0


def test_large_tensors_and_kernels_that_pass_over_layers(watch_all):
    layer = nn.TransformerEncoderLayer(64, 2, 64, batch_first=True).eval()
    x = torch.ones(40, 40, 64)
    with torch.no_grad():
        with Counts() as plain:
            layer(x)
        watch = watch_all(layer)
        with Counts() as mode:
            layer(x)
    assert mode.seen == plain.seen
    assert watch.report().observed_calls == 1


def test_modes_that_the_host_enters_and_leaves_in_its_forward_stay_as_it_left_them(watch_all):
    mode = Counts()

    class Enters(Net):
        def forward(self, x):
            mode.__enter__()
            return super().forward(x)

    model = Enters().eval()
    watch_all(model)
    with torch.no_grad():
        with Counts():
            model(torch.ones(2, 4))
            assert function_modes() == 2
            mode.__exit__(None, None, None)
        assert function_modes() == 0


def test_after_an_error_of_the_host_its_modes_are_there(watch_all):
    class Fails(Net):
        def forward(self, x):
            raise ValueError("host")

    model, x = Fails().eval(), torch.ones(2, 4)
    watch_all(model)
    with Counts() as mode:
        with pytest.raises(ValueError, match="host"):
            model(x)
        assert function_modes() == 1
        torch.ones(1)
    assert mode.seen == [torch.ones]


def test_a_default_device_stays_the_default(watch_all):
    model = Net().eval()
    watch = watch_all(model)
    with torch.no_grad(), torch.device("meta"):
        assert model(torch.ones(2, 4, device="cpu")).is_cpu
        assert torch.ones(1).is_meta
    assert watch.report().observed_calls == 1
