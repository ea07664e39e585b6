"""Generated code against the interpreter of torch.fx, node by node, and what it keeps."""

import operator

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operations
from torch import fx, nn

from calidrift_agent._points import _program
from calidrift_agent._points._program import Constants, GraphProgram, quantize_and_back
from calidrift_agent._points._quantize import activation_dequantizers, quantize_nodes

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
NUMBERS = (0.05, 3, 0, 200, torch.uint8)


class Oracle(fx.Interpreter):
    """The same, as slowly and plainly as it gets."""

    def __init__(self, graph_module, observe, bypass):
        super().__init__(graph_module)
        self.indices = {one.node: i for i, one in enumerate(quantize_nodes(graph_module))}
        self.bypassed = activation_dequantizers(graph_module) if bypass else ()
        self.observe, self.bypass = observe, bypass

    def run_node(self, n):
        if n in self.indices:
            self.observe(self.indices[n], self.env[n.args[0]].detach())
            if self.bypass:
                return self.env[n.args[0]]
        elif n in self.bypassed:
            return self.env[n.args[0]].to(n.kwargs.get("out_dtype") or torch.float32)
        return super().run_node(n)


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(-128, 127, (6, 5), generator=generator, dtype=torch.int8)
        self.register_buffer("codes", codes)
        self.bias = nn.Parameter(torch.randn(6, generator=generator))
        self.inner = nn.Module()
        self.inner.register_buffer("offset", torch.tensor(0.5))
        self.check = nn.Identity()


def graph_of(build):
    """A graph module around what `build` makes of a quantized input."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    q = graph.call_function(QUANTIZE, (x, *NUMBERS))
    graph.output(build(graph, x, q))
    return fx.GraphModule(Owner(), graph)


def linear(graph, x, q):
    """A quantized linear layer, with everything that a line of code may consist of."""
    value = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    weight = graph.call_function(
        DEQUANTIZE, (graph.get_attr("codes"), 0.01, 0, -128, 127, torch.int8)
    )
    bias = graph.call_function(
        torch.ops.aten.add.Tensor, (graph.get_attr("bias"), graph.get_attr("inner.offset"))
    )
    out = graph.call_function(torch.ops.aten.linear.default, (value, weight, bias))
    out = graph.call_module("check", (out,))
    again = graph.call_function(QUANTIZE, (out, *NUMBERS))
    back = graph.call_function(DEQUANTIZE, (again, *NUMBERS), {"out_dtype": torch.float32})
    size = graph.call_method("size", (back, 0))
    joined = graph.call_function(torch.ops.aten.cat.default, ([back, out], 1))
    part = graph.call_function(operator.getitem, (joined, (slice(None, size), slice(1, None))))
    return {"part": part, "all": [joined, (x, 3)], "none": None}


def codes_only(graph, x, q):
    """A quantizer whose codes are read as they are."""
    value = graph.call_function(torch.ops.aten.to.dtype, (q, torch.int32))
    return (value,)


def written(graph, x, q):
    """Two readers of one quantizer, of which one writes to what it reads."""
    first = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    second = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    changed = graph.call_function(torch.ops.aten.add_.Tensor, (first, 1.0))
    return (changed, second)


def viewed(graph, x, q):
    """The same through a view."""
    first = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    second = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    view = graph.call_function(torch.ops.aten.view.default, (first, [-1]))
    changed = graph.call_function(torch.ops.aten.add_.Tensor, (view, 1.0))
    return (changed, second)


def shared(graph, x, q):
    first = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    second = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    return (graph.call_function(torch.ops.aten.add.Tensor, (first, second)),)


def other_numbers(graph, x, q):
    value = graph.call_function(DEQUANTIZE, (q, 0.1, *NUMBERS[1:]))
    half = graph.call_function(DEQUANTIZE, (q, *NUMBERS), {"out_dtype": torch.bfloat16})
    return (value, half)


GRAPHS = [linear, codes_only, written, viewed, shared, other_numbers]


def program_of(module, bypass, constants=None):
    indices = {one.node: i for i, one in enumerate(quantize_nodes(module))}
    bypassed = activation_dequantizers(module) if bypass else None
    return GraphProgram(module, indices, bypassed, constants or Constants(module))


def flat(value):
    return torch.utils._pytree.tree_leaves(value)


def equal(one, two):
    ones, twos = flat(one), flat(two)
    return len(ones) == len(twos) and all(
        torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(ones, twos, strict=True)
    )


class Notes:
    """Remembers what it was called with."""

    def __init__(self):
        self.indices, self.values = [], []

    def __call__(self, index, value):
        self.indices.append(index)
        self.values.append(value)


def inputs():
    generator = torch.Generator().manual_seed(1)
    plain = torch.randn(4, 5, generator=generator) * 6
    edges = plain.clone()
    edges.view(-1)[:6] = torch.tensor([0.025, -0.025, 0.075, -0.0, 1e9, -1e9])
    return [plain, edges, plain.to(torch.bfloat16)]


@pytest.mark.parametrize("bypass", [False, True])
@pytest.mark.parametrize("build", GRAPHS)
def test_the_same_as_the_interpreter_bit_for_bit(build, bypass):
    module = graph_of(build)
    program = program_of(module, bypass)
    for x in inputs():
        if bypass and (x.dtype != torch.float32 or build is codes_only):
            continue  # mixed types, or codes that are no codes: neither of the two can do it
        wanted, found = Notes(), Notes()
        expected = Oracle(module, wanted, bypass).run(x.clone())
        assert equal(program.run((x.clone(),), found), expected)
        assert wanted.indices == found.indices
        if build not in (written, viewed):  # these write to what was observed, in both
            assert equal(found.values, wanted.values)


@pytest.mark.parametrize("mutant", ["sharing", "order", "constants"])
def test_the_comparison_notices_planted_mutants(monkeypatch, mutant):
    if mutant == "sharing":
        monkeypatch.setattr(_program, "_may_write", lambda _: False)
        build = written
    elif mutant == "order":
        monkeypatch.setattr(
            _program, "quantize_and_back", lambda x, scale, *_: (x / scale).round() * scale
        )
        build = linear
    else:
        monkeypatch.setattr(
            Constants,
            "values",
            lambda one: [
                value * 2
                for value in one._compute(
                    [_program.fetch(one._graph_module, str(node.target)) for node in one._sources]
                )
            ],
        )
        build = linear
    with pytest.raises(AssertionError):
        test_the_same_as_the_interpreter_bit_for_bit(build, False)


def test_quantizing_and_back_is_what_the_operations_do():
    for x in (*inputs(), torch.randn(10_000) * 30):
        codes = QUANTIZE(x, *NUMBERS)
        assert torch.equal(quantize_and_back(x, *NUMBERS), DEQUANTIZE(codes, *NUMBERS))


def ignore(index, value):
    pass


@pytest.mark.parametrize("change", ["written", "replaced", "loaded", "assigned"])
def test_weights_that_change_take_effect_at_once(change):
    module = graph_of(linear)
    program, x = program_of(module, True), inputs()[0]
    before = program.run((x,), ignore)
    if change == "written":
        module.codes.add_(1)
    elif change == "replaced":
        module.codes = module.codes + 1
    else:
        state = {**module.state_dict(), "codes": module.codes + 1}
        module.load_state_dict(state, assign=change == "assigned")
    after = program.run((x,), ignore)
    assert not equal(before, after)
    assert equal(after, Oracle(module, ignore, True).run(x))


def counted(monkeypatch, module):
    constants, calls = Constants(module), []
    compute = Constants._compute
    monkeypatch.setattr(
        Constants, "_compute", lambda one, tensors: calls.append(1) or compute(one, tensors)
    )
    return constants, calls


def test_weights_are_dequantized_once_for_all_programs(monkeypatch):
    module = graph_of(linear)
    constants, calls = counted(monkeypatch, module)
    programs = [program_of(module, bypass, constants) for bypass in (True, False)]
    assert len(constants.nodes) == 2
    for _ in range(3):
        for program in programs:
            program.run((inputs()[0],), ignore)
    assert len(calls) == 1


def test_what_is_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(_program, "KEPT_BYTES", 10)
    module = graph_of(linear)
    constants, calls = counted(monkeypatch, module)
    program, x = program_of(module, True, constants), inputs()[0]
    for _ in range(3):
        assert equal(program.run((x,), ignore), Oracle(module, ignore, True).run(x))
    assert len(calls) == 3


def test_weights_that_count_no_writes_are_compared(monkeypatch):
    module = graph_of(linear)
    with torch.inference_mode():
        module.codes = module.codes.clone()
        module.inner.offset = module.inner.offset.to(torch.bfloat16)  # of no type of numpy's
        constants, calls = counted(monkeypatch, module)
        program, x = program_of(module, True, constants), inputs()[0]
        for step, write in enumerate((None, None, module.codes, module.inner.offset, None)):
            if write is not None:
                write.add_(1)
            assert equal(program.run((x,), ignore), Oracle(module, ignore, True).run(x))
            assert len(calls) == [1, 1, 2, 3, 3][step]


def test_random_and_writing_operations_are_no_constants():
    graph = fx.Graph()
    x = graph.placeholder("x")
    codes = graph.get_attr("bias")
    random = graph.call_function(torch.ops.aten.rand_like.default, (codes,))
    written = graph.call_function(torch.ops.aten.relu_.default, (codes,))
    view = graph.call_function(torch.ops.aten.view.default, (codes, [2, 3]))
    kept = graph.call_function(torch.ops.aten.mul.Tensor, (codes, 2.0))
    q = graph.call_function(QUANTIZE, (x, *NUMBERS))
    graph.output((random, written, view, kept, q))
    module = fx.GraphModule(Owner(), graph)
    assert [node.name for node in Constants(module).nodes] == [kept.name]


def test_values_are_dropped_when_nobody_needs_them_any_more():
    """A pass holds what is alive, not every activation of the graph."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    q = graph.call_function(QUANTIZE, (x, *NUMBERS))
    value = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    for _ in range(3):
        value = graph.call_function(torch.ops.aten.mul.Tensor, (value, 2.0))
    graph.output(value)
    module = fx.GraphModule(Owner(), graph)
    lines = program_source(module)
    dropped = [line.strip() for line in lines if line.strip().endswith("= None")]
    assert len(dropped) >= 4


def program_source(module):
    writer = _program._Writer(
        module,
        {one.node: i for i, one in enumerate(quantize_nodes(module))},
        frozenset(),
        Constants(module),
    )
    writer.compile()
    return writer._lines


def with_tail(graph, x, q):
    """A quantizer in the middle; behind it a layer, a check, and what is written to."""
    value = graph.call_function(DEQUANTIZE, (q, *NUMBERS))
    kept = graph.call_function(torch.ops.aten.mul.Tensor, (value, 1.5))
    graph.call_function(QUANTIZE, (kept, *NUMBERS))
    again = graph.call_function(torch.ops.aten.add.Tensor, (kept, 1.0))
    again = graph.call_function(torch.ops.aten.neg.default, (again,))
    flag = graph.call_function(torch.ops.aten.is_nonzero.default, (graph.get_attr("inner.offset"),))
    graph.call_function(operator.truth, (flag,))
    return (again,)


@pytest.mark.parametrize("bypass", [False, True])
@pytest.mark.parametrize("build", [*GRAPHS, with_tail])
def test_without_output_the_same_is_observed(build, bypass):
    module = graph_of(build)
    indices = {one.node: i for i, one in enumerate(quantize_nodes(module))}
    bypassed = activation_dequantizers(module) if bypass else None
    short = GraphProgram(module, indices, bypassed, Constants(module), output=False)
    whole, x = program_of(module, bypass), inputs()[0]
    if bypass and build is codes_only:
        return  # codes that are no codes
    wanted, found = Notes(), Notes()
    whole.run((x.clone(),), wanted)
    assert short.run((x.clone(),), found) is None
    assert wanted.indices == found.indices and len(found.indices) > 0
    assert build in (written, viewed) or equal(found.values, wanted.values)


def test_what_only_the_output_needs_is_left_out_and_checks_are_not():
    module = graph_of(with_tail)
    indices = {one.node: i for i, one in enumerate(quantize_nodes(module))}
    left_out = {node.name for node in _program._behind(module, indices)}
    assert left_out == {"add_tensor", "neg_default", "output"}


def test_what_is_kept_of_weights_is_told():
    module = graph_of(linear)
    constants = Constants(module)
    assert constants.kept_bytes == 0
    program_of(module, True, constants).run((inputs()[0],), ignore)
    assert constants.kept_bytes == 4 * (6 * 5 + 6)  # the weight in float32, and the sum of biases
    with torch.inference_mode():
        module.codes = module.codes.clone()
        program_of(module, True, constants).run((inputs()[0],), ignore)
        assert constants.kept_bytes == 4 * (6 * 5 + 6) + 6 * 5  # and a copy of the codes
