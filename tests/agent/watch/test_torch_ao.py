"""INT8 models of torch.ao under watch: what is clipped is found, and nothing else changes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from calidrift_agent._calibrate import calibrate
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import CountColumn, Instrument, Role, Stage, Strategy, ValueColumn
from calidrift_agent._vocabulary import RequestColumn as Request
from calidrift_agent.errors import AttachError, ProfileMismatchError


def columns(one, name: str) -> tuple[dict[CountColumn, int], dict[ValueColumn, float]]:
    meta, total = one.snapshot()
    row = [point.name for point in meta.points].index(name)
    return (
        {column: int(total.counts[row, column]) for column in CountColumn},
        {column: float(total.values[row, column]) for column in ValueColumn},
    )


def clipped_share(one, name: str) -> tuple[float, float]:
    counts, _ = columns(one, name)
    seen = counts[CountColumn.CLIP_ELEMENTS]
    return counts[CountColumn.CLIP_LOW] / seen, counts[CountColumn.CLIP_HIGH] / seen


def known_share(values: torch.Tensor, scale: float, zero_point: int) -> tuple[float, float]:
    """Share of float values beyond the range of 8-bit codes by more than half a step."""
    low, high = (-zero_point - 0.5) * scale, (255.5 - zero_point) * scale
    return float((values < low).double().mean()), float((values > high).double().mean())


def float_conv(layer: nn.Module, codes: torch.Tensor) -> torch.Tensor:
    """What a quantized convolution computes before it quantizes again."""
    weight, bias = layer._weight_bias()
    return F.conv2d(codes.dequantize().double(), weight.dequantize().double(), bias.double())


def traffic(scale: float, count: int = 256) -> torch.Tensor:
    return torch.randn(count, 3, 10, 10, generator=torch.Generator().manual_seed(7)) * scale


@pytest.mark.parametrize("known", [False, True])
def test_the_clipped_share_of_eager_modules_is_recovered(ao_stub, watch_all, known):
    """Traffic three times as large as in calibration, with and without the calibration's rates."""
    model, x = ao_stub.model, traffic(3.0)
    profile = calibrate(model, ao_stub.batches) if known else None
    expected = model(x)
    with torch.no_grad():
        quant = model.quant(x)
        conv1 = model.conv1(quant)
        before = {
            "quant:input": (x.double(), model.quant),
            "conv1.relu:output": (float_conv(model.conv1, quant).relu(), model.conv1),
            "conv2:output": (float_conv(model.conv2, conv1), model.conv2),
            "plus:output": (
                conv1.dequantize().double() + model.conv2(conv1).dequantize().double(),
                model.plus,
            ),
        }
    one = watch_all(model, profile=profile)
    assert torch.equal(model(x), expected)
    for name, (values, module) in before.items():
        want = known_share(values, float(module.scale), int(module.zero_point))
        got = clipped_share(one, name)
        assert max(want) > 0.01
        assert got == pytest.approx(want, rel=0.01, abs=2e-4), name


def test_at_quantize_counts_and_energies_are_exact(ao_stub, watch_all):
    x = traffic(3.0, 32)
    x[0, 0, 0, :2] = torch.tensor([math.nan, math.inf])
    bound = CalibrationProfile.from_torch_ao(ao_stub.model).points["quant:input"].clip_bound
    one = watch_all(ao_stub.model)
    ao_stub.model(x)
    counts, values = columns(one, "quant:input")
    finite = x[torch.isfinite(x)].double()
    above = finite[finite > bound.hi + bound.scale / 2]
    below = finite[finite < bound.lo - bound.scale / 2]
    assert (counts[CountColumn.CLIP_LOW], counts[CountColumn.CLIP_HIGH]) == (
        below.numel(),
        above.numel(),
    )
    energy = float((above - bound.hi).square().sum() + (below - bound.lo).square().sum())
    assert values[ValueColumn.CLIPPED_ENERGY] == pytest.approx(energy)
    assert (counts[CountColumn.NAN], counts[CountColumn.INF]) == (1, 1)
    assert values[ValueColumn.ENERGY] == pytest.approx(float(finite.square().sum()), rel=0.25)
    _, of_codes = columns(one, "conv2:output")
    assert of_codes[ValueColumn.ENERGY] == 0.0


def test_calm_traffic_is_not_clipped(ao_stub, watch_all):
    """Half of all codes behind the ReLU stand on its low rail, and none of them is clipped."""
    profile = calibrate(ao_stub.model, ao_stub.batches)
    one = watch_all(ao_stub.model, profile=profile)
    for batch in ao_stub.batches:
        ao_stub.model(batch)
    assert clipped_share(one, "conv1.relu:output")[0] == 0.0
    for name in profile.points:
        assert max(clipped_share(one, name)) < (2e-3 if name != "fc:output" else 0.02)


def test_only_clipping_is_measured_without_a_reference(ao_stub, watch_all):
    one = watch_all(ao_stub.model, profile=CalibrationProfile.from_torch_ao(ao_stub.model))
    ao_stub.model(traffic(1.0, 4))
    report = one.report()
    assert (report.strategy, report.instrument) == (Strategy.INSTEAD, Instrument.CLIP)
    assert report.reference == "no_reference"
    assert report.observed == report.points
    assert any("give its FP32 module as reference=" in note for note in report.notes)
    assert any("estimates" in note for note in report.notes)
    meta, total = one.snapshot()
    assert meta.instrument is Instrument.CLIP
    assert not total.cells.any()
    assert not total.counts[:, CountColumn.UNITS].any()
    assert total.counts[:, CountColumn.ROWS].tolist() == [4] * 5
    assert total.requests[Request.OBSERVED] == 1
    assert total.requests[Request.UNITS] == 0


def test_the_model_is_as_before_when_the_watch_is_closed(ao_stub, watch_all):
    before = [dict(module.__dict__) for module in ao_stub.model.modules()]
    one = watch_all(ao_stub.model)
    ao_stub.model(traffic(1.0, 2))
    one.close()
    assert [dict(module.__dict__) for module in ao_stub.model.modules()] == before


def test_the_clipped_share_of_a_graph_is_recovered(ao_graph, watch_all):
    model, x = ao_graph.model, traffic(3.0, 96)
    one = watch_all(model, profile=calibrate(model, ao_graph.batches))
    for row in x:  # a shadow pass replays one row, so that all rows are seen
        assert torch.equal(model(row[None]), model.forward.original(row[None]))
        one.snapshot()
    bounds = {
        name: point.clip_bound
        for name, point in CalibrationProfile.from_torch_ao(model).points.items()
    }
    of_input = bounds["conv1:input"]
    codes = torch.quantize_per_tensor(x, of_input.scale, of_input.zero_point, torch.quint8)
    conv1 = model.conv1(codes)
    conv2 = float_conv(model.conv2, conv1)
    total = conv1.dequantize().double() + model.conv2(conv1).dequantize().double()
    values = {
        "conv1:input": x.double(),
        "conv2:input": float_conv(model.conv1, codes).relu(),
        "add#2:input": conv2,
        "flatten:input": total,
    }
    for name, known in values.items():
        want = known_share(known, bounds[name].scale, bounds[name].zero_point)
        assert max(want) > 0.01
        assert clipped_share(one, name) == pytest.approx(want, rel=0.01, abs=3e-4), name
    report = one.report()
    assert (report.strategy, report.instrument) == (Strategy.BESIDE, Instrument.CLIP)
    assert report.observed == report.points
    assert report.observed_calls == 96


def test_a_reference_graph_clips_where_its_operations_say_and_not_where_the_type_ends(
    watch_all, quiet_torch_ao, make_graph
):
    """Observers with a reduced range: 128 codes in a type of 256, as arguments of the operations.

    Rails of the type would call none of these values clipped: the planted mutant.
    """
    from torch.ao.quantization.quantize_fx import _convert_to_reference_decomposed_fx, prepare_fx

    made = make_graph()
    with quiet_torch_ao():
        mapping = torch.ao.quantization.get_default_qconfig_mapping("x86")
        prepared = prepare_fx(made.float_model, mapping, (made.batches[0],))
        for batch in made.batches:
            prepared(batch)
        model = _convert_to_reference_decomposed_fx(prepared)
    profile = calibrate(model, made.batches)
    assert list(profile.points)[:2] == ["conv1:input", "conv2:input"]
    bound = profile.points["conv1:input"].clip_bound
    assert (bound.qmin, bound.qmax, bound.dtype) == (0, 127, "uint8")
    one = watch_all(model, profile=profile)
    x = traffic(3.0, 16)
    for row in x:
        model(row[None])
        one.snapshot()
    want = (
        known_share(x, bound.scale, bound.zero_point)[0],
        float((x > bound.hi + bound.scale / 2).double().mean()),
    )
    assert clipped_share(one, "conv1:input") == pytest.approx(want)
    mutant = known_share(x, bound.scale, bound.zero_point)
    assert mutant[1] == 0.0
    assert want[1] > 0.05
    assert one.report().instrument is Instrument.RANGE


def test_a_graph_written_for_one_batch_is_replayed_whole(make_graph, watch_all):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(300, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.reshape(16, 300))

    made = make_graph(Fixed().eval())
    one = watch_all(made.model)
    made.model(made.batches[0])
    made.model(made.batches[1])
    counts, _ = columns(one, "fc:input")
    assert counts[CountColumn.ROWS] == 32
    assert counts[CountColumn.CLIP_ELEMENTS] == 2 * 16 * 300


@pytest.mark.parametrize("harm", ["write", "random"])
def test_a_graph_that_must_not_run_twice_is_not_observed_and_says_so(make_graph, watch_all, harm):
    model = make_graph().model
    model.register_buffer("calls", torch.zeros(1))
    output = next(node for node in model.graph.nodes if node.op == "output")
    with model.graph.inserting_before(output):
        calls = model.graph.get_attr("calls")
        if harm == "write":
            model.graph.call_method("add_", (calls, 1.0))
        else:
            model.graph.call_function(torch.rand_like, (calls,))
    model.recompile()
    one = watch_all(model)
    for count in (1, 2):
        torch.manual_seed(0)
        model(traffic(1.0, 2))
        state = torch.get_rng_state()
        one.snapshot()
        assert torch.equal(torch.get_rng_state(), state)
        assert model.calls.item() == (count if harm == "write" else 0)
    report = one.report()
    assert report.observed == ()
    assert any("nothing is observed" in note for note in report.notes)
    assert set(report.skipped) == set(report.points) or not report.points
    assert int(one.snapshot()[1].requests[Request.OBSERVED]) == 0


def test_with_a_reference_both_instruments_are_there(ao_stub, watch_all):
    """Coverage from the FP32 module, clipping from the served codes, at the same points."""
    served, module = ao_stub.model, ao_stub.float_model
    batches = ao_stub.batches
    profile = calibrate(served, batches).merge(calibrate(module, batches))
    one = watch_all(served, profile=profile, reference=module)
    x = traffic(3.0, 8)
    expected = served.forward.original(x)
    for _ in range(5):
        assert torch.equal(served(x), expected)
    counts, values = columns(one, "conv1.relu:output")
    assert counts[CountColumn.UNITS] == counts[CountColumn.EXCEEDANCES] == 5
    assert counts[CountColumn.ROWS] == 5  # one row of each call runs through the reference
    assert counts[CountColumn.CLIP_ELEMENTS] == 5 * 8 * 512
    assert values[ValueColumn.HIGHEST] > profile.points["conv1.relu:output"].clip_bound.hi
    only_clips, _ = columns(one, "conv2:output")
    assert (only_clips[CountColumn.UNITS], only_clips[CountColumn.ROWS]) == (0, 40)
    report = one.report()
    assert report.instrument is Instrument.RANGE
    assert any("3 of 5 points have no counterpart" in note for note in report.notes)
    assert one.snapshot()[1].requests[Request.COMPARED] == 5


def test_a_graph_with_a_reference_has_the_names_of_its_layers(ao_graph, watch_all):
    profile = CalibrationProfile.from_torch_ao(ao_graph.model).merge(
        calibrate(ao_graph.float_model, ao_graph.batches)
    )
    one = watch_all(ao_graph.model, profile=profile, reference=ao_graph.float_model)
    ao_graph.model(traffic(3.0, 2))
    counts, _ = columns(one, "conv2:input")
    assert (counts[CountColumn.UNITS], counts[CountColumn.EXCEEDANCES]) == (1, 1)
    assert counts[CountColumn.CLIP_ELEMENTS] == 512
    assert one.snapshot()[1].requests[Request.UNITS] == 1


def test_profiles_of_the_wrong_instrument_are_refused_with_advice(ao_stub, watch_all):
    clips = calibrate(ao_stub.model, ao_stub.batches)
    merged = clips.merge(calibrate(ao_stub.float_model, ao_stub.batches))
    with pytest.raises(ProfileMismatchError, match="as reference="):
        watch_all(ao_stub.model, profile=merged)
    with pytest.raises(ProfileMismatchError, match="merge it with"):
        watch_all(ao_stub.model, profile=clips, reference=ao_stub.float_model)
    with pytest.raises(ProfileMismatchError, match="does not belong"):
        other = calibrate(ao_stub.float_model, ao_stub.batches)
        watch_all(ao_stub.model, profile=other, reference=ao_stub.float_model)


def test_a_range_that_changes_under_the_watch_is_an_error_and_not_a_count(ao_stub, watch_all):
    one = watch_all(ao_stub.model)
    ao_stub.model.conv2.scale *= 2.0
    ao_stub.model(traffic(1.0, 2))
    counts, _ = columns(one, "conv2:output")
    assert counts[CountColumn.CLIP_ELEMENTS] == 0
    requests = one.snapshot()[1].requests
    errors = requests[Request.ERROR_FIRST : Request.ERROR_FIRST + len(Stage)]
    assert errors[list(Stage).index(Stage.TAP)] == 1


def test_a_graph_inside_a_module_is_observed_through_its_modules(make_graph, watch_all):
    made = make_graph()
    wrapped = nn.Sequential(made.model).eval()
    one = watch_all(wrapped)
    expected = made.model(traffic(3.0, 8))
    assert torch.equal(wrapped(traffic(3.0, 8)), expected)
    report = one.report()
    assert report.strategy is Strategy.INSTEAD
    assert report.observed == ("0.conv1.relu:output", "0.conv2:output", "0.fc:output")
    assert any("function inside a graph" in why for why in report.skipped.values())
    assert clipped_share(one, "0.conv1.relu:output")[1] > 0.01


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_modules_are_observed_on_a_copy(ao_stub, watch_all, in_place):
    x = traffic(3.0, 4)
    expected = ao_stub.model(x)
    if in_place:
        ao_stub.model.compile(backend="eager")
        served = ao_stub.model
    else:
        served = torch.compile(ao_stub.model, backend="eager")
    one = watch_all(served)
    for row in x:
        served(row[None])
        one.snapshot()
    assert torch.allclose(served(x), expected)
    report = one.report()
    assert (report.strategy, report.instrument) == (Strategy.BESIDE, Instrument.CLIP)
    assert report.observed == report.points
    assert clipped_share(one, "conv1.relu:output")[1] > 0.01
    assert not one.snapshot()[1].cells.any()


def test_a_compiled_model_that_changes_itself_is_not_observed_and_says_so(ao_stub, watch_all):
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ao_stub.model
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            return self.inner(x)

    model = Counting().eval()
    served = torch.compile(model, backend="eager")
    one = watch_all(served)
    served(traffic(1.0, 2))
    one.snapshot()
    report = one.report()
    assert report.observed == ()
    assert any("nothing is observed" in note for note in report.notes)
    assert len(report.skipped) == 5
    assert model.calls.item() == 1


def test_a_model_is_not_watched_twice(ao_stub, ao_graph, watch_all):
    for made in (ao_stub, ao_graph):
        watch_all(made.model)
        with pytest.raises(AttachError, match="watched already"):
            watch_all(made.model)


def test_dynamic_layers_show_growth_and_no_clipping(watch_all, quiet_torch_ao):
    with quiet_torch_ao():
        model = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(8, 4)).eval(), {nn.Linear}
        )
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    profile = calibrate(model, [x])
    one = watch_all(model, profile=profile)
    expected = model.forward.original(3.0 * x)
    assert torch.equal(model(3.0 * x), expected)
    counts, values = columns(one, "0:input")
    assert counts[CountColumn.EXCEEDANCES] in (0, 1)
    assert counts[CountColumn.CLIP_ELEMENTS] == 0
    assert values[ValueColumn.HIGHEST] == pytest.approx(3.0 * float(x.max()))
    assert one.report().instrument is Instrument.RANGE


def test_a_quantized_tensor_may_be_an_input(ao_stub, watch_all):
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = ao_stub.model.conv1, ao_stub.model.conv2

        def forward(self, codes: torch.Tensor) -> torch.Tensor:
            return self.conv2(self.conv1(codes))

    model = Inner().eval()
    codes = ao_stub.model.quant(traffic(3.0, 4))
    expected = model(codes)
    one = watch_all(model)
    assert torch.equal(model(codes).int_repr(), expected.int_repr())
    assert one.report().observed == ("conv1.relu:output", "conv2:output")
    assert Role.OUTPUT in one.report().points[0]
