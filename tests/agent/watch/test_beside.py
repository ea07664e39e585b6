"""Strategy *beside*: quantized graphs and compiled models, replayed away from the request."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._points import QuantizedGraph
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import (
    CountColumn,
    DropReason,
    Instrument,
    RequestColumn,
    Stage,
    Strategy,
    ValueColumn,
)
from calidrift_agent._watch import WatchOptions
from calidrift_agent._watch._report import Reference

CLIPS = [CountColumn.CLIP_ELEMENTS, CountColumn.CLIP_LOW, CountColumn.CLIP_HIGH]


def errors(total, stage):
    return int(total.requests[RequestColumn.ERROR_FIRST + list(Stage).index(stage)])


def drops(total, reason):
    return int(total.requests[RequestColumn.DROP_FIRST + list(DropReason).index(reason)])


@pytest.fixture
def graph(tiny_int8, copy_graph):
    return copy_graph(tiny_int8.graph)


def test_the_output_is_the_hosts_own(graph, tiny_int8, watch_all):
    with torch.no_grad():
        expected = graph(tiny_int8.example)
        watch = watch_all(graph)
        for _ in range(3):
            assert torch.equal(graph(tiny_int8.example), expected)
    report = watch.report()
    assert report.strategy is Strategy.BESIDE
    assert report.instrument is Instrument.RANGE
    assert report.observed == report.points
    assert report.observed_calls == 3


def test_both_instruments_see_what_the_graph_shows_for_one_row(graph, tiny_int8, watch_all):
    row = tiny_int8.example[3:4]
    batch = torch.cat([row] * 5)  # any row is this row
    watch = watch_all(graph)
    with torch.no_grad():
        graph(batch)
        ranges, clips = {}, {}
        oracle = QuantizedGraph(graph)
        oracle.run((row,), bypass=True, observe=lambda i, t: ranges.update({i: t.clone()}))
        oracle.run((row,), bypass=False, observe=lambda i, t: clips.update({i: t.clone()}))
    _, total = watch.snapshot()
    for index, quantizer in enumerate(oracle.quantizers):
        bound = quantizer.bound
        counts, values = total.counts[index], total.values[index]
        assert values[ValueColumn.HIGHEST] == float(ranges[index].max())
        assert values[ValueColumn.LOWEST] == float(ranges[index].min())
        assert counts[CountColumn.ELEMENTS] == ranges[index].numel()
        assert counts[CountColumn.ROWS] == 1
        codes = torch.round(clips[index] / bound.scale) + bound.zero_point
        expected = [codes.numel(), int((codes < bound.qmin).sum()), int((codes > bound.qmax).sum())]
        assert counts[CLIPS].tolist() == expected


def test_inputs_far_outside_are_seen_as_clipping(graph, tiny_int8, watch_all):
    watch = watch_all(graph)
    with torch.no_grad():
        graph(tiny_int8.example * 20)
    _, total = watch.snapshot()
    low, high = total.counts[0, CountColumn.CLIP_LOW], total.counts[0, CountColumn.CLIP_HIGH]
    assert low + high > 20
    share = total.values[0, ValueColumn.CLIPPED_ENERGY] / total.values[0, ValueColumn.ENERGY]
    assert 0.5 < share < 1.0


def test_the_host_may_write_to_its_input_afterwards(graph, tiny_int8, watch_all):
    watch = watch_all(graph)
    x = tiny_int8.example.clone()
    expected = float(x.max())
    with torch.no_grad():
        graph(x)
        x.fill_(1e6)
    assert watch.snapshot()[1].values[0, ValueColumn.HIGHEST] <= expected


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_all_grad_modes(graph, tiny_int8, watch_all, mode):
    watch = watch_all(graph)
    with mode():
        graph(tiny_int8.example)
    assert watch.report().observed_calls == 1


@pytest.mark.parametrize("rows", [2, 3, 16])
def test_every_batch_that_the_graph_accepts(graph, tiny_int8, watch_all, rows):
    watch = watch_all(graph)
    with torch.no_grad():
        for _ in range(4):
            graph(tiny_int8.example[:rows])
    _, total = watch.snapshot()
    assert set(total.counts[:, CountColumn.ROWS].tolist()) == {4}
    assert watch._active.engine.books.tally.shadow.batch == 1


@pytest.mark.parametrize(
    ("smallest", "batch", "rows"), [(2, 2, 1), (3, 3, 1), (5, 8, 1), (16, -1, 16)]
)
def test_where_one_row_is_refused_it_is_repeated(
    graph, tiny_int8, watch_all, monkeypatch, smallest, batch, rows
):
    original = QuantizedGraph.run

    def refusing(self, args, kwargs=None, **options):
        if args[0].shape[0] < smallest:
            raise AssertionError(f"Guard failed: x.size()[0] >= {smallest}")
        return original(self, args, kwargs, **options)

    monkeypatch.setattr(QuantizedGraph, "run", refusing)
    watch = watch_all(graph)
    with torch.no_grad():
        for _ in range(3):
            graph(tiny_int8.example)
    _, total = watch.snapshot()
    assert watch._active.engine.books.tally.shadow.batch == batch
    assert set(total.counts[:, CountColumn.ROWS].tolist()) == {3 * rows}
    assert total.counts[0, CountColumn.ELEMENTS] == 3 * rows * 64
    assert total.cells.sum(axis=1) == pytest.approx(total.counts[:, CountColumn.ELEMENTS], rel=0.01)
    assert not total.requests[RequestColumn.ERROR_FIRST :].any()


def test_a_graph_that_refuses_everything_is_an_error_of_the_shadow(
    graph, tiny_int8, watch_all, monkeypatch
):
    monkeypatch.setattr(QuantizedGraph, "run", lambda *_, **__: 1 / 0)
    watch = watch_all(graph)
    with torch.no_grad():
        graph(tiny_int8.example)
    assert errors(watch.snapshot()[1], Stage.SHADOW) == 1


def static_graph(quantize_pt2e, tiny_cnn, rows):
    example = torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return quantize_pt2e(tiny_cnn, (example,)).converted, example


def test_a_fixed_batch_is_replayed_whole(quantize_pt2e, tiny_cnn, watch_all):
    graph, example = static_graph(quantize_pt2e, tiny_cnn, 4)
    watch = watch_all(graph)
    with torch.no_grad():
        for _ in range(3):
            graph(example)
    _, total = watch.snapshot()
    assert set(total.counts[:, CountColumn.ROWS].tolist()) == {12}
    assert total.values[0, ValueColumn.HIGHEST] == float(example.max())
    assert not total.requests[RequestColumn.ERROR_FIRST :].any()


def test_a_fixed_batch_of_one(quantize_pt2e, tiny_cnn, watch_all):
    graph, example = static_graph(quantize_pt2e, tiny_cnn, 1)
    watch = watch_all(graph)
    with torch.no_grad():
        graph(example)
    assert set(watch.snapshot()[1].counts[:, CountColumn.ROWS].tolist()) == {1}


def test_keyword_and_nested_inputs(quantize_pt2e, watch_all):
    class Keyed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x, *, mask, extra):
            return {"y": torch.relu(self.fc(x * mask)) + extra["shift"]}

    args = (torch.randn(4, 6),)
    kwargs = {"mask": torch.rand(4, 6), "extra": {"shift": torch.ones(4, 4)}}
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {"x": {0: batch}, "mask": {0: batch}, "extra": {"shift": {0: batch}}}
    graph = quantize_pt2e(Keyed().eval(), args, kwargs, dynamic_shapes=shapes).converted
    with torch.no_grad():
        expected = graph(*args, **kwargs)["y"]
        watch = watch_all(graph)
        assert torch.equal(graph(*args, **kwargs)["y"], expected)
    report = watch.report()
    assert report.observed == report.points
    assert "fc:input" in report.points


def test_a_profile_gives_coverage(graph, tiny_int8, tiny_cnn, watch_all):
    batches = [tiny_int8.example, tiny_int8.example * 0.5]
    ranges = CalibrationProfile.from_pt2e(graph)
    observed = calibrate(graph, batches)
    watch = watch_all(graph, profile=observed)
    assert watch.report().reference is Reference.OBSERVED
    with torch.no_grad():
        graph(tiny_int8.example * 0.5)
        graph(tiny_int8.example * 9.0)
    _, total = watch.snapshot()
    units, covered = total.requests[[RequestColumn.UNITS, RequestColumn.UNITS_COVERED]]
    assert (units, covered) == (2, 1)
    assert watch_all(tiny_cnn).report().reference is Reference.NONE
    assert set(ranges.points) == set(observed.points)


def test_graphs_that_draw_random_numbers_are_observed_at_their_edges(quantize_pt2e, watch_all):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.two(torch.relu(self.one(x)) + torch.rand_like(x))

    example = torch.randn(4, 6)
    graph = quantize_pt2e(Noisy().eval(), (example,)).converted
    watch = watch_all(graph)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        output = graph(example)
        after = torch.random.get_rng_state()
        torch.random.set_rng_state(state)
        watch.close()
        assert torch.equal(graph(example), output)  # the host's numbers are the host's alone
        assert torch.equal(torch.random.get_rng_state(), after)
    report = watch.report()
    assert report.points == report.observed == ("one:input", ":output")
    assert "two:input" in report.skipped
    assert any("draws random numbers" in note for note in report.notes)
    _, total = watch.snapshot()
    assert total.values[0, ValueColumn.HIGHEST] <= float(example.max())
    assert total.values[1, ValueColumn.HIGHEST] in output.amax(1).tolist()
    assert total.counts[0, CountColumn.CLIP_ELEMENTS] == 6


def test_graphs_that_write_to_buffers_are_observed_at_their_edges(quantize_pt2e, watch_all):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.add_(1.0)
            return self.fc(torch.relu(self.fc(x))) + self.calls

    example = torch.randn(4, 6)
    graph = quantize_pt2e(Counting().eval(), (example,)).converted
    before = {name: value.clone() for name, value in graph.named_buffers()}
    watch = watch_all(graph)
    with torch.no_grad():
        for _ in range(3):
            graph(example)
        watch.flush()
    grown = [name for name, value in graph.named_buffers() if not torch.equal(value, before[name])]
    assert [float(graph.get_buffer(name) - before[name]) for name in grown] == [3.0]
    assert any("writes to its own buffers" in note for note in watch.report().notes)


def test_a_full_queue_drops_and_counts(graph, tiny_int8, watch_all):
    watch = watch_all(graph, options=WatchOptions(drain_seconds=3600, window_seconds=86_400))
    engine = watch._active.engine
    engine._thread = type("Asleep", (), {"wake": lambda *_: None, "join": lambda *_: None})()
    with torch.no_grad():
        for _ in range(4):
            graph(tiny_int8.example)
    _, total = watch.snapshot()
    assert total.requests[[RequestColumn.SEEN, RequestColumn.SAMPLED]].tolist() == [4, 4]
    assert total.requests[RequestColumn.OBSERVED] == 1
    assert drops(total, DropReason.QUEUE_FULL) == 3


def test_the_shadow_runs_on_another_thread(graph, tiny_int8, watch_all, monkeypatch):
    ran, done = [], threading.Event()
    watch = watch_all(graph, options=WatchOptions(drain_seconds=0.05))
    shadow = watch._active.engine.books.tally.shadow
    original = type(shadow).run

    def run(self, call):
        ran.append(threading.current_thread().name)
        original(self, call)
        done.set()

    monkeypatch.setattr(type(shadow), "run", run)
    with torch.no_grad():
        graph(tiny_int8.example)
    assert done.wait(20)
    assert ran == ["calidrift-net"]


def test_a_request_without_tensors_is_counted_as_unsuitable(watch_all, graph):
    watch = watch_all(graph)
    observe = watch._active.engine._parts.gate.observe
    with pytest.raises(RuntimeError):
        observe(1, ("text",), {})
    assert drops(watch.snapshot()[1], DropReason.UNSUITABLE_INPUT) == 1


def test_a_failing_shadow_is_counted(graph, tiny_int8, watch_all, monkeypatch):
    watch = watch_all(graph)
    monkeypatch.setattr(QuantizedGraph, "run", lambda *_, **__: 1 / 0)
    with torch.no_grad():
        expected = graph(tiny_int8.example)
        assert torch.equal(graph(tiny_int8.example), expected)
    _, total = watch.snapshot()
    assert errors(total, Stage.SHADOW) == 2
    assert total.requests[RequestColumn.OBSERVED] == 0


def test_an_empty_batch_is_left_alone(watch_all, quantize_pt2e):
    batch = torch.export.Dim("batch", min=0, max=64)
    example = torch.randn(4, 6)
    graph = quantize_pt2e(
        nn.Sequential(nn.Linear(6, 4)).eval(), (example,), dynamic_shapes=({0: batch},)
    ).converted
    watch = watch_all(graph)
    with torch.no_grad():
        graph(example[:0])
    _, total = watch.snapshot()
    assert total.requests[[RequestColumn.SAMPLED, RequestColumn.OBSERVED]].tolist() == [1, 0]


def test_sketches_of_the_graph_are_sketches_of_one_row(graph, tiny_int8, watch_all):
    watch = watch_all(graph)
    with torch.no_grad():
        for _ in range(3):
            graph(tiny_int8.example)
    _, total = watch.snapshot()
    assert np.array_equal(total.cells.sum(axis=1), total.counts[:, CountColumn.ELEMENTS])


@pytest.mark.slow
def test_a_frozen_int8_host_does_not_compile_again(graph, tiny_int8, watch_all):
    import torch._inductor.config as inductor
    from torch._dynamo.utils import counters

    x = tiny_int8.example
    with torch.no_grad(), inductor.patch(freezing=True):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Inductor copies its own constants
            compiled = torch.compile(graph)
            compiled(x)
            expected = compiled(x)
        attributes = dict(compiled.__dict__)
        before = {name: dict(counters[name]) for name in ("stats", "frames", "inductor")}
        watch = watch_all(compiled)
        for _ in range(5):
            assert torch.equal(compiled(x), expected)
        watch.flush()
        report = watch.report()
        watch.close()
        assert torch.equal(compiled(x), expected)
        after = {name: dict(counters[name]) for name in before}
    assert after == before
    assert compiled.__dict__ == attributes
    assert report.observed == report.points
    assert report.observed_calls == 5
