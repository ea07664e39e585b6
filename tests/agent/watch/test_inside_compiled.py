"""Watched eager modules that compiled code of the host calls, or that hold compiled methods."""

import pytest
import torch
from torch import nn

from calidrift_agent._vocabulary import Strategy


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


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


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
