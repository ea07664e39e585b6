"""Watched models answer as unwatched ones do, bit for bit."""

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from calidrift_agent import Watch, WatchOptions, calibrate, watch
from calidrift_agent._vocabulary import CountColumn, RequestColumn, Stage, Strategy

OPTIONS = WatchOptions(budget=None, window_seconds=600.0)
MODES = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


class Many(nn.Module):
    """Positional and keyword inputs; outputs of every shape that services use."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(32, 16)
        self.query = nn.Linear(16, 16)
        self.key = nn.Linear(16, 16)
        self.drop = nn.Dropout(0.5)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor, scale: float = 1.0) -> Any:
        x = self.embed(ids)
        q, k = self.query(x), self.key(x)
        y = self.drop(self.relu(torch.softmax(q @ k.mT * scale, -1) @ x)) * mask[..., None]
        first, second = self.out(y), y.mean(1)
        if self.kind == "tuple":
            return first, [second, None]
        if self.kind == "dict":
            return {"logits": first, "pooled": (second, "text")}
        return first


def many_inputs() -> tuple[torch.Tensor, dict[str, Any]]:
    """Token ids, and the keyword inputs of `Many`."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 32, (4, 6), generator=generator)
    return ids, {"mask": torch.rand(4, 6, generator=generator), "scale": 0.3}


def leaves(value: Any) -> Iterator[Any]:
    """Everything in nested containers, their types and keys included."""
    yield type(value)
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from leaves(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from leaves(one)
    else:
        yield value


def assert_same(found: Any, expected: Any) -> None:
    """Same structure, dtypes, strides and bits; NaN equals NaN."""
    left, right = list(leaves(found)), list(leaves(expected))
    assert len(left) == len(right)
    for one, two in zip(left, right, strict=True):
        if not isinstance(two, torch.Tensor):
            assert one == two
            continue
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert one.stride() == two.stride()
        assert one.requires_grad == two.requires_grad
        assert one.is_inference() == two.is_inference()
        assert torch.equal(as_bits(one), as_bits(two))


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, so that -0.0 differs from 0.0 and NaN equals itself."""
    return tensor.detach().clone().contiguous().flatten().view(torch.uint8)


def failures(one: Watch) -> int:
    """Errors of all stages."""
    first = int(RequestColumn.ERROR_FIRST)
    return int(one.snapshot()[1].requests[first : first + len(Stage)].sum())


@pytest.mark.parametrize("kind", ["tensor", "tuple", "dict"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_outputs_are_bit_equal(kind: str, mode: str, dtype: torch.dtype) -> None:
    """Keyword inputs and nested outputs, in every autograd mode; the second call reuses memory."""
    torch.manual_seed(0)
    model = Many(kind).eval().to(dtype)
    twin = copy.deepcopy(model)
    ids, named = many_inputs()
    named["mask"] = named["mask"].to(dtype)
    with watch(model, name="many", sample_rate=1.0, options=OPTIONS) as one:
        for _ in range(3):
            with MODES[mode]():
                assert_same(model(ids, **named), twin(ids, **named))
            one.flush()
        assert one.report().observed_calls == 3
        assert one.report().never_fired == ()
        assert failures(one) == 0


def test_autograd_modes_may_alternate(tiny_cnn: nn.Module) -> None:
    """Memory made in inference mode is written outside of it and the other way round."""
    twin = copy.deepcopy(tiny_cnn)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    order = ["inference_mode", "grad", "no_grad", "inference_mode", "no_grad", "grad"]
    with watch(tiny_cnn, name="cnn", sample_rate=1.0, options=OPTIONS) as one:
        for mode in order * 2:
            with MODES[mode]():
                assert_same(tiny_cnn(x), twin(x))
            one.snapshot()
        assert one.report().observed_calls == 12
        assert failures(one) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_step_is_the_same(dtype: torch.dtype) -> None:
    """Dropout draws the same numbers, and every gradient is bit-equal."""
    torch.manual_seed(0)
    model = Many("tensor").train().to(dtype)
    twin = copy.deepcopy(model)
    ids, named = many_inputs()
    named["mask"] = named["mask"].to(dtype)
    with watch(model, name="train", sample_rate=1.0, options=OPTIONS) as one:
        for seed in range(3):
            results = []
            for net in (model, twin):
                torch.manual_seed(seed)
                output = net(ids, **named)
                output.float().square().sum().backward()
                results.append(output)
            assert_same(*results)
        assert one.report().observed_calls == 3
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None, name
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad), name


def test_inputs_are_left_alone(tiny_cnn: nn.Module) -> None:
    """Neither values nor version counters, gradients or graphs of inputs are touched."""
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    version = x._version
    before = x.detach().clone()
    with watch(tiny_cnn, name="cnn", sample_rate=1.0, options=OPTIONS):
        tiny_cnn(x).sum().backward()
    assert x._version == version
    assert torch.equal(x.detach(), before)
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)


def test_fused_encoder_stays_fused() -> None:
    """Taps are no hooks: the fast path of nn.TransformerEncoderLayer answers as before."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = nn.Sequential(nn.Linear(16, 16), nn.TransformerEncoder(layer, 2)).eval()
    twin = copy.deepcopy(model)
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))
    calls = []
    original = torch._transformer_encoder_layer_fwd

    def spy(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "_transformer_encoder_layer_fwd", spy)
        with watch(model, name="encoder", sample_rate=1.0, options=OPTIONS) as one:
            with torch.inference_mode():
                found = model(x)
            assert len(calls) == 2, "the watched model left its fused path"
            report = one.report()
    with torch.inference_mode():
        assert_same(found, twin(x))
    assert report.never_fired == (), "what the kernel passes over is worked out beside it"
    assert any("fused" in note for note in report.notes)


def test_int8_graph_is_untouched(tiny_int8: Any, copy_graph: Callable[..., Any]) -> None:
    """A PT2E graph is observed beside: same bits, both instruments, nothing on its nodes."""
    graph, twin = copy_graph(tiny_int8.graph), copy_graph(tiny_int8.graph)
    profile = calibrate(copy_graph(tiny_int8.graph), [tiny_int8.example])
    code = graph.code
    for mode in MODES.values():
        with watch(graph, name="int8", profile=profile, sample_rate=1.0, options=OPTIONS) as one:
            for rows in (2, 16, 16, 5):
                with mode():
                    assert_same(graph(tiny_int8.example[:rows]), twin(tiny_int8.example[:rows]))
            report = one.report()
            counts = one.snapshot()[1].counts
            assert failures(one) == 0
        assert report.strategy is Strategy.BESIDE
        assert report.observed_calls == 4
        assert report.never_fired == ()
        assert (counts[:, CountColumn.UNITS] == 4).all()
        assert (counts[:, CountColumn.CLIP_ELEMENTS] > 0).all()
        assert graph.code == code


def test_tracing_a_watched_model_leaves_no_trace(tiny_cnn: nn.Module) -> None:
    """torch.export and torch.jit.trace of a watched model see the model only."""
    x = torch.randn(2, 1, 8, 8)
    expected = [str(node) for node in torch.export.export(tiny_cnn, (x,)).graph.nodes]
    with watch(tiny_cnn, name="cnn", sample_rate=1.0, options=OPTIONS) as one:
        exported = torch.export.export(tiny_cnn, (x,))
        assert [str(node) for node in exported.graph.nodes] == expected
        before = one.report().observed_calls
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(tiny_cnn, x, check_trace=False)
        assert one.report().observed_calls == before
    assert torch.equal(traced(x), tiny_cnn(x))
    assert "calidrift" not in str(traced.graph)


@pytest.mark.slow
def test_compiled_int8_is_not_recompiled(tiny_int8: Any, copy_graph: Callable[..., Any]) -> None:
    """Inductor with freezing: same host output, no compilation by the agent, both instruments."""
    from torch._dynamo.utils import counters
    from torch._inductor import config

    profile = calibrate(copy_graph(tiny_int8.graph), [tiny_int8.example])
    frozen: AbstractContextManager[Any] = config.patch({"freezing": True})
    torch._dynamo.reset()
    with frozen, torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(copy_graph(tiny_int8.graph))
        expected = compiled(tiny_int8.example).clone()
        compiled(tiny_int8.example)
        before = copy.deepcopy({name: dict(found) for name, found in counters.items()})
        with watch(
            compiled,
            name="compiled",
            profile=profile,
            sample_rate=1.0,
            options=WatchOptions(budget=1.0, window_seconds=600.0, drain_seconds=0.05),
        ) as one:
            for _ in range(5):
                assert torch.equal(compiled(tiny_int8.example), expected)
                time.sleep(0.1)
            report = one.report()
            counts = one.snapshot()[1].counts
            assert failures(one) == 0
        assert torch.equal(compiled(tiny_int8.example), expected)
        after = {name: dict(found) for name, found in counters.items()}
    assert after == before
    assert report.strategy is Strategy.BESIDE
    assert report.observed_calls >= 1
    assert report.never_fired == ()
    assert (counts[:, CountColumn.UNITS] >= 1).all()
    assert (counts[:, CountColumn.CLIP_ELEMENTS] > 0).all()
