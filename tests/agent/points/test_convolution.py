"""Convolutions on packed weights against torch's own: values, layout, and what is left to it."""

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operations
from torch import fx, nn

from calidrift_agent._points import _convolution, _program
from calidrift_agent._points._convolution import Convolution
from calidrift_agent._points._program import Constants, GraphProgram
from calidrift_agent._points._quantize import quantize_nodes

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
CONV = torch.ops.aten.conv2d.default
NUMBERS = (0.05, 100, 0, 255, torch.uint8)

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN"
)


class Owner(nn.Module):
    def __init__(self, groups=1):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = (8, 8 // groups, 3, 3)
        codes = torch.randint(-128, 127, shape, generator=generator, dtype=torch.int8)
        self.register_buffer("codes", codes)
        self.bias = nn.Parameter(torch.randn(8, generator=generator))


def graph_of(behind=None, *, groups=1, numbers=((2, 2), (1, 1), (1, 1))):
    graph = fx.Graph()
    x = graph.placeholder("x")
    q = graph.call_function(QUANTIZE, (x, *NUMBERS))
    value = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    weight = graph.call_function(
        DEQUANTIZE, (graph.get_attr("codes"), 0.01, 0, -128, 127, torch.int8)
    )
    arguments = [*map(list, numbers), groups][: 4 if groups > 1 else len(numbers)]
    out = graph.call_function(CONV, (value, weight, graph.get_attr("bias"), *arguments))
    graph.output(out if behind is None else behind(graph, out))
    return fx.GraphModule(Owner(groups), graph)


def program_of(module):
    indices = {one.node: i for i, one in enumerate(quantize_nodes(module))}
    constants = Constants(module)
    return GraphProgram(module, indices, None, constants), constants


def image(*shape, **kwargs):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), **kwargs) * 3


def ignore(index, value):
    pass


def run(module, x):
    return program_of(module)[0].run((x,), ignore)


def is_packed(constants):
    return [value.is_mkldnn for value in constants.values() if value.dim() == 4] == [True]


@needs_onednn
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"groups": 4},
        {"numbers": ()},
        {"numbers": ((1, 2),)},
        {"numbers": ((1, 1), (2, 1), (2, 2))},
    ],
    ids=["strided", "groups", "defaults", "uneven", "dilated"],
)
def test_values_and_layout_are_those_of_torch(kind, turned):
    module, x = graph_of(**kind), image(3, 8, 9, 10)
    if turned:
        x = x.contiguous(memory_format=torch.channels_last)
    program, constants = program_of(module)
    found, expected = program.run((x,), ignore), module(x)
    assert is_packed(constants) and not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
    assert found.stride() == expected.stride()


@needs_onednn
def test_the_comparison_notices_another_weight():
    module, other = graph_of(), graph_of()
    other.codes[0, 0, 1, 1] += 7
    x = image(1, 8, 9, 9)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(run(module, x), other(x).detach(), rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_weights_that_change_are_packed_again(mode):
    module, x = graph_of(), image(1, 8, 9, 9)
    program, constants = program_of(module)
    with mode():
        before = program.run((x,), ignore)
        module.codes = module.codes + 1
        after = program.run((x,), ignore)
        torch.testing.assert_close(after, module(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, after) and is_packed(constants)
    assert constants.kept_bytes >= 4 * module.codes.numel()


@needs_onednn
@pytest.mark.parametrize("way", ["autocast", "double", "gradient"])
def test_what_is_left_to_torch_is_what_torch_does(way):
    module = graph_of()
    weight = torch.randn(8, 8, 3, 3)
    node = next(one for one in module.graph.nodes if one.target is CONV)
    x = image(1, 8, 9, 9, requires_grad=way == "gradient")
    convolve, packed = Convolution(node), _convolution.pack(weight, node)
    assert packed.is_mkldnn
    if way == "double":
        with pytest.raises(RuntimeError):  # of torch: types must agree
            convolve(x.double(), packed, None)
        return
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        found = convolve(x, packed, None)
        expected = torch.conv2d(x, weight, None, 2, 1)
    assert torch.equal(found, expected) and found.dtype == expected.dtype
    assert found.requires_grad == (way == "gradient")


def test_what_onednn_does_not_take_is_not_packed(monkeypatch):
    node = next(one for one in graph_of().graph.nodes if one.target is CONV)
    for weight in (torch.ones(8, 8, 3, 3, dtype=torch.float64), torch.ones(8, 8, 3), None):
        assert _convolution.pack(weight, node) is weight
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    weight = torch.ones(8, 8, 3, 3)
    assert _convolution.pack(weight, node) is weight
    x = image(1, 8, 9, 9)
    assert torch.equal(Convolution(node)(x, weight, None), torch.conv2d(x, weight, None, 2, 1))


def test_what_is_too_large_to_keep_is_not_packed(monkeypatch):
    monkeypatch.setattr(_program, "KEPT_BYTES", 10)
    module, x = graph_of(), image(1, 8, 9, 9)
    program, constants = program_of(module)
    assert torch.equal(program.run((x,), ignore), module(x))
    assert not any(value.is_mkldnn for value in constants.values())


def chain(*steps):
    def behind(graph, value):
        for target, *arguments in steps:
            value = graph.call_function(target, (value, *arguments))
        return value

    return behind


aten = torch.ops.aten
MEAN = (aten.mean.dim, [2, 3])
FREE = {
    "mean": chain(MEAN),
    "relu": chain((aten.relu.default,), MEAN),
    "written": chain((aten.relu_.default,), (aten.add.Tensor, 1.0), MEAN),
    "flattened behind a mean": chain(MEAN, (aten.view.default, [-1])),
}
NOT_FREE = {
    "output": None,
    "view": chain((aten.view.default, [1, -1]), (aten.sum.default,)),
    "permuted": chain((aten.permute.default, [0, 2, 3, 1]), (aten.sum.default,)),
    "mean over rows": chain((aten.mean.dim, [2]), (aten.sum.default,)),
    "view behind a relu": chain((aten.relu.default,), (aten.view.default, [-1])),
    "not torch's": chain((torch.neg,), MEAN),
}


@pytest.mark.parametrize("name", [*FREE, *NOT_FREE])
def test_a_layout_is_free_where_nobody_can_tell(name):
    module, x = graph_of({**FREE, **NOT_FREE}[name]), image(1, 8, 9, 9)
    node = next(one for one in module.graph.nodes if one.target is CONV)
    assert _convolution._is_free(node) == (name in FREE)
    torch.testing.assert_close(run(module, x), module(x).detach(), rtol=1e-4, atol=1e-4)


@needs_onednn
def test_a_layout_that_is_wrongly_called_free_is_noticed(monkeypatch):
    monkeypatch.setattr(_convolution, "_is_free", lambda _: True)
    with pytest.raises(RuntimeError):
        run(graph_of(NOT_FREE["view"]), image(1, 8, 9, 9))
