"""What a watch says it costs."""

from dataclasses import replace

import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import nn

from calidrift_agent._export import series_of
from calidrift_agent._profile import ObservedBound
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import ShelfPool
from calidrift_agent._watch import CostEstimate
from calidrift_agent._watch._cost import POINT_BYTES
from calidrift_agent._watch._detection import ReferenceUnits
from calidrift_agent.errors import ConfigurationError


def with_units(profile, units):
    bound = ObservedBound(1.0, 2, units, (3.0, 1.0))
    points = {
        name: replace(one, observed_bound=bound if one.has_observations else None)
        for name, one in profile.points.items()
    }
    return replace(profile, points=points)


def test_the_report_says_what_it_costs(net, x, watch_all, bounded, tmp_path):
    profile = with_units(bounded(conv__input=1.0, fc__input=None), 700)
    watch = watch_all(net, profile=profile, state_dir=tmp_path)
    before = watch.report()
    assert (before.cost.own_seconds, before.cost.forward_seconds) == (None, None)
    assert before.cost.ratio_within(0.01) is None
    assert before.references == (ReferenceUnits(2, 700),)
    assert before.detectable_exceedance is not None
    with torch.no_grad():
        for _ in range(6):
            net(x)
            watch.flush()
    cost = watch.report().cost
    assert cost.points == 2
    assert cost.file_bytes == before.state_file.stat().st_size
    assert cost.own_seconds > 0.0
    assert cost.forward_seconds > 0.0
    assert 0.0 < cost.ratio_within(0.01) <= 1.0
    before.state_file.unlink()
    assert watch.report().cost.file_bytes is None


def test_without_files_and_without_profile(net, watch_all):
    report = watch_all(net).report()
    assert report.cost.file_bytes is None
    assert report.references == ()
    assert report.detection_seconds(10.0) is None


@pytest.mark.parametrize(
    "way", ["instead", "graph", "compiled", "edges", "eager_int8", "graph_int8", "torchao"]
)
def test_memory_for_copies_is_known_whoever_keeps_it(way, net, x, watch_all, request, monkeypatch):
    """And all of it: what one keeper has is what another has not."""
    pools = []
    make = ShelfPool.__init__
    monkeypatch.setattr(
        ShelfPool, "__init__", lambda pool, **given: (make(pool, **given), pools.append(pool))[0]
    )
    model, value = net, x
    if way == "graph":
        tiny = request.getfixturevalue("tiny_int8")
        model, value = request.getfixturevalue("copy_graph")(tiny.graph), tiny.example
    elif way == "compiled":
        model = torch.compile(net, backend="eager")
    elif way == "edges":
        model = lambda tensor: tensor * 2.0  # noqa: E731
    elif way in ("eager_int8", "graph_int8"):
        kind = "stub" if way == "eager_int8" else "graph"
        model, value = request.getfixturevalue(f"ao_{kind}").model, torch.ones(2, 3, 10, 10)
    elif way == "torchao":
        quantize = request.getfixturevalue("quantize_torchao")
        layers = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8)).eval()
        scale = {"act_quant_scale": torch.tensor([[0.05]]), "granularity": "PerTensor"}
        model = quantize(layers, "Int8StaticActivationInt8WeightConfig", **scale)
        value = torch.ones(2, 32)
    watch = watch_all(model)
    with torch.no_grad():
        for _ in range(3):
            watch(value)
            watch.flush()
    kept = sum(pool.size for pool in pools)
    assert watch.report().cost.copy_bytes == kept > 0


def test_dequantized_weights_of_a_shadow_pass_are_told(net, watch_all, tiny_int8, copy_graph):
    watch = watch_all(copy_graph(tiny_int8.graph))
    assert watch.report().cost.weight_bytes == 0  # no pass yet
    with torch.no_grad():
        watch(tiny_int8.example)
        watch.flush()
    kept = watch.report().cost.weight_bytes
    codes = [one for one in tiny_int8.graph.buffers() if one.dtype is torch.int8]
    assert kept >= 4 * sum(one.numel() for one in codes) > 0
    assert watch_all(net).report().cost.weight_bytes == 0


def test_a_watch_that_is_off_costs_nothing(net, watch_all, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    assert watch_all(net).report().cost is None


def test_memory_is_what_a_buffer_takes():
    buffer = WindowBuffer(3, window_seconds=1.0, now_ns=0)
    for second in range(1, 40):
        buffer.close(second * 10**9)
    closed = buffer._closed
    arrays = [buffer.counts, buffer.values, buffer.cells]
    arrays += [closed.counts, closed.values, closed.cells]
    arrays += [absmax for _, absmax in buffer._recent]
    assert 0.99 * 3 * POINT_BYTES < sum(array.nbytes for array in arrays) <= 3 * POINT_BYTES
    assert CostEstimate(3).state_bytes == 3 * POINT_BYTES


def test_series_are_what_a_registry_shows_at_most(net, x, watch_all, bounded):
    watch = watch_all(net, profile=bounded(conv__input=1.0, fc__input=1.0))
    with torch.no_grad():
        net(x)
    registry = CollectorRegistry()
    registry.register(watch.collector())
    shown = sum(len(family.samples) for family in registry.collect())
    most = watch.report().cost.series
    assert most == series_of(2)
    assert shown <= most <= shown + 20


def test_a_ratio_within_a_budget():
    cost = CostEstimate(1, own_seconds=0.004, forward_seconds=0.002)
    assert cost.ratio_within(0.02) == 0.01
    assert CostEstimate(1, own_seconds=1e-9, forward_seconds=1.0).ratio_within(0.01) == 1.0
    for budget in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigurationError, match=r"budget is .* share"):
            cost.ratio_within(budget)
