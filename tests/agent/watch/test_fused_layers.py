"""Eager models whose encoder layers run as one kernel: the kernel stays, the points are seen."""

import warnings

import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._vocabulary import CountColumn, RequestColumn, Stage, ValueColumn

INNER = ("body.layers.0.linear1:input", "body.layers.0.linear2:input")


class Encoder(nn.Module):
    def __init__(self, nested):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embed = nn.Linear(8, 8)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.head = nn.Linear(8, 3)

    def forward(self, x, padding=None):
        return self.head(self.body(self.embed(x), src_key_padding_mask=padding).mean(1))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(nested=False).eval()


@pytest.fixture
def x():
    return torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def kernels(monkeypatch):
    """Calls of the fused kernel."""
    calls = []
    original = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(
        torch,
        "_transformer_encoder_layer_fwd",
        lambda *args: calls.append(1) or original(*args),
    )
    return calls


def inner_extremes(model, x):
    """What the linear layers of the body are given, row by row, with gradients on: not fused."""
    found = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: found.setdefault(f"{name}:input", args[0].detach())
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.enable_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return {
        name: [(float(row.min()), float(row.max())) for row in tensor]
        for name, tensor in found.items()
    }


def failed(total):
    first = RequestColumn.ERROR_FIRST
    return int(total.requests[first : first + len(Stage)].sum())


def column(watch, kind, index):
    meta, total = watch.snapshot()
    assert failed(total) == 0
    values = getattr(total, kind)[:, index].tolist()
    return dict(zip([point.name for point in meta.points], values, strict=True))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_kernel_answers_whether_a_request_is_observed_or_not(
    encoder, x, watch_all, kernels, rate
):
    with torch.inference_mode():
        expected = encoder(x)
        assert len(kernels) == 2
        watch = watch_all(encoder, sample_rate=rate)
        assert torch.equal(encoder(x), expected)
        assert len(kernels) == 4
        watch.flush()
        assert len(kernels) == 4
    assert watch.report().never_fired == ()


def test_the_inner_points_are_those_of_the_row_that_stands_for_the_request(encoder, x, watch_all):
    expected = inner_extremes(encoder, x)
    watch = watch_all(encoder)
    with torch.no_grad():
        encoder(x)
    rows = column(watch, "counts", CountColumn.ROWS)
    lows, highs = (
        column(watch, "values", index) for index in (ValueColumn.LOWEST, ValueColumn.HIGHEST)
    )
    assert rows["embed:input"] == 4
    assert column(watch, "counts", CountColumn.ELEMENTS)[INNER[1]] == 5 * 16
    for name in INNER:
        assert rows[name] == 1
        assert (lows[name], highs[name]) in [pytest.approx(one) for one in expected[name]]


def test_the_row_is_the_same_at_all_inner_points(encoder, x, watch_all):
    expected = inner_extremes(encoder, x)
    for _ in range(4):
        with watch_all(encoder) as watch, torch.no_grad():
            encoder(x)
            highs = column(watch, "values", ValueColumn.HIGHEST)
        rows = {
            next(
                row
                for row, one in enumerate(expected[name])
                if pytest.approx(highs[name]) == one[1]
            )
            for name in INNER
        }
        assert len(rows) == 1


def test_coverage_counts_the_inner_points(encoder, x, watch_all):
    others = torch.randn(64, 5, 8, generator=torch.Generator().manual_seed(2))
    watch = watch_all(encoder, profile=calibrate(encoder, [others, x]))
    with torch.no_grad():
        encoder(x)
        watch.flush()  # the inner points are worked out here, with the weights of this moment
        encoder.body.layers[0].linear1.weight.mul_(50.0)
        encoder(x)
    units = column(watch, "counts", CountColumn.UNITS)
    exceeded = column(watch, "counts", CountColumn.EXCEEDANCES)
    assert units[INNER[0]] == units[INNER[1]] == units["head:input"] == 2
    assert (exceeded[INNER[0]], exceeded[INNER[1]]) == (0, 1)


def test_with_gradients_every_row_is_seen(encoder, x, watch_all, kernels):
    watch = watch_all(encoder)
    encoder(x)
    assert kernels == []
    assert column(watch, "counts", CountColumn.ROWS)[INNER[0]] == 4


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_inside_the_encoder(x, watch_all, kernels):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = Encoder(nested=True).eval()
    padding = torch.zeros(4, 5, dtype=torch.bool)
    padding[1:, 3:] = True
    with torch.no_grad():
        expected = model(x, padding)
        watch = watch_all(model)
        assert torch.equal(model(x, padding), expected)
    assert len(kernels) == 4
    assert watch.report().never_fired == ()
    assert column(watch, "counts", CountColumn.ELEMENTS)[INNER[0]] in (3 * 8, 5 * 8)


def test_the_root_itself(x, watch_all, kernels):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad():
        expected = layer(x)
        watch = watch_all(layer)
        assert torch.equal(layer(x), expected)
    assert len(kernels) == 2
    assert watch.report().observed == ("linear1:input", "linear2:input")


def test_a_request_of_which_a_replay_failed_is_no_unit(encoder, x, watch_all):
    watch = watch_all(encoder, profile=calibrate(encoder, [x]))
    with torch.no_grad():
        encoder(x)
        assert watch.flush().requests[RequestColumn.UNITS] == 1
        encoder(x)
        encoder.body.layers[0].norm1.weight = nn.Parameter(torch.ones(3))  # until it is drained
        _, total = watch.snapshot()
    errors = total.requests[RequestColumn.ERROR_FIRST :]
    assert int(errors[list(Stage).index(Stage.TAP)]) == 1
    assert total.requests[RequestColumn.UNITS] == 1
    assert total.requests[RequestColumn.OBSERVED] == 2


def test_attention_by_itself_is_reported_as_skipped(watch_all):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            x = self.fc(x)
            return self.attention(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model = Attention().eval()
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        expected = model(x)
        watch = watch_all(model)
        assert torch.equal(model(x), expected)
    report = watch.report()
    assert report.observed == report.points == ("fc:input",)
    assert set(report.skipped) == {"attention", "attention.out_proj"}
