import math

import pytest
import torch
from torch import nn

from calidrift_agent._calibrate import CalibrateOptions, calibrate
from calidrift_agent._points import QuantizedGraph, fingerprint_of, quantize_nodes
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError


@pytest.fixture(scope="module")
def batches(tiny_int8):
    return [tiny_int8.example, tiny_int8.example[:5] * 3]


@pytest.fixture(scope="module")
def profile(tiny_int8, batches):
    return calibrate(tiny_int8.graph, batches)


def test_ranges_are_those_of_the_graph(profile, tiny_int8):
    ranges = CalibrationProfile.from_pt2e(tiny_int8.graph)
    assert list(profile.points) == list(ranges.points)
    for name, point in profile.points.items():
        assert point.clip_bound == ranges.points[name].clip_bound
        assert point.aliases == ranges.points[name].aliases
    assert profile.instrument is Instrument.RANGE
    assert profile.units == 21
    assert profile.fingerprint == fingerprint_of(tiny_int8.graph)


def test_bounds_and_sketches_are_those_of_the_bypassed_graph(profile, tiny_int8, batches):
    graph = QuantizedGraph(tiny_int8.graph)
    units = {index: [] for index in range(len(graph.quantizers))}
    elements = dict.fromkeys(units, 0)

    def note(index, tensor):
        units[index] += tensor.flatten(1).abs().amax(1).tolist()
        elements[index] += tensor.numel()

    for batch in batches:
        graph.run((batch,), bypass=True, observe=note)
    for index, quantizer in enumerate(graph.quantizers):
        point = profile.points[quantizer.name]
        assert point.observed_bound.top == tuple(sorted(units[index], reverse=True))
        assert point.sketch.count == elements[index]
        assert point.sketch.absmax == max(units[index])


def test_rail_rates_are_those_of_the_served_graph(profile, tiny_int8, batches):
    codes: dict[str, list[torch.Tensor]] = {}

    class Codes(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            if n in names:
                codes.setdefault(names[n], []).append(value.flatten())
            return value

    names = {one.node: one.name for one in quantize_nodes(tiny_int8.graph)}
    for batch in batches:
        Codes(tiny_int8.graph).run(batch)
    for name, found in codes.items():
        values = torch.cat(found)
        assert profile.points[name].rail_low_rate == float((values == 0).double().mean())
        assert profile.points[name].rail_high_rate == float((values == 255).double().mean())
    assert profile.points["stem:input"].rail_high_rate > 0.01


def test_it_agrees_with_the_fp32_model_where_the_served_graph_would_not(profile, tiny_cnn, batches):
    fp32 = calibrate(tiny_cnn, batches)
    beyond = 0
    for name in fp32.points:
        expected = fp32.points[name].observed_bound.value
        found = profile.find(name)
        assert math.isclose(found.observed_bound.value, expected, rel_tol=0.03), name
        beyond += expected > 1.5 * found.clip_bound.absmax
    assert beyond >= 3


def test_fp32_observations_merge_with_the_ranges_of_the_graph(tiny_cnn, tiny_int8, batches):
    ranges = CalibrationProfile.from_pt2e(tiny_int8.graph)
    fp32 = calibrate(tiny_cnn, batches)
    merged = ranges.merge(fp32)
    assert merged.units == 21
    assert merged.fingerprint.weights == ranges.fingerprint.weights
    layers = {"stem:input", "block.conv1:input", "block.conv2:input", "head:input"}
    assert {name for name in merged.points if name not in merged.unobserved} == layers
    merged.require_fits([one.name for one in quantize_nodes(tiny_int8.graph)])


def test_keyword_inputs_and_options(quantize_pt2e):
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, *, x, y):
            return {"out": self.fc(x * y)}

    inputs = {"x": torch.ones(2, 4), "y": torch.tensor([[1.0], [3.0]])}
    with torch.random.fork_rng(devices=[]):
        graph = quantize_pt2e(Keyword().eval(), (), inputs).converted
    options = CalibrateOptions(rank=2, data_fingerprint="d", preprocessing="p")
    profile = calibrate(graph, [dict(reversed(inputs.items()))], options=options)
    assert profile.points["fc:input"].observed_bound.value == 1.0
    assert (profile.fingerprint.data, profile.fingerprint.preprocessing) == ("d", "p")


def test_a_batch_that_the_graph_refuses_is_named(tiny_int8):
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        calibrate(tiny_int8.graph, [torch.ones(2, 3, 8, 8)])
    assert "calibration batch 1" in "".join(caught.value.__notes__)


def test_a_graph_in_training_mode_is_refused(quantize_pt2e):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    graph = quantize_pt2e(model, (torch.ones(3, 2),)).converted
    with pytest.raises(AttachError, match="it holds dropout"):
        calibrate(graph, [torch.ones(3, 2)])


def test_an_exported_graph_without_quantizers_is_refused(tiny_cnn):
    exported = torch.export.export(tiny_cnn, (torch.ones(2, 1, 8, 8),)).module()
    with pytest.raises(AttachError, match="or the graph that convert_pt2e returned"):
        calibrate(exported, [torch.ones(2, 1, 8, 8)])
