"""Quantizers of torch.ao models: which there are, what they are called, where their rails lie."""

import pytest
import torch
from torch import nn

from calidrift_agent._points import (
    CodeGraph,
    discover,
    fingerprint_of,
    is_torch_ao,
    static_points,
    torch_ao_points,
)
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import AttachError


def test_modules_that_quantize_are_points_named_after_what_they_make(ao_stub):
    found = torch_ao_points(ao_stub.model)
    assert [one.name for one in found.quantizers] == [
        "quant:input",
        "conv1.relu:output",
        "conv2:output",
        "plus:output",
        "fc:output",
    ]
    assert [one.exact for one in found.quantizers] == [True, False, False, False, False]
    assert found.quantizers[3].point.module == "plus.activation_post_process"
    assert found.graph is None


def test_ranges_are_those_of_the_modules(ao_stub):
    for one in torch_ao_points(ao_stub.model).quantizers:
        module = ao_stub.model.get_submodule(
            one.point.module.removesuffix(".activation_post_process")
        )
        assert one.bound.scale == pytest.approx(float(module.scale))
        assert one.bound.zero_point == int(module.zero_point)
        assert (one.bound.qmin, one.bound.qmax, one.bound.dtype) == (0, 255, "quint8")


def test_a_fused_relu_moves_the_low_rail_to_the_zero_point(make_stub):
    """Symmetric codes put zero at 128, and the operation clamps there and not at 0."""
    made = make_stub(torch.per_tensor_symmetric)
    bounds = {one.name: one.bound for one in torch_ao_points(made.model).quantizers}
    assert (bounds["conv1.relu:output"].qmin, bounds["conv1.relu:output"].lo) == (128, 0.0)
    assert bounds["conv2:output"].qmin == 0
    codes = made.model.conv1(made.model.quant(made.batches[0])).int_repr()
    assert int(codes.min()) == 128


def test_tensors_of_a_graph_are_named_after_the_layer_that_reads_them(ao_graph):
    found = torch_ao_points(ao_graph.model)
    assert [(one.name, one.exact) for one in found.quantizers] == [
        ("conv1:input", True),
        ("conv2:input", False),
        ("add#2:input", False),
        ("flatten:input", False),
        ("fc:input", True),
        ("fc:output", False),
    ]
    assert found.quantizers[1].aliases == ("add:input",)
    assert found.graph is ao_graph.model


def test_a_layer_that_reads_the_values_in_another_shape_gives_the_name(make_graph):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)
            self.fc = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            codes = self.conv(x).reshape(-1, 8)
            return self.fc(codes.unsqueeze(0).squeeze(0))

    names = [one.name for one in torch_ao_points(make_graph(Flat().eval()).model).quantizers]
    assert names[0] == "conv:input"
    assert names[-2:] == ["fc:input", "fc:output"]


def test_running_a_graph_node_by_node_gives_the_same_output_and_every_tensor(ao_graph):
    found = torch_ao_points(ao_graph.model)
    graph = CodeGraph(found.graph, [(one.node, one.exact) for one in found.quantizers])
    seen: dict[int, torch.Tensor] = {}
    for kwargs in ({}, {"x": ao_graph.batches[0]}):
        args = () if kwargs else (ao_graph.batches[0],)
        output = graph.run(args, kwargs, observe=seen.__setitem__)
        assert torch.equal(output, ao_graph.model(ao_graph.batches[0]))
    assert sorted(seen) == list(range(len(found.quantizers)))
    for index, one in enumerate(found.quantizers):
        assert seen[index].is_quantized is not one.exact
    with pytest.raises(TypeError):
        graph.run((), observe=seen.__setitem__)


def test_arguments_with_defaults_are_bound_by_name(make_graph):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(10, 4)

        def forward(
            self, x: torch.Tensor, gain: float = 1.0, shift: float = 0.0
        ) -> tuple[torch.Tensor, float, float]:
            return self.fc(x), gain, shift

    made = make_graph(Scaled().eval())
    found = torch_ao_points(made.model)
    graph = CodeGraph(found.graph, [(one.node, one.exact) for one in found.quantizers])
    expected, *_ = made.model(made.batches[0])
    output, *others = graph.run((made.batches[0],), {"shift": 2.0}, observe=lambda *_: None)
    assert torch.equal(output, expected)
    assert others == [1.0, 2.0]


class Opaque(nn.Module):
    """A module that tracing does not enter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0 if float(x.sum()) > 1e9 else x


def test_a_graph_that_calls_a_module_of_the_host_is_observed_through_its_modules(make_graph):
    made = make_graph()
    graph_module = made.model
    graph_module.add_submodule("odd", Opaque())
    output = next(node for node in graph_module.graph.nodes if node.op == "output")
    with graph_module.graph.inserting_before(output):
        last = graph_module.graph.call_module("odd", (output.args[0],))
    output.args = (last,)
    graph_module.recompile()
    found = torch_ao_points(graph_module)
    assert found.graph is None
    names = [one.name for one in found.quantizers]
    assert names == ["conv1.relu:output", "conv2:output", "fc:output"]
    assert any("only modules are observed" in why for why in found.skipped.values())


def graph_of(target: object, *constants: object) -> nn.Module:
    """A graph that quantizes its input and calls one operation on the codes."""
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    codes = graph.call_function(torch.quantize_per_tensor, (x, 0.1, 128, torch.quint8))
    made = graph.call_function(target, (codes, *constants))
    graph.output(graph.call_method("dequantize", (made,)))
    return torch.fx.GraphModule(nn.Module(), graph)


@pytest.mark.parametrize(
    ("target", "constants", "scale"),
    [
        (torch.ops.quantized.elu, (0.25, 3, 1.5), 0.25),
        (torch.ops.quantized.elu.default, (0.25, 3, 1.5), 0.25),
        (torch.ops.quantized.hardswish, (0.25, 3), 0.25),
        (torch.ops.quantized.leaky_relu, (0.1, False, 0.25, 3), 0.25),
        (torch.ops.quantized.conv2d, (None, None, None, None, 1, 0.25, 3), 0.25),
        (torch.ops.quantized.conv2d, (None, 0.25, 3), 0.25),
        (torch.ops.quantized.linear_relu, (None, 0.25, 3), 0.25),
    ],
)
def test_ranges_are_found_among_the_arguments_of_any_operation(target, constants, scale):
    first, second = torch_ao_points(graph_of(target, *constants)).quantizers
    assert (first.bound.scale, first.exact) == (0.1, True)
    assert (second.bound.scale, second.bound.zero_point, second.exact) == (scale, 3, False)
    assert second.bound.qmin == (3 if "linear_relu" in str(target) else 0)


def test_operations_without_a_range_of_their_own_are_no_quantizers():
    for target, constants in (
        (torch.ops.quantized.add, (0.5,)),
        (torch.ops.quantized.mul_scalar, (0.5,)),
        (torch.relu, ()),
    ):
        assert len(torch_ao_points(graph_of(target, *constants)).quantizers) == 1
    bounded = torch_ao_points(graph_of(torch.ops.quantized.sigmoid, 1 / 256, 0))
    assert len(bounded.quantizers) == 1
    assert any("bounded" in why for why in bounded.skipped.values())


def test_quantized_weights_and_ranges_computed_in_the_graph_are_no_points():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    weight = graph.get_attr("weight")
    graph.call_function(torch.quantize_per_tensor, (weight, 0.1, 0, torch.qint8))
    moving = graph.call_method("amax", (x,))
    codes = graph.call_function(torch.quantize_per_tensor, (x, moving, 0, torch.quint8))
    good = graph.call_function(torch.quantize_per_tensor, (x, 0.5, 0, torch.quint8))
    graph.output((graph.call_method("relu", (codes,)), graph.call_method("dequantize", (good,))))
    root = nn.Module()
    root.register_buffer("weight", torch.zeros(2))
    found = torch_ao_points(torch.fx.GraphModule(root, graph))
    assert [one.bound.scale for one in found.quantizers] == [0.5]
    assert "not single numbers" in found.skipped["relu:input"]


def test_bounded_and_float_and_dynamic_layers_are_skipped_with_a_reason(ao_stub):
    nnq = torch.ao.nn.quantized
    ao_stub.model.add_module("gate", nnq.Sigmoid(1 / 256, 0))
    ao_stub.model.add_module("plain", nn.Linear(2, 2))
    ao_stub.model.add_module("moving", nnq.dynamic.Linear(2, 2))
    ao_stub.model.add_module("gru", nnq.dynamic.GRU(2, 2))
    ao_stub.model.add_module("wide", nnq.Quantize(0.5, 0, torch.qint32))
    skipped = static_points(ao_stub.model).skipped
    assert "bounded" in skipped["gate"]
    assert "not quantized" in skipped["plain"]
    assert "dynamically" in skipped["moving"]
    assert "recurrent" in skipped["gru"]
    assert "8-bit" in skipped["wide"]


@pytest.mark.parametrize("scale", [0.0, float("nan")])
def test_unusable_numbers_are_a_reason_and_no_error(ao_stub, scale):
    ao_stub.model.conv2.scale = scale
    found = torch_ao_points(ao_stub.model)
    assert "conv2:output" not in [one.name for one in found.quantizers]
    assert "cannot be used" in found.skipped["conv2"]


def test_signed_codes_have_signed_rails(ao_stub):
    ao_stub.model.quant.dtype = torch.qint8
    bounds = [one.bound for one in torch_ao_points(ao_stub.model).quantizers]
    assert {(one.qmin, one.qmax) for one in bounds} == {(-128, 127), (0, 127)}


def test_a_module_registered_twice_is_one_point_with_an_alias(ao_stub):
    ao_stub.model.add_module("again", ao_stub.model.conv2)
    point = next(
        one for one in torch_ao_points(ao_stub.model).quantizers if one.name == "conv2:output"
    )
    assert point.aliases == ("again:output",)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace.*deprecated:DeprecationWarning")
def test_only_static_models_are_recognised(ao_stub, ao_graph, quiet_torch_ao):
    assert is_torch_ao(ao_stub.model)
    assert is_torch_ao(ao_graph.model)
    assert not is_torch_ao(ao_stub.float_model)
    assert not is_torch_ao(torch.jit.trace(ao_stub.float_model, ao_stub.batches[0]))
    assert not is_torch_ao("a model")
    with quiet_torch_ao():
        dynamic = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(4, 4)).eval(), {nn.Linear}
        )
    assert not is_torch_ao(dynamic)
    assert [point.name for point in discover(dynamic).points] == ["0:input"]
    with pytest.raises(AttachError, match="no static activation quantizer"):
        torch_ao_points(ao_stub.float_model)


def test_discover_and_profile_hold_the_same_points(ao_stub, ao_graph):
    for made in (ao_stub, ao_graph):
        profile = CalibrationProfile.from_torch_ao(made.model)
        assert profile.instrument is Instrument.CLIP
        assert profile.units == 0
        profile.require_fits(
            [one.name for one in discover(made.model).points], fingerprint_of(made.model)
        )
        again = CalibrationProfile.from_json(profile.to_json())
        assert again == profile
        for one in static_points(made.model).quantizers:
            assert profile.points[one.name].clip_bound == one.bound
    with pytest.raises(AttachError, match="from_pt2e"):
        CalibrationProfile.from_torch_ao(ao_stub.float_model)


def test_the_fingerprint_depends_on_packed_weights(make_stub, make_graph):
    """A linear layer keeps its weight in a tuple, which `state_dict` hands out as it is."""
    for make, layer in ((make_stub, "fc"), (make_graph, "fc"), (make_stub, "conv2")):
        first, second = make().model, make().model
        assert fingerprint_of(first).weights == fingerprint_of(second).weights
        module = second.get_submodule(layer)
        module.set_weight_bias(module.weight(), module.bias() + 1.0)
        assert fingerprint_of(first).weights != fingerprint_of(second).weights
