import numpy as np
import pytest
import torch

from calidrift_agent._taps import (
    PAGE_ELEMENTS,
    SAMPLE_LIMIT,
    WHOLE_LIMIT,
    PointTable,
    Recorder,
    Shelf,
    ShelfPool,
)

LARGE = (2, 8, 64, 72)


def observed(recorder, *values):
    for point, value in enumerate(values):
        recorder.observe(point, value)
    recorder.finish()
    return recorder.harvest.readings()


def test_small_tensors_are_measured_later_and_whole(new_recorder):
    value = torch.randn(2, 30)
    expected = value.clone()
    recorder = new_recorder(rows=2)
    recorder.observe(0, value)
    value.fill_(99.0)  # what the host does afterwards does not matter
    (reading,) = recorder.harvest.readings()
    assert reading.extremes.highs == expected.amax(1).tolist()
    assert sorted(reading.sample) == sorted(expected.flatten().tolist())
    assert (reading.numel, reading.weight, reading.points) == (60, 1, [0])


def test_large_tensors_are_measured_at_once(new_recorder):
    value = torch.randn(LARGE)
    assert value.numel() > WHOLE_LIMIT
    recorder = new_recorder(rows=2)
    recorder.observe(0, value)
    expected = value.reshape(2, -1).amax(1).tolist()
    elements = set(value.flatten().tolist())
    value.fill_(99.0)
    (reading,) = recorder.harvest.readings()
    assert reading.extremes.highs == expected
    assert len(reading.sample) <= SAMPLE_LIMIT
    assert set(reading.sample.tolist()) <= elements
    assert reading.numel == torch.Size(LARGE).numel()


@pytest.mark.parametrize("shape", [(2, 30), (2, 200, 400)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_widened(new_recorder, shape, dtype):
    value = torch.randn(shape).to(dtype)
    (reading,) = observed(new_recorder(rows=2), value)
    assert reading.sample.dtype == np.float32
    assert reading.extremes.highs == pytest.approx(value.double().flatten(1).amax(1).tolist())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("shape", [(2, 30), (2, 200, 400)])
def test_all_grad_modes_and_no_graph_is_kept(new_recorder, ledger, mode, shape):
    with mode():
        weight = torch.ones(1, requires_grad=True)
        value = torch.randn(shape) * weight
        recorder = new_recorder(rows=2)
        recorder.observe(0, value)
        recorder.finish()
    assert all(
        not kept.requires_grad for _, kept in recorder._raw if isinstance(kept, torch.Tensor)
    )
    assert len(recorder.harvest.readings()) == 1
    assert not ledger.take()[0].any()


def test_buffers_made_in_inference_mode_serve_other_modes(ledger, pool):
    table = PointTable.of([("p", ())])
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            recorder = Recorder(table, ledger, pool, rows=1)
            observed(recorder, torch.ones(1, 5))
            recorder.release()
    assert not ledger.take()[0].any()


def test_buffers_are_used_again_and_follow_shapes(ledger, python_pool):
    pool = python_pool
    table = PointTable.of([("p", ()), ("q", ())])
    seen = []
    for shape in ((1, 5), (1, 5), (2, 5), (2, 5)):
        recorder = Recorder(table, ledger, pool, rows=shape[0])
        first, second = observed(recorder, torch.full(shape, 1.0), torch.full(shape, 2.0))
        assert (first.extremes.highs[0], second.extremes.highs[0]) == (1.0, 2.0)
        seen.append([buffer.data_ptr() for buffer in recorder._shelf.buffers])
        recorder.release()
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]


def test_a_smaller_batch_is_never_spread_over_an_older_buffer(ledger, pool):
    table = PointTable.of([("p", ())])
    for rows in (4, 1):
        recorder = Recorder(table, ledger, pool, rows=rows)
        (reading,) = observed(recorder, torch.ones(rows, 5))
        assert reading.numel == rows * 5
        recorder.release()


@pytest.mark.parametrize("shape", [(2, 30), LARGE])
def test_modules_fed_by_one_tensor_share_one_observation(new_recorder, shape):
    value = torch.randn(shape)
    readings = observed(new_recorder(rows=2), value, value, value, value + 1)
    assert [reading.points for reading in readings] == [[0, 1, 2], [3]]


@pytest.mark.parametrize("shape", [(2, 30), LARGE])
def test_a_write_between_two_modules_ends_the_sharing(new_recorder, shape):
    value = torch.randn(shape)
    recorder = new_recorder(rows=2)
    recorder.observe(0, value)
    value.relu_()
    recorder.observe(1, value)
    one, two = recorder.harvest.readings()
    assert min(one.extremes.lows) < 0 <= min(two.extremes.lows)


def totals(recorder, points):
    """What each point counts, however the readings are shared."""
    found = {}
    for reading in recorder.harvest.readings():
        for point in reading.points:
            found[point] = (reading.extremes.highs, reading.extremes.lows, sorted(reading.sample))
    return [found[point] for point in range(points)]


@pytest.mark.parametrize("shape", [(2, 30), LARGE])
def test_inference_tensors_are_read_as_they_were_each_time(new_recorder, shape):
    """They count no writes, so that each of their readers is given what it read."""
    with torch.inference_mode():
        value = torch.randn(shape)
        recorder = new_recorder(4, rows=2)
        recorder.observe(0, value)
        recorder.observe(1, value)
        value.relu_()
        recorder.observe(2, value)
        recorder.observe(3, value)
        one, two, three, four = totals(recorder, 4)
    assert one == two
    assert three == four
    assert min(one[1]) < 0 <= min(three[1])


def test_inference_tensors_with_nan_are_read_each_time(new_recorder):
    with torch.inference_mode():
        value = torch.tensor([[float("nan"), 1.0]])
        recorder = new_recorder()
        observed(recorder, value, value)
    nans = [one.extremes.nan for one in recorder.harvest.readings() for _ in one.points]
    assert nans == [1, 1]


def test_buffers_of_one_shape_come_to_lie_side_by_side(ledger, python_pool):
    """From the third call on they are reduced together, with the same result."""
    table = PointTable.of([(f"p{point}", ()) for point in range(5)])
    shapes = [(2, 30), (2, 30), (2, 7), (2, 30), (2, 7)]
    for call in range(5):
        values = [torch.randn(shape) for shape in shapes]
        values[1][1, 3] = float("nan") if call == 4 else 9.0
        recorder = Recorder(table, ledger, python_pool, rows=2)
        readings = observed(recorder, *values)
        stacks = recorder._shelf.stacks
        assert [positions for _, positions in stacks] == ([(0, 1, 3), (2, 4)] if call > 1 else [])
        for reading, value in zip(readings, values, strict=True):
            finite = torch.nan_to_num(value, -9.0)
            assert reading.extremes.highs == finite.amax(1).tolist()
            assert np.array_equal(np.sort(reading.sample), value.flatten().sort().values, True)
        assert [reading.extremes.nan for reading in readings] == [0, call == 4, 0, 0, 0]
        recorder.release()


def test_calls_that_leave_some_layers_out_are_read_one_by_one(ledger, python_pool):
    table = PointTable.of([(f"p{point}", ()) for point in range(3)])
    for call in range(6):
        recorder = Recorder(table, ledger, python_pool, rows=1)
        value = torch.full((1, 8), float(call))
        observed(recorder, *[value + point for point in range(3 if call < 4 else 2)])
        highs = [reading.extremes.highs[0] for reading in recorder.harvest.readings()]
        assert highs == [float(call + point) for point in range(len(highs))]
        recorder.release()


@pytest.mark.parametrize("shape", [(2, 30), LARGE])
def test_points_with_other_quantizers_do_not_share_clipping(new_recorder, clip, shape):
    value = torch.full(shape, 3.0)
    readings = observed(new_recorder(2, rows=2, clips=[clip, None]), value, value)
    assert [reading.extremes.clip_high for reading in readings] == [value.numel(), 0]


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 100, 200)])
def test_of_a_repeated_row_only_one_is_read(new_recorder, shape):
    (reading,) = observed(new_recorder(rows=1, repeat=3), torch.randn(shape))
    assert reading.numel == torch.Size(shape[1:]).numel()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        torch.zeros(0, 4),
        torch.zeros(2, 3, dtype=torch.long),
        torch.zeros(70_000, dtype=torch.long),
        torch.eye(3).to_sparse(),
        [torch.ones(2)],
    ],
    ids=["none", "text", "empty", "integers", "many integers", "sparse", "list"],
)
def test_other_values_are_passed_over(new_recorder, ledger, value):
    plain = torch.ones(1, 2)
    readings = observed(new_recorder(), plain, value, value, plain)
    assert sorted(point for reading in readings for point in reading.points) == [0, 3]
    assert not ledger.take()[0].any()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.ones(2, 3, dtype=torch.complex64), "tensors of complex numbers"),
        (torch.ones(70_000, dtype=torch.complex64), "tensors of complex numbers"),
        (torch.eye(3).to_sparse(), "sparse tensors"),
        ("strided", "nested tensors"),
        ("jagged", "nested tensors"),
        (torch.zeros(2, 3, dtype=torch.long), ""),
        (torch.zeros(0, 4), ""),
        (None, ""),
    ],
    ids=["complex", "many", "sparse", "nested", "jagged", "integers", "empty", "none"],
)
def test_what_has_no_range_is_told_by_its_kind(new_recorder, ledger, value, kind):
    if isinstance(value, str):
        rows = [torch.ones(2, 4), torch.ones(3, 4)]
        value = torch.nested.nested_tensor(rows, layout=getattr(torch, value))
    recorder = new_recorder()
    observed(recorder, torch.ones(1, 2), value)
    assert recorder.passed == kind
    other = new_recorder()
    other.note_passed([1, {"a": value}], torch.ones(1))
    assert other.passed == kind
    assert not ledger.take()[0].any()


def test_positional_and_keyword_inputs(new_recorder):
    recorder = new_recorder()
    recorder.observe_input(0, (torch.tensor([[1.0]]),), {})
    recorder.observe_input(1, (), {"mask": None, "input": torch.tensor([[2.0]])})
    recorder.observe_input(2, (), {"x": torch.tensor([[3.0]])})
    recorder.observe_input(3, (), {})
    assert [reading.extremes.highs for reading in recorder.harvest.readings()] == [
        [1.0],
        [2.0],
        [3.0],
    ]


def test_a_failing_tap_is_counted_and_not_raised(python_recorder, ledger, monkeypatch):
    recorder = python_recorder()
    monkeypatch.setattr(Shelf, "keep", lambda *_: 1 / 0)
    recorder.observe(0, torch.ones(1, 2))
    assert recorder.failed
    assert ledger.take()[0].sum() == 1
    assert recorder.harvest.readings() == []


def test_a_released_recorder_observes_nothing(new_recorder):
    recorder = new_recorder()
    recorder.release()
    recorder.observe(0, torch.ones(1, 2))
    recorder.observe(1, torch.ones(LARGE))
    assert recorder.harvest.readings() == []


def test_own_time_and_size_are_measured(new_recorder):
    recorder = new_recorder()
    observed(recorder, torch.ones(1, 100))
    assert recorder.own_ns > 0
    assert recorder.size == 400


def test_pages_hold_many_samples_side_by_side():
    shelf = Shelf()
    rooms = [shelf.room(SAMPLE_LIMIT) for _ in range(PAGE_ELEMENTS // SAMPLE_LIMIT + 1)]
    for number, (tensor, _) in enumerate(rooms):
        tensor.fill_(number)
    assert all((array == number).all() for number, (_, array) in enumerate(rooms))
    size = shelf.size
    shelf.clear()
    shelf.room(1)
    assert shelf.size == size == 2 * PAGE_ELEMENTS * 4


def test_the_pool_is_bounded(monkeypatch):
    from calidrift_agent._taps import _memory

    monkeypatch.setattr(_memory, "_KEPT_BYTES", 3 * PAGE_ELEMENTS * 4)
    pool = ShelfPool()
    shelves = [pool.take() for _ in range(8)]
    for shelf in shelves:
        shelf.room(1)
        pool.give(shelf)
    assert len(pool._free) == 3
    assert pool.take() is shelves[2]
