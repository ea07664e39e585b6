"""INT8 graphs of `torch.export.load`, and graphs compiled in place: clipping, kernels, counters."""

import re
import warnings

import pytest
import torch
from torch._dynamo.utils import counters
from torch.fx import Interpreter

from calidrift_agent._vocabulary import CountColumn, RequestColumn, Stage, Strategy

KERNEL = re.compile(r"torch\.ops\.onednn\.q(?:conv|linear)\w*\.\w+\(")
LAYERS = 5
"""Convolution and linear layers of the network; each has one INT8 kernel."""


class ClipCount(Interpreter):
    """Counts codes outside the range of each activation quantizer, with nothing of the agent's."""

    def __init__(self, graph):
        super().__init__(graph)
        self.outside = self.elements = 0

    def run_node(self, n):
        if str(n.target).removeprefix("quantized_decomposed.") == "quantize_per_tensor.default":
            x = self.env[n.args[0]]
            scale, zero_point, lowest, highest = n.args[1:5]
            codes = torch.round(x * (1.0 / scale)) + zero_point
            self.outside += int(((codes < lowest) | (codes > highest)).sum())
            self.elements += x.numel()
        return super().run_node(n)


@pytest.fixture(scope="module")
def reloaded(tiny_int8, copy_graph, save_and_load):
    batch = torch.export.Dim("batch", min=2, max=1024)
    return save_and_load(
        copy_graph(tiny_int8.graph), (tiny_int8.example,), dynamic_shapes=({0: batch},)
    )


def counts_of(total):
    columns = total.counts.sum(axis=0)
    low, high = columns[CountColumn.CLIP_LOW], columns[CountColumn.CLIP_HIGH]
    return int(low + high), int(columns[CountColumn.CLIP_ELEMENTS])


def failed(total):
    first = RequestColumn.ERROR_FIRST
    return int(total.requests[first : first + len(Stage)].sum())


def requests(example):
    """Batches of one row, repeated: whichever row is replayed, its clipping is known."""
    for index in range(16):
        yield (example[index : index + 1] * (0.5 + index / 2)).repeat(2, 1, 1, 1)


def test_a_reloaded_graph_shows_the_known_clipping(reloaded, tiny_int8, watch_all):
    oracle = ClipCount(reloaded)
    watch = watch_all(reloaded)
    with torch.no_grad():
        for x in requests(tiny_int8.example):
            expected = oracle.run(x)
            assert torch.equal(
                reloaded(x), expected[0] if isinstance(expected, tuple) else expected
            )
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.strategy is Strategy.BESIDE
    assert report.never_fired == ()
    assert failed(total) == 0
    outside, elements = counts_of(total)
    known = oracle.outside / oracle.elements
    assert known > 0.02
    assert outside / elements == pytest.approx(known, rel=0.01)


def test_points_are_those_of_the_graph_before_it_was_saved(
    reloaded, tiny_int8, copy_graph, watch_all
):
    before = watch_all(copy_graph(tiny_int8.graph)).report().points
    assert watch_all(reloaded).report().points == before


@pytest.mark.slow
def test_a_compiled_reloaded_host_keeps_its_int8_kernels(reloaded, tiny_int8, watch_all):
    import torch._inductor.config as inductor
    from torch._inductor.utils import run_and_get_code

    x = tiny_int8.example
    torch._dynamo.reset()
    with torch.no_grad(), inductor.patch(freezing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inductor copies its own constants
        compiled = torch.compile(reloaded)
        expected, code = run_and_get_code(compiled, x)
        expected = compiled(x)
        before = {name: dict(found) for name, found in counters.items()}
        watch = watch_all(compiled)
        for _ in range(3):
            assert torch.equal(compiled(x), expected)
        watch.flush()
        report, (_, total) = watch.report(), watch.snapshot()
        watch.close()
        assert torch.equal(compiled(x), expected)
        after = {name: dict(found) for name, found in counters.items()}
    assert len(KERNEL.findall("\n".join(code))) == LAYERS
    assert after == before
    assert report.never_fired == ()
    assert failed(total) == 0


def test_a_graph_compiled_in_place(tiny_int8, copy_graph, watch_all):
    torch._dynamo.reset()
    graph = copy_graph(tiny_int8.graph)
    graph.compile(backend="eager")
    x = tiny_int8.example
    with torch.no_grad():
        expected = graph(x)
        before = {name: dict(found) for name, found in counters.items()}
        implementation = graph._compiled_call_impl
        watch = watch_all(graph)
        for _ in range(3):
            assert torch.equal(graph(x), expected)
        assert watch.report().never_fired == ()
        assert watch.report().observed_calls == 3
        watch.close()
        assert graph._compiled_call_impl is implementation
        assert torch.equal(graph(x), expected)
    assert {name: dict(found) for name, found in counters.items()} == before
