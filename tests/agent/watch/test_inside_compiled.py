"""Watched eager modules that compiled code of the host calls, or that hold compiled methods."""

import pytest
import torch
from torch import nn

from calidrift_agent._vocabulary import Strategy

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + 1


class CompiledForward(Net):
    @torch.compile(backend="eager", fullgraph=True)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


class CompiledPart(Net):
    def __init__(self) -> None:
        super().__init__()
        self.fast = torch.compile(self.work, backend="eager", fullgraph=True)

    def work(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fast(x)


@pytest.mark.parametrize("first", [True, False], ids=["compiled before", "compiled after"])
def test_compiled_code_may_call_a_watched_module(watch_all, first):
    inner, x = Net().eval(), torch.randn(2, 16)
    outer = Outer(inner).eval()
    expected = outer(x)
    host = torch.compile(outer, backend="eager")
    if first:
        host(x)
    watch = watch_all(inner)
    for _ in range(3):
        assert torch.equal(host(x), expected)
    watch.close()
    assert torch.equal(host(x), expected)


@pytest.mark.parametrize("kind", [CompiledForward, CompiledPart])
def test_compiled_methods_are_never_traced_with_taps(watch_all, kind):
    model, x = kind().eval(), torch.randn(2, 16)
    expected = model(x)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    watch = watch_all(model)
    for _ in range(3):
        assert torch.equal(model(x), expected)
    report = watch.report()
    assert report.strategy is Strategy.EDGES
    assert report.observed_calls == 3
    assert "compiled by itself" in report.skipped["linear"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@torch.compile(backend="eager", fullgraph=True)
def run_layer(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(layer(x))


@torch.compile(backend="eager", fullgraph=True)
def scaled(x: torch.Tensor) -> torch.Tensor:
    return (x.relu() * 2).clamp(max=6.0)


class GivesLayer(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return run_layer(self.linear, x)


class GivesTensor(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(scaled(x))


class Hides(Net):
    """Gives a layer to a compiled function that no source names."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(globals()["run_" + "layer"](self.linear, x))


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_compiled_function_that_runs_layers_never_meets_a_tap(watch_all, rate, warm):
    torch._dynamo.utils.counters.clear()
    model, x = GivesLayer().eval(), torch.randn(2, 16)
    expected = torch.relu(nn.functional.linear(x, model.linear.weight, model.linear.bias))
    if warm:
        model(x)
    watch = watch_all(model, sample_rate=rate)
    for _ in range(3):
        assert torch.equal(model(x), expected)
    report = watch.report()
    assert report.strategy is Strategy.EDGES
    assert "run_layer may run layers" in report.skipped["linear"]
    assert report.observed_calls == (3 if rate else 0)
    watch.close()
    model(x)
    assert graphs() == 1


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_compiled_function_of_tensors_is_no_obstacle(watch_all, rate):
    torch._dynamo.utils.counters.clear()
    model, x = GivesTensor().eval(), torch.randn(2, 16)
    expected = model(x)
    watch = watch_all(model, sample_rate=rate)
    for _ in range(3):
        assert torch.equal(model(x), expected)
    report = watch.report()
    assert report.strategy is Strategy.INSTEAD
    assert report.observed == (("linear:input",) if rate else ())
    assert graphs() == 1


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
def test_taps_step_aside_where_nobody_could_know(watch_all, request, warm, native):
    if not native:
        request.getfixturevalue("python_taps")
    torch._dynamo.utils.counters.clear()
    model, x = Hides().eval(), torch.randn(2, 16)
    expected = model(x)
    if not warm:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    watch = watch_all(model)
    for _ in range(3):
        assert torch.equal(model(x), expected)
    report = watch.report()
    assert report.strategy is Strategy.INSTEAD
    assert report.never_fired == ("linear:input",)
    watch.close()
    assert torch.equal(model(x), expected)
    assert graphs() == 2  # one with the tap standing there, one without
    assert not torch._dynamo.utils.counters["graph_break"]


def test_code_that_is_compiled_meanwhile_holds_no_tap(watch_all):
    made = []

    class Compiles(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not made:
                made.append(torch.compile(self.linear, backend="eager", fullgraph=True))
            return made[0](x)

    model, x = Compiles().eval(), torch.randn(2, 16)
    watch = watch_all(model)
    for _ in range(3):
        assert torch.equal(model(x), model.linear(x))
    watch.close()
    assert torch.equal(made[0](x), model.linear(x))
