import operator

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operations
from torch import fx, nn

from calidrift_agent._points import (
    QuantizedGraph,
    discover,
    is_quantized,
    observer_nodes,
    quantize_nodes,
    training_operation,
)
from calidrift_agent._vocabulary import Role
from calidrift_agent.errors import AttachError

Q = torch.ops.quantized_decomposed.quantize_per_tensor.default
Q_TENSOR = torch.ops.quantized_decomposed.quantize_per_tensor.tensor
DQ = torch.ops.quantized_decomposed.dequantize_per_tensor.default
RANGE = (0.5, 10, 0, 255, torch.uint8)


def graph_of(build, **attributes):
    """A hand-made graph: `build(graph, x)` returns the output."""
    root = nn.Module()
    for name, value in attributes.items():
        root.register_buffer(name, value)
    graph = fx.Graph()
    graph.output(build(graph, graph.placeholder("x")))
    return fx.GraphModule(root, graph)


def quantized(graph, source, arguments=RANGE):
    quantizer = graph.call_function(Q, (source, *arguments))
    return graph.call_function(DQ, (quantizer, *arguments))


def found(graph_module):
    return [(one.name, one.aliases) for one in quantize_nodes(graph_module)]


def test_layers_have_their_eager_names(tiny_int8, tiny_cnn):
    eager = {point.name for point in discover(tiny_cnn).points}
    graph = {name for one in quantize_nodes(tiny_int8.graph) for name in (one.name, *one.aliases)}
    assert eager <= graph


def test_a_tensor_with_two_readers_has_one_point_and_an_alias(tiny_int8):
    assert dict(found(tiny_int8.graph))["block.conv1:input"] == ("block.skip:input",)


def test_names_of_repeated_calls_and_second_operands(mixed):
    assert [name for name, _ in found(mixed.graph)] == [
        "fc:input",
        "fc#2:input",
        "mul:input",
        "mul#2:input",
        "out:input",
    ]


def test_bounds_are_those_of_the_nodes(tiny_int8):
    for one in quantize_nodes(tiny_int8.graph):
        _, scale, zero_point, qmin, qmax, dtype = one.node.args
        assert (one.bound.scale, one.bound.zero_point) == (scale, zero_point)
        assert (one.bound.lo, one.bound.hi) == (
            (qmin - zero_point) * scale,
            (qmax - zero_point) * scale,
        )
        assert str(dtype) == f"torch.{one.bound.dtype}"


def test_names_and_bounds_survive_save_and_load(mixed):
    before, after = quantize_nodes(mixed.graph), quantize_nodes(mixed.reloaded)
    assert [(one.point, one.bound) for one in before] == [(one.point, one.bound) for one in after]
    assert [one.node.name for one in before] != [one.node.name for one in after]


def test_names_survive_save_and_load_where_a_quantizer_has_two_readers(tiny_int8, save_and_load):
    batch = torch.export.Dim("batch", min=2, max=1024)
    again = tiny_int8.graph
    for _ in range(2):
        again = save_and_load(again, (tiny_int8.example,), dynamic_shapes=({0: batch},))
        assert found(again) == found(tiny_int8.graph)


def test_observers_have_the_names_that_their_quantizers_get(mixed):
    observers = observer_nodes(mixed.prepared)
    assert [one.point for one in observers] == [one.point for one in quantize_nodes(mixed.graph)]
    for one in observers:
        assert hasattr(mixed.prepared.get_submodule(one.target), "calculate_qparams")


def test_scales_in_tensor_attributes_are_read():
    def build(graph, x):
        scale, zero = graph.get_attr("scale"), graph.get_attr("zero")
        quantizer = graph.call_function(Q_TENSOR, (x, scale, zero, 0, 127, torch.uint8))
        tensor_dq = torch.ops.quantized_decomposed.dequantize_per_tensor.tensor
        return graph.call_function(
            torch.relu,
            (graph.call_function(tensor_dq, (quantizer, scale, zero, 0, 127, torch.uint8)),),
        )

    module = graph_of(build, scale=torch.tensor(0.25), zero=torch.tensor(7))
    (one,) = quantize_nodes(module)
    assert (one.bound.lo, one.bound.hi) == (-7 * 0.25, 120 * 0.25)
    assert one.name == "relu:input"


def test_weight_quantizers_and_dynamic_quantizers_are_not_points():
    def build(graph, x):
        weight = quantized(graph, graph.get_attr("weight"))
        scale = graph.call_function(torch.amax, (x,))
        quantizer = graph.call_function(Q_TENSOR, (x, scale, 0, 0, 255, torch.uint8))
        return graph.call_function(operator.add, (quantizer, weight))

    module = graph_of(build, weight=torch.ones(3))
    assert quantize_nodes(module) == ()
    assert not is_quantized(module)
    with pytest.raises(AttachError, match="no static activation quantizer"):
        QuantizedGraph(module)


def test_a_quantized_output_is_named_after_its_producer():
    module = graph_of(lambda graph, x: quantized(graph, graph.call_function(torch.relu, (x,))))
    (one,) = quantize_nodes(module)
    assert (one.name, one.point.role) == ("relu:output", Role.OUTPUT)


def test_a_quantized_input_that_is_the_output_is_named_after_itself():
    (one,) = quantize_nodes(graph_of(quantized))
    assert one.name == "x:output"


def test_codes_read_by_an_operation_name_it():
    def build(graph, x):
        return graph.call_function(torch.flatten, (graph.call_function(Q, (x, *RANGE)),))

    assert found(graph_of(build)) == [("flatten:input", ())]


def test_a_quantizer_that_nobody_reads_is_no_point():
    def build(graph, x):
        quantized(graph, x)
        return x

    assert found(graph_of(build)) == []


def test_functional_weights_name_the_operation_not_the_module():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(2, 2))
            self.two = nn.Parameter(torch.ones(2, 2))

        def forward(self, x):
            return torch.nn.functional.linear(torch.nn.functional.linear(x, self.one), self.two)

    model = nn.Sequential(Block())
    module = torch.export.export(model.eval(), (torch.ones(1, 2),)).module()
    for node in [one for one in module.graph.nodes if one.op == "call_function"]:
        with module.graph.inserting_before(node):
            quantizer = module.graph.call_function(Q, (node.args[0], *RANGE))
            node.replace_input_with(
                node.args[0], module.graph.call_function(DQ, (quantizer, *RANGE))
            )
    module.recompile()
    assert [name for name, _ in found(module)] == ["0.linear:input", "0.linear#2:input"]


@pytest.mark.parametrize("arguments", [(0.0, 0, 0, 255), (float("nan"), 0, 0, 255), (0.5, 0, 5, 5)])
def test_unusable_numbers_are_refused(arguments):
    module = graph_of(
        lambda graph, x: graph.call_function(
            torch.relu, (quantized(graph, x, (*arguments, torch.uint8)),)
        )
    )
    with pytest.raises(AttachError, match="convert the model again"):
        quantize_nodes(module)


def test_a_scale_of_several_numbers_is_refused():
    def build(graph, x):
        scale = graph.get_attr("scale")
        quantizer = graph.call_function(Q_TENSOR, (x, scale, 0, 0, 255, torch.uint8))
        return graph.call_function(torch.relu, (quantizer,))

    with pytest.raises(AttachError, match="not single numbers"):
        quantize_nodes(graph_of(build, scale=torch.ones(2)))


def test_training_mode_is_seen_in_the_graph_not_in_its_flag(tiny_int8):
    assert tiny_int8.graph.training
    assert training_operation(tiny_int8.graph) is None
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    exported = torch.export.export(model, (torch.ones(1, 2),)).module()
    assert training_operation(exported) == "dropout"


def test_quantize_nodes_leave_the_graph_alone(tiny_int8, copy_graph):
    copied = copy_graph(tiny_int8.graph)
    before = copied.code
    QuantizedGraph(copied)
    assert copied.code == before
