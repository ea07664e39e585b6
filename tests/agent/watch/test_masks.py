"""Attention masks where a request is replayed: graphs and compiled modules."""

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._points import ForwardSignature
from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn


class Encoder(nn.Module):
    """Embeds tokens as their number; padding (token 9) is larger than any real token."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.fc = nn.Linear(4, 4)
        with torch.no_grad():
            self.embed.weight.copy_(torch.arange(10.0)[:, None].expand(10, 4))

    def forward(self, input_ids, attention_mask):
        x = self.fc(self.embed(input_ids))
        weight = attention_mask.to(x.dtype)[..., None]
        return (x * weight).sum(1) / weight.sum(1)


IDS = torch.tensor([[1, 2, 9, 9], [3, 4, 5, 9]])
MASK = (IDS != 9).long()


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder().eval()


@pytest.fixture(scope="module")
def graph(encoder, quantize_pt2e):
    rows = torch.export.Dim("rows", min=2, max=64)
    shapes = {"input_ids": {0: rows}, "attention_mask": {0: rows}}
    batch = {"input_ids": IDS, "attention_mask": MASK}
    return quantize_pt2e(encoder, (), batch, dynamic_shapes=shapes).converted


def chosen(kind, encoder, graph):
    if kind == "compiled":
        return torch.compile(encoder, backend="eager")
    return graph if kind == "graph" else encoder


def column(total, which):
    table = total.counts if isinstance(which, CountColumn) else total.values
    return table[:, which]


def test_the_inputs_of_an_exported_graph_have_their_names(graph):
    signature = ForwardSignature.of(graph)
    assert signature.argument("attention_mask", (IDS, MASK), {}) is MASK


@pytest.mark.parametrize("kind", ["graph", "compiled", "eager"])
def test_padding_is_left_out(encoder, graph, watch_all, kind):
    model = chosen(kind, encoder, graph)
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=MASK)
        watch = watch_all(model)
        for _ in range(30):
            output = model(input_ids=IDS, attention_mask=MASK)
        assert torch.equal(output, expected)
    meta, total = watch.snapshot()
    assert total.requests[RequestColumn.OBSERVED] == 30
    assert not total.requests[RequestColumn.ERROR_FIRST :].any()
    (row,) = [row for row, point in enumerate(meta.points) if "fc:input" in point.name]
    assert total.values[row, ValueColumn.HIGHEST] == pytest.approx(5.0, abs=0.1)
    assert total.values[row, ValueColumn.PADDED_LOWEST] == pytest.approx(9.0, abs=0.1)
    positions = (total.counts[row, [CountColumn.ELEMENTS, CountColumn.PADDED_ELEMENTS]] // 4).sum()
    assert positions == (8 * 30 if kind == "eager" else 4 * 30)


@pytest.mark.parametrize("kind", ["graph", "compiled", "eager"])
def test_a_call_of_nothing_but_padding_is_not_observed(encoder, graph, watch_all, kind):
    model = chosen(kind, encoder, graph)
    watch = watch_all(model)
    with torch.no_grad():
        model(input_ids=IDS, attention_mask=torch.zeros_like(IDS))
    requests = watch.snapshot()[1].requests
    assert requests[RequestColumn.SAMPLED] == 1
    assert requests[RequestColumn.OBSERVED] == 0
    assert not requests[RequestColumn.ERROR_FIRST :].any()


@pytest.mark.parametrize("kind", ["graph", "compiled", "eager"])
def test_a_mask_that_is_not_understood_is_noted(encoder, graph, watch_all, kind):
    model = chosen(kind, encoder, graph)
    watch = watch_all(model)
    with torch.no_grad():
        try:
            model(input_ids=IDS, attention_mask=MASK.float())
        except Exception:  # the graph was exported with integers
            assert kind == "graph"
    assert any("was not interpreted (2 dimensions" in note for note in watch.report().notes)


def test_a_graph_is_calibrated_without_padding(graph, watch_all):
    batch = {"input_ids": IDS, "attention_mask": MASK}
    profile = calibrate(graph, [batch])
    bounds = {name: point.observed_bound.value for name, point in profile.points.items()}
    assert bounds["fc:input"] == pytest.approx(5.0, abs=0.1)
    assert profile.points["fc:input"].sketch.count == 5 * 4
    # A rail rate is a share of real values: with padding it would be 3 of 8 and more.
    assert profile.points["fc:input"].rail_high_rate < 0.1
    watch = watch_all(graph, profile=profile)
    with torch.no_grad():
        for _ in range(10):
            graph(**batch)
    total = watch.snapshot()[1]
    assert total.requests[RequestColumn.UNITS_COVERED] == total.requests[RequestColumn.UNITS] == 10
    assert np.isfinite(column(total, ValueColumn.PADDED_HIGHEST)).any()
    assert not column(total, CountColumn.CLIP_HIGH).any()
