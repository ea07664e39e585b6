"""Models that torchao's `quantize_` quantized, under watch."""

import pytest
import torch
from torch import nn

from calidrift_agent._calibrate import calibrate
from calidrift_agent._points import _torchao
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import CountColumn, Instrument, Strategy, ValueColumn

SCALE = 0.05


def make_net(dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8)).eval().to(dtype)


def make_static(quantize_torchao, *, reduced: bool, dtype=torch.float32) -> nn.Module:
    return quantize_torchao(
        make_net(dtype),
        "Int8StaticActivationInt8WeightConfig",
        act_quant_scale=torch.tensor([[SCALE]]),
        granularity="PerTensor",
        reduce_range=reduced,
    )


def traffic(scale: float = 3.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(512, 32, generator=generator) * scale).to(dtype)


def shares(one, name: str = "0:input") -> tuple[float, float]:
    meta, total = one.snapshot()
    counts = total.counts[[point.name for point in meta.points].index(name)]
    seen = counts[CountColumn.CLIP_ELEMENTS]
    return counts[CountColumn.CLIP_LOW] / seen, counts[CountColumn.CLIP_HIGH] / seen


def known(x: torch.Tensor, low: int, high: int) -> tuple[float, float]:
    steps = x.double() / SCALE
    return (
        float((steps < low - 0.5).double().mean()),
        float((steps > high + 0.5).double().mean()),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("reduced", "rails"), [(False, (-128, 127)), (True, (-64, 63))])
def test_the_clipped_share_is_recovered(quantize_torchao, watch_all, reduced, rails, dtype):
    model = make_static(quantize_torchao, reduced=reduced, dtype=dtype)
    x = traffic(dtype=dtype)
    with torch.no_grad():
        expected = model(x)
        one = watch_all(model, profile=CalibrationProfile.from_torch_ao(model))
        assert torch.equal(model(x), expected)
    want = known(x, *rails)
    assert min(want) > 0.01
    assert shares(one) == pytest.approx(want, rel=0.01)
    report = one.report()
    assert (report.strategy, report.instrument) == (Strategy.INSTEAD, Instrument.CLIP)
    assert report.observed == ("0:input", "2:input")


def test_the_rails_of_the_type_are_a_mutant_that_is_caught(
    quantize_torchao, watch_all, monkeypatch
):
    model = make_static(quantize_torchao, reduced=True)
    monkeypatch.setattr(_torchao, "_INT8", (-256, 255))  # halved: the rails of the type
    one = watch_all(model)
    with torch.no_grad():
        model(traffic())
    assert shares(one) != pytest.approx(known(traffic(), -64, 63), rel=0.01)
    assert sum(shares(one)) < 0.5 * sum(known(traffic(), -64, 63))


def test_a_reference_gives_static_layers_their_coverage(quantize_torchao, watch_all):
    model, module = make_static(quantize_torchao, reduced=False), make_net()
    batches = [traffic(1.0)]
    profile = calibrate(model, batches).merge(calibrate(module, batches))
    one = watch_all(model, profile=profile, reference=module)
    with torch.no_grad():
        model(traffic(9.0))
    meta, total = one.snapshot()
    assert meta.instrument is Instrument.RANGE
    assert total.counts[:, CountColumn.UNITS].tolist() == [1, 1]
    assert total.counts[0, CountColumn.EXCEEDANCES] == 1
    assert total.counts[0, CountColumn.CLIP_ELEMENTS] == 512 * 32
    assert one.report().reference == "observed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Int8DynamicActivationInt8WeightConfig", "quantize their inputs dynamically"),
        ("Int8WeightOnlyConfig", "quantized weights only"),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_other_layers_show_growth(quantize_torchao, watch_all, name, words, compiled):
    model = quantize_torchao(make_net(), name)
    x = traffic(1.0)
    profile = calibrate(model, [x])
    served = torch.compile(model, backend="eager") if compiled else model
    one = watch_all(served, profile=profile)
    with torch.no_grad():
        expected = model.forward.original(3.0 * x) if not compiled else None
        output = served(3.0 * x)
    assert expected is None or torch.equal(output, expected)
    meta, total = one.snapshot()
    row = [point.name for point in meta.points].index("0:input")
    assert meta.points[row].clip_hi is None
    assert total.counts[row, CountColumn.CLIP_ELEMENTS] == 0
    assert total.counts[row, CountColumn.UNITS] == 1
    assert total.values[row, ValueColumn.HIGHEST] > 0.0
    report = one.report()
    assert report.instrument is Instrument.RANGE
    assert any(words in note and "growth" in note for note in report.notes)


def test_compiled_static_layers_are_observed_on_a_copy(quantize_torchao, watch_all):
    model = make_static(quantize_torchao, reduced=False)
    served = torch.compile(model, backend="eager")
    one = watch_all(served)
    x = traffic()[:64]
    with torch.no_grad():
        for row in x:
            served(row[None])
            one.snapshot()
    assert shares(one) == pytest.approx(known(x, -128, 127), rel=0.01)
    assert one.report().strategy is Strategy.BESIDE
    assert one.report().instrument is Instrument.CLIP
