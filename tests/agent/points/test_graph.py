import threading

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operations
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from calidrift_agent._points import QuantizedGraph, quantize_nodes


def nothing(index, tensor):
    pass


def same(one, two):
    ones, twos = tree_leaves(one), tree_leaves(two)
    return len(ones) == len(twos) and all(map(torch.equal, ones, twos))


@pytest.fixture(params=["graph", "reloaded"])
def any_graph(request, mixed):
    return getattr(mixed, request.param)


def test_as_served_it_is_bit_equal(any_graph, mixed):
    expected = any_graph(*mixed.args, **mixed.kwargs)
    output = QuantizedGraph(any_graph).run(mixed.args, mixed.kwargs, bypass=False, observe=nothing)
    assert type(output) is type(expected)
    assert list(output) == list(expected)
    assert same(output, expected)


def test_keyword_order_and_naming_of_positional_inputs_do_not_matter(any_graph, mixed):
    expected = any_graph(*mixed.args, **mixed.kwargs)
    graph = QuantizedGraph(any_graph)
    swapped = dict(reversed(mixed.kwargs.items()))
    assert same(graph.run(mixed.args, swapped, bypass=False, observe=nothing), expected)
    named = {**swapped, "x": mixed.args[0]}
    assert same(graph.run((), named, bypass=False, observe=nothing), expected)


def test_inputs_that_do_not_fit_are_a_type_error(mixed):
    with pytest.raises(TypeError):
        QuantizedGraph(mixed.graph).run((), {}, bypass=False, observe=nothing)


def test_every_quantizer_is_observed_before_it_clips(tiny_int8):
    seen = {}
    graph = QuantizedGraph(tiny_int8.graph)
    graph.run((tiny_int8.example * 10,), bypass=False, observe=seen.__setitem__)
    assert sorted(seen) == list(range(len(graph.quantizers)))
    assert torch.equal(seen[0], tiny_int8.example * 10)
    assert float(seen[0].abs().max()) > graph.quantizers[0].bound.absmax


def test_bypassed_the_values_are_those_of_a_graph_without_quantizers(tiny_int8, copy_graph):
    """Oracle: the same graph with its activation quantizers cut out by hand."""
    expected_graph = copy_graph(tiny_int8.graph)
    for node in [one.node for one in quantize_nodes(expected_graph)]:
        for user in list(node.users):
            user.replace_all_uses_with(node.args[0])
            expected_graph.graph.erase_node(user)
        expected_graph.graph.erase_node(node)
    expected_graph.recompile()
    example = tiny_int8.example * 10
    output = QuantizedGraph(tiny_int8.graph).run((example,), bypass=True, observe=nothing)
    # Another program of oneDNN adds the same products up in another order.
    torch.testing.assert_close(output, expected_graph(example).detach(), rtol=1e-5, atol=1e-5)


def test_bypassed_it_is_close_to_fp32_where_the_served_graph_clips(tiny_int8, tiny_cnn):
    example = tiny_int8.example * 10
    graph = QuantizedGraph(tiny_int8.graph)
    with torch.no_grad():
        wanted = tiny_cnn(example)
        free = (graph.run((example,), bypass=True, observe=nothing) - wanted).abs().max()
        served = (graph.run((example,), bypass=False, observe=nothing) - wanted).abs().max()
    assert float(free) < 0.05 * float(wanted.abs().max())
    assert float(served) > 10 * float(free)


def test_behind_a_clipped_layer_only_the_bypass_sees_the_true_extremes(tiny_int8):
    graph = QuantizedGraph(tiny_int8.graph)

    def extremes(bypass):
        seen = {}
        graph.run(
            (tiny_int8.example * 10,),
            bypass=bypass,
            observe=lambda index, tensor: seen.update({index: float(tensor.abs().max())}),
        )
        return [seen[index] for index in sorted(seen)]

    clipped, true = extremes(False), extremes(True)
    assert clipped[0] == true[0]
    assert all(one > 2 * other for one, other in zip(true[1:4], clipped[1:4], strict=True))


def test_a_failing_forward_raises_and_leaves_nothing_behind(tiny_int8):
    graph = QuantizedGraph(tiny_int8.graph)
    with pytest.raises((RuntimeError, AssertionError)):
        graph.run((torch.ones(4, 3, 8, 8),), bypass=False, observe=nothing)
    expected = tiny_int8.graph(tiny_int8.example)
    assert torch.equal(graph.run((tiny_int8.example,), bypass=False, observe=nothing), expected)


def test_threads_share_a_graph(tiny_int8):
    graph = QuantizedGraph(tiny_int8.graph)
    inputs = [tiny_int8.example * factor for factor in (1, 2, 3, 4)]
    expected = [tiny_int8.graph(one) for one in inputs]
    results: dict[int, list[torch.Tensor]] = {}

    def work(number):
        results[number] = [
            graph.run((inputs[number],), bypass=False, observe=nothing) for _ in range(5)
        ]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(
        torch.equal(one, expected[number]) for number, found in results.items() for one in found
    )
    assert len(results) == 4


def test_a_graph_without_input_specification_and_with_defaults_runs():
    class Plain(nn.Module):
        def forward(self, x, factor=2.0):
            codes = torch.ops.quantized_decomposed.quantize_per_tensor(
                x, 0.5, 0, 0, 255, torch.uint8
            )
            back = torch.ops.quantized_decomposed.dequantize_per_tensor(
                codes, 0.5, 0, 0, 255, torch.uint8
            )
            return back * factor

    module = fx.symbolic_trace(Plain())
    for node in module.graph.nodes:
        if "quantize" in node.name:
            node.target = node.target.default
    module.recompile()
    graph = QuantizedGraph(module)
    x = torch.tensor([0.3, 1.0, 500.0])
    assert torch.equal(graph.run((x,), bypass=False, observe=nothing), module(x))
    tripled = graph.run((x,), {"factor": 3.0}, bypass=True, observe=nothing)
    assert torch.equal(tripled, x * 3.0)


def test_bypass_looks_through_operations_on_codes():
    class Codes(nn.Module):
        def forward(self, x):
            return x

    graph = fx.Graph()
    x = graph.placeholder("x")
    arguments = (0.5, 0, 0, 255, torch.uint8)
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    flat = graph.call_function(torch.flatten, (graph.call_function(quantize, (x, *arguments)),))
    graph.output(graph.call_function(dequantize, (flat, *arguments)))
    module = fx.GraphModule(Codes(), graph)
    value = torch.tensor([[0.3, 1e4]])
    run = QuantizedGraph(module).run
    assert torch.equal(run((value,), bypass=True, observe=nothing), value.flatten())
    assert torch.equal(run((value,), bypass=False, observe=nothing), module(value))


def test_points_and_graph_are_readable(tiny_int8):
    graph = QuantizedGraph(tiny_int8.graph)
    assert graph.graph_module is tiny_int8.graph
    assert graph.points == tuple(one.point for one in quantize_nodes(tiny_int8.graph))
