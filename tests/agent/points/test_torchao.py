"""Linear layers that torchao quantized: static ranges, and what the others are."""

import pytest
import torch
from torch import nn

from calidrift_agent._points import (
    LinearQuantization,
    discover,
    fingerprint_of,
    static_points,
    torchao_layers,
    torchao_points,
)
from calidrift_agent._profile import CalibrationProfile


def make_net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


def static(quantize_torchao, scale: float = 0.02, **settings) -> nn.Module:
    settings = {"granularity": "PerTensor", **settings}
    return quantize_torchao(
        make_net(),
        "Int8StaticActivationInt8WeightConfig",
        act_quant_scale=torch.tensor([[scale]]),
        **settings,
    )


def quantized_codes(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The codes that torchao itself makes of the first layer's input."""
    weight = model[0].weight
    options = weight.act_quant_kwargs
    return (
        type(weight)
        .from_hp(
            x,
            options.granularity,
            mapping_type=options.mapping_type,
            scale=weight.act_quant_scale,
            zero_point=weight.act_quant_zero_point,
            reduce_range=options.reduce_range,
        )
        .qdata
    )


@pytest.mark.parametrize("reduced", [False, True])
def test_rails_are_those_that_torchao_clamps_to(quantize_torchao, reduced):
    model = static(quantize_torchao, reduce_range=reduced)
    bounds = [one.bound for one in torchao_points(model).quantizers]
    codes = quantized_codes(model, torch.linspace(-100.0, 100.0, 64).reshape(4, 16))
    assert [(one.qmin, one.qmax) for one in bounds] == [(int(codes.min()), int(codes.max()))] * 2
    assert [one.scale for one in bounds] == pytest.approx([0.02, 0.02])


def test_an_asymmetric_range_has_its_zero_point(quantize_torchao):
    model = static(
        quantize_torchao,
        act_quant_zero_point=torch.tensor([[-20]], dtype=torch.int8),
        act_mapping_type="ASYMMETRIC",
    )
    (bound, _) = (one.bound for one in torchao_points(model).quantizers)
    assert (bound.zero_point, bound.lo) == (-20, pytest.approx(-108 * 0.02))
    assert int(quantized_codes(model, torch.zeros(1, 16)).max()) == -20


def test_points_are_the_inputs_of_the_layers_and_exact(quantize_torchao):
    model = static(quantize_torchao)
    found = static_points(model)
    assert [(one.name, one.exact) for one in found.quantizers] == [
        ("0:input", True),
        ("2:input", True),
    ]
    assert discover(model).points == found.discovery.points
    assert list(CalibrationProfile.from_torch_ao(model).points) == ["0:input", "2:input"]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("Int8DynamicActivationInt8WeightConfig", LinearQuantization.DYNAMIC),
        ("Int8WeightOnlyConfig", LinearQuantization.WEIGHT_ONLY),
    ],
)
def test_other_layers_have_no_range(quantize_torchao, name, how):
    model = quantize_torchao(make_net(), name)
    assert torchao_layers(model) == {"0": how, "2": how}
    assert static_points(model) is None
    assert [point.name for point in discover(model).points] == ["0:input", "2:input"]
    reasons = torchao_points(model).skipped
    assert set(reasons) == {"0", "2"}
    assert all("nothing is clipped" in why for why in reasons.values())


def test_a_float_model_is_none_of_it():
    assert torchao_layers(make_net()) == {}
    assert torchao_layers("a model") == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"act_pre_scale": torch.ones(16)}, "scaled before"),
        ({"act_quant_scale": torch.ones(16, 1)}, "for each row"),
        ({"act_quant_scale": torch.zeros(1, 1)}, "cannot be used"),
        ({"act_quant_kwargs": "something else"}, "8-bit integers"),
    ],
)
def test_what_has_no_single_range_is_skipped_with_a_reason(quantize_torchao, change, why):
    model = static(quantize_torchao)
    for name, value in change.items():
        setattr(model[0].weight, name, value)
    found = torchao_points(model)
    assert [one.name for one in found.quantizers] == ["2:input"]
    assert why in found.skipped["0"]


def test_a_mixed_model_says_what_is_left_out(quantize_torchao):
    model = nn.Sequential(*static(quantize_torchao), nn.Embedding(3, 3), nn.Linear(8, 8)).eval()
    found = static_points(model)
    assert [one.name for one in found.quantizers] == ["0:input", "2:input"]
    assert set(found.skipped) == {"3", "4"}


def test_fingerprints_tell_weights_and_settings_apart(quantize_torchao):
    one, same = static(quantize_torchao), static(quantize_torchao)
    assert fingerprint_of(one).weights == fingerprint_of(same).weights
    other_range = static(quantize_torchao, scale=0.03)
    reduced = static(quantize_torchao, reduce_range=True)
    found = {fingerprint_of(model).weights for model in (one, other_range, reduced)}
    assert len(found) == 3
