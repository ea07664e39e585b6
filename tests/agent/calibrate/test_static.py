"""Calibration of INT8 models made of modules: rail rates, aliases, and nothing that ranges need."""

import logging

import pytest
import torch
from torch import nn

from calidrift_agent._calibrate import calibrate
from calidrift_agent._points import static_points
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError, ProfileMismatchError


def test_rail_rates_are_the_shares_of_the_outermost_codes(ao_stub):
    model, batches = ao_stub.model, ao_stub.batches
    profile = calibrate(model, batches)
    assert (profile.instrument, profile.units) == (Instrument.CLIP, 64)
    codes = torch.cat([model.conv2(model.conv1(model.quant(one))).int_repr() for one in batches])
    point = profile.points["conv2:output"]
    assert point.rail_low_rate == pytest.approx(float((codes == 0).float().mean()))
    assert point.rail_high_rate == pytest.approx(float((codes == 255).float().mean()))
    assert 0 < point.rail_high_rate < 1e-3  # its own maximum stands there
    values = torch.cat(batches)
    exact = profile.points["quant:input"]
    bound = exact.clip_bound
    high = torch.round(values / bound.scale) + bound.zero_point >= 255
    assert exact.rail_high_rate == pytest.approx(float(high.float().mean()), abs=1e-9)


def test_the_low_rail_behind_a_relu_holds_the_real_zeros(ao_stub):
    point = calibrate(ao_stub.model, ao_stub.batches).points["conv1.relu:output"]
    assert 0.3 < point.rail_low_rate < 0.7


def test_symmetric_codes_have_their_zeros_at_the_zero_point(make_stub):
    """A mutant with the rails of the type would find nothing at code 0."""
    made = make_stub(torch.per_tensor_symmetric)
    point = calibrate(made.model, made.batches).points["conv1.relu:output"]
    assert 0.3 < point.rail_low_rate < 0.7


def test_readers_become_aliases_so_that_float_bounds_find_their_quantizer(ao_stub):
    profile = calibrate(ao_stub.model, ao_stub.batches)
    assert profile.points["quant:input"].aliases == ("conv1:input",)
    assert profile.points["conv1.relu:output"].aliases == ("conv2:input",)
    assert profile.points["plus:output"].aliases == ()  # flattened: another tensor
    merged = profile.merge(calibrate(ao_stub.float_model, ao_stub.batches))
    assert merged.instrument is Instrument.RANGE
    bounds = {name: one.observed_bound for name, one in merged.points.items()}
    assert bounds["conv1.relu:output"].value == pytest.approx(
        merged.points["conv1.relu:output"].clip_bound.hi, rel=0.02
    )
    assert bounds["conv2:output"] is None
    assert merged.points["conv1.relu:output"].rail_low_rate is not None


def test_a_layer_that_is_called_with_two_tensors_names_neither(ao_stub):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ao_stub.model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = self.inner.conv1(self.inner.quant(x))
            first = self.inner.conv2(made)
            return self.inner.dequant(self.inner.conv2(first))

    points = calibrate(Twice().eval(), ao_stub.batches).points
    assert points["inner.conv1.relu:output"].aliases == ()
    assert points["inner.conv2:output"].aliases == ()


def test_a_graph_is_measured_by_running_it_node_by_node(ao_graph):
    profile = calibrate(ao_graph.model, ao_graph.batches)
    assert profile.instrument is Instrument.CLIP
    assert list(profile.points) == [one.name for one in static_points(ao_graph.model).quantizers]
    assert all(one.rail_high_rate is not None for one in profile.points.values())
    codes = torch.cat(
        [
            ao_graph.model.conv1(torch.quantize_per_tensor(one, *_range(profile, "conv1:input")))
            for one in ao_graph.batches
        ]
    ).int_repr()
    share = float((codes == 255).float().mean())
    assert profile.points["conv2:input"].rail_high_rate == pytest.approx(share)
    merged = profile.merge(calibrate(ao_graph.float_model, ao_graph.batches))
    bound = {name: one.observed_bound is not None for name, one in merged.points.items()}
    assert bound["conv1:input"] and bound["conv2:input"] and bound["fc:input"]
    assert not bound["fc:output"]


def _range(profile: CalibrationProfile, name: str) -> tuple[float, int, torch.dtype]:
    bound = profile.points[name].clip_bound
    return bound.scale, bound.zero_point, torch.quint8


def test_static_layers_of_torchao_have_exact_rail_rates(quantize_torchao):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    quantize_torchao(
        model,
        "Int8StaticActivationInt8WeightConfig",
        act_quant_scale=torch.tensor([[0.02]]),
        granularity="PerTensor",
        reduce_range=True,
    )
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    profile = calibrate(model, [x])
    assert profile.instrument is Instrument.CLIP
    point = profile.points["0:input"]
    codes = torch.round(x / 0.02)
    assert point.rail_high_rate == pytest.approx(float((codes >= 63).float().mean()))
    assert point.rail_low_rate == pytest.approx(float((codes <= -64).float().mean()))


def test_dynamic_and_weight_only_layers_are_measured_with_the_range_instrument(quantize_torchao):
    for name in ("Int8DynamicActivationInt8WeightConfig", "Int8WeightOnlyConfig"):
        model = quantize_torchao(nn.Sequential(nn.Linear(16, 8)).eval(), name)
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
        profile = calibrate(model, [x])
        assert profile.instrument is Instrument.RANGE
        assert profile.points["0:input"].observed_bound.value == pytest.approx(float(x.abs().max()))
        assert profile.points["0:input"].clip_bound is None


def test_the_model_is_left_as_it_was(ao_stub):
    calibrate(ao_stub.model, ao_stub.batches)
    for module in ao_stub.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    with pytest.raises(ValueError, match="Input shape"):
        calibrate(ao_stub.model, [torch.zeros(1, 2)])
    assert not any(module._forward_hooks for module in ao_stub.model.modules())


def test_points_that_never_fire_are_named(ao_stub, caplog):
    ao_stub.model.add_module("spare", torch.ao.nn.quantized.Quantize(0.5, 0, torch.quint8))
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        profile = calibrate(ao_stub.model, ao_stub.batches)
    assert profile.points["spare:input"].rail_high_rate is None
    assert "no rail rate for spare:input" in caplog.text

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ao_stub.model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(AttachError, match="none of the 6 points fired"):
        calibrate(Idle().eval(), ao_stub.batches)


def test_training_mode_is_refused(ao_stub):
    ao_stub.model.training = True
    with pytest.raises(AttachError, match="training mode"):
        calibrate(ao_stub.model, ao_stub.batches)


def test_two_measured_profiles_are_not_merged(ao_stub):
    profile = calibrate(ao_stub.model, ao_stub.batches)
    with pytest.raises(ProfileMismatchError):
        profile.merge(CalibrationProfile.from_torch_ao(ao_stub.model))
