"""Copies of a watched model, and calls that overlap with whatever else a host does."""

import copy
import io
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions, watch
from calidrift_agent._vocabulary import CountColumn, RequestColumn

OPTIONS = WatchOptions(budget=None, window_seconds=600.0)


class Stops(nn.Module):
    """Calls back in the middle of its forward, where an observed call can be looked at."""

    def __init__(self, trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6) if trunk is None else trunk
        self.last = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor, stop: Callable[[], object] | None = None) -> torch.Tensor:
        y = self.first(x)
        if stop is not None:
            stop()
        return self.last(self.first(y))


def duplicates(model: nn.Module) -> dict[str, nn.Module]:
    """Copies of a model by every way that services use."""
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return {
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
        "torch": torch.load(stream, weights_only=False),
        "twice": copy.deepcopy(pickle.loads(pickle.dumps(copy.deepcopy(model)))),
    }


@pytest.mark.parametrize("sample_rate", [1.0, 0.0])
def test_copies_are_unwatched_and_work(sample_rate: float) -> None:
    """A copy has its own weights, is not counted, and can be watched itself."""
    model = Stops().eval()
    x = torch.randn(2, 6)
    expected = model(x)
    with watch(model, name="net", sample_rate=sample_rate, options=OPTIONS) as one:
        model(x)
        for way, twin in duplicates(model).items():
            seen = int(one.snapshot()[1].requests[RequestColumn.SEEN])
            assert torch.equal(twin(x), expected), way
            assert int(one.snapshot()[1].requests[RequestColumn.SEEN]) == seen, way
            with torch.no_grad():
                for weight in twin.parameters():
                    weight.zero_()
            assert torch.equal(twin(x), torch.zeros_like(expected)), way
            assert torch.equal(model(x), expected), way
            with watch(twin, name="twin", sample_rate=1.0, options=OPTIONS) as other:
                twin(x)
                assert other.report().observed_calls == 1, way
                assert other.report().never_fired == (), way
    assert "calidrift" not in str(pickle.dumps(model))


def test_copies_made_inside_an_observed_call_work() -> None:
    """A checkpoint thread does not wait for requests to end."""
    twins: dict[str, nn.Module] = {}
    model = Stops().eval()
    x = torch.randn(2, 6)
    with watch(model, name="net", sample_rate=1.0, options=OPTIONS) as one:
        expected = model(x, lambda: twins.update(duplicates(model)))
        assert one.report().observed_calls == 1
        for way, twin in twins.items():
            assert torch.equal(twin(x), expected), way
            assert twin.first is not model.first
            assert one.report().observed_calls == 1, way
    assert list(twins) == ["deepcopy", "pickle", "torch", "twice"]
    for way, twin in twins.items():
        for module in twin.modules():
            own = module.__dict__.get("forward")
            assert own is None or own.__self__ is module, way


def test_models_that_share_modules_are_observed_at_the_same_time() -> None:
    """Two watched models share a trunk; their calls begin and end in every order."""
    trunk = nn.Linear(6, 6)
    left, right = Stops(trunk).eval(), Stops(trunk).eval()
    x = torch.randn(2, 6)
    expected = left(x), right(x)
    with (
        watch(left, name="left", sample_rate=1.0, options=OPTIONS) as one,
        watch(right, name="right", sample_rate=1.0, options=OPTIONS) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        begun = [threading.Event(), threading.Event()]
        end = [threading.Event(), threading.Event()]

        def pause(which: int) -> None:
            begun[which].set()
            assert end[which].wait(20)

        try:
            # The left call begins, the right one goes on top of it, the left one ends below it ...
            first = pool.submit(left, x, lambda: pause(0))
            assert begun[0].wait(20)
            slow = pool.submit(right, x, lambda: pause(1))
            assert begun[1].wait(20)
            end[0].set()
            assert torch.equal(first.result(20), expected[0])
            # ... and begins again while the right one is still there.
            assert torch.equal(pool.submit(left, x).result(20), expected[0])
            assert torch.equal(left(x), expected[0])
        finally:
            end[0].set()
            end[1].set()
        assert torch.equal(slow.result(20), expected[1])
        assert "forward" not in trunk.__dict__
        rows = [int(a.snapshot()[1].counts[0, CountColumn.ROWS]) for a in (one, two)]
    assert rows == [3 * 2, 2]
    assert torch.equal(left(x), expected[0])


def test_layer_wrapped_during_an_observed_call() -> None:
    """Libraries keep `module.forward` and put a wrapper on top; it may have been a tap."""
    model = Stops().eval()
    x = torch.randn(2, 6)
    expected = model(x)

    def wrap() -> None:
        old = model.last.forward
        model.last.forward = lambda y: old(y)  # type: ignore[method-assign]

    with watch(model, name="wrapped", sample_rate=1.0, options=OPTIONS) as one:
        assert torch.equal(model(x, wrap), expected)
        wrapper = model.last.forward
        for _ in range(3):
            assert torch.equal(model(x), expected)
        assert one.report().observed_calls == 4
        rows = one.snapshot()[1].counts[:, CountColumn.ROWS].tolist()
    assert rows == [8, 8]
    assert model.last.__dict__["forward"] is wrapper
    assert torch.equal(model(x), expected)


def test_watch_of_a_layer_closed_during_a_call_of_the_model() -> None:
    """Model and layer are watched; the layer's gate is below a tap when it is told to leave."""
    model = Stops().eval()
    x = torch.randn(2, 6)
    expected = model(x)
    with watch(model, name="model", sample_rate=1.0, options=OPTIONS) as one:
        inner = watch(model.last, name="layer", sample_rate=1.0, options=OPTIONS)
        assert torch.equal(model(x), expected)
        assert torch.equal(model(x, inner.close), expected)
        assert inner.report().observed_calls == 1
        assert one.report().observed_calls == 2
        assert "forward" not in model.last.__dict__
        with watch(model.last, name="again", sample_rate=1.0, options=OPTIONS):
            assert torch.equal(model(x), expected)
    assert "forward" not in model.last.__dict__


def test_close_during_a_call() -> None:
    """The call ends undisturbed, on the way it began."""
    model = Stops().eval()
    x = torch.randn(2, 6)
    expected = model(x)
    one = watch(model, name="model", sample_rate=1.0, options=OPTIONS)
    assert torch.equal(model(x, one.close), expected)
    for module in model.modules():
        assert "forward" not in module.__dict__
    assert torch.equal(model(x), expected)
