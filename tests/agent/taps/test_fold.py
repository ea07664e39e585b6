"""The drain against a slow, obvious oracle, and proof that the oracle would notice."""

import math

import numpy as np
import pytest
import torch

from calidrift_agent._profile import (
    CalibrationProfile,
    Fingerprint,
    ObservedBound,
    PointProfile,
    utc_now,
)
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import CallFacts, Folder, PointTable
from calidrift_agent._vocabulary import (
    RATIO_BOUNDS,
    RATIO_COLUMNS,
    CountColumn,
    Instrument,
    RequestColumn,
    ValueColumn,
)


def profile(bounds, aliases=None):
    points = {
        name: PointProfile(
            name=name,
            observed_bound=None if bound is None else ObservedBound(bound, 1, 1, (bound,)),
            aliases=(aliases or {}).get(name, ()),
        )
        for name, bound in bounds.items()
    }
    return CalibrationProfile(points, 1, Instrument.RANGE, Fingerprint(), utc_now())


def table(*bounds, clips=None):
    names = [f"p{index}" for index in range(len(bounds))]
    return PointTable.of(
        [(name, ()) for name in names], profile(dict(zip(names, bounds, strict=True))), clips
    )


def new_buffer(points):
    return WindowBuffer(points, window_seconds=10.0, now_ns=0)


def fold(new_recorder, points, calls, *, unit=0, segment=None, rows=2):
    """Fold calls, each a list of (point, tensor)."""
    buffer, folder = new_buffer(len(points)), Folder(points)
    found = None
    for call in calls:
        recorder = new_recorder(rows=rows, table=points)
        for point, tensor in call:
            recorder.observe(point, tensor)
        found = folder.fold_ranges(recorder, CallFacts(rows, unit, segment), buffer)
        folder.fold_clips(recorder, buffer)
    return buffer, found


def test_small_tensors_are_counted_exactly(new_recorder):
    calls = [[(1, torch.randn(2, 30)), (0, torch.randn(2, 7) * 100)] for _ in range(5)]
    buffer, _ = fold(new_recorder, table(None, None), calls)
    for point in (0, 1):
        values = np.concatenate([dict(call)[point].numpy().ravel() for call in calls])
        oracle = MagnitudeSketch()
        oracle.update(values)
        assert np.array_equal(buffer.cells[point], oracle.cells)
        assert buffer.values[point, ValueColumn.LOWEST] == values.min()
        assert buffer.values[point, ValueColumn.HIGHEST] == values.max()
        assert buffer.counts[point, CountColumn.ELEMENTS] == values.size
        assert buffer.counts[point, CountColumn.ROWS] == 10


def test_large_tensors_keep_exact_extremes_and_weighted_counts(new_recorder):
    value = torch.randn(2, 50, 1000, generator=torch.Generator().manual_seed(0))
    value[1, 3, 4] = 1e4
    buffer, _ = fold(new_recorder, table(None), [[(0, value)]])
    assert buffer.values[0, ValueColumn.HIGHEST] == 1e4
    assert buffer.counts[0, CountColumn.ELEMENTS] == value.numel()
    assert buffer.cells[0].sum() == pytest.approx(value.numel(), rel=0.05)


def test_more_points_than_fit_into_one_chunk(new_recorder):
    count = 150
    points = table(*[None] * count)
    buffer, _ = fold(
        new_recorder, points, [[(p, torch.full((2, 3), float(p + 1))) for p in range(count)]]
    )
    assert (buffer.cells.sum(axis=1) == 6).all()
    assert buffer.values[:, ValueColumn.HIGHEST].tolist() == [p + 1.0 for p in range(count)]


def test_a_module_that_runs_twice_is_one_point(new_recorder):
    call = [
        (0, torch.tensor([[1.0], [5.0]])),
        (1, torch.ones(2, 1)),
        (0, torch.tensor([[-7.0], [2.0]])),
    ]
    buffer, found = fold(new_recorder, table(6.0, 6.0), [call], unit=0)
    assert found.points.tolist() == [0, 1]
    assert found.absmax.tolist() == [[7.0, 5.0], [1.0, 1.0]]
    assert buffer.counts[0, [CountColumn.UNITS, CountColumn.EXCEEDANCES]].tolist() == [1, 1]
    assert buffer.counts[0, CountColumn.ROWS] == 2
    assert buffer.counts[0, CountColumn.ELEMENTS] == 4


@pytest.mark.parametrize(("unit", "covered"), [(0, 1), (1, 0)])
def test_only_the_chosen_row_is_the_unit(new_recorder, unit, covered):
    call = [(0, torch.tensor([[1.0], [3.0]])), (1, torch.tensor([[1.0], [1.0]]))]
    buffer, found = fold(new_recorder, table(2.0, 2.0), [call], unit=unit, segment="night")
    assert buffer.requests[RequestColumn.UNITS] == 1
    assert buffer.requests[RequestColumn.UNITS_COVERED] == covered
    assert buffer.counts[:, CountColumn.UNITS].tolist() == [1, 1]
    assert buffer.counts[:, CountColumn.EXCEEDANCES].tolist() == [1 - covered, 0]
    assert found.exceeding.tolist() == [False, True]
    (segment,) = buffer.open_window(0).segments
    assert (segment.name, segment.units, segment.covered) == ("night", 1, covered)


def test_a_call_that_is_no_unit_still_feeds_sketches(new_recorder):
    buffer, _ = fold(new_recorder, table(2.0), [[(0, torch.ones(2, 3))]], unit=None)
    assert buffer.requests[RequestColumn.UNITS] == 0
    assert buffer.counts[0, CountColumn.UNITS] == 0
    assert buffer.cells[0].sum() == 6


def test_a_value_at_the_bound_is_inside(new_recorder):
    buffer, _ = fold(new_recorder, table(2.0), [[(0, torch.tensor([[2.0]]))]], rows=1)
    assert buffer.counts[0, CountColumn.EXCEEDANCES] == 0
    assert buffer.requests[RequestColumn.UNITS_COVERED] == 1


@pytest.mark.parametrize("ratio", [*RATIO_BOUNDS, 0.0, 0.24, 0.26, 0.95, 1.05, 3.0, 4.1, 1e6])
def test_ratio_buckets_are_upper_inclusive(new_recorder, ratio):
    buffer, _ = fold(new_recorder, table(16.0), [[(0, torch.tensor([[-16.0 * ratio]]))]], rows=1)
    buckets = buffer.counts[0, RATIO_COLUMNS]
    exact = float(np.float32(16.0 * ratio)) / 16.0
    expected = sum(bound < exact for bound in RATIO_BOUNDS)
    assert buckets.sum() == 1
    assert buckets.argmax() == expected
    assert buffer.values[0, ValueColumn.RATIO_SUM] == exact


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_nonfinite_unit_exceeds_and_leaves_sums_finite(new_recorder, bad):
    buffer, _ = fold(new_recorder, table(2.0), [[(0, torch.tensor([[1.0, bad]]))]], rows=1)
    counts, values = buffer.counts[0], buffer.values[0]
    assert counts[CountColumn.EXCEEDANCES] == 1
    assert counts[CountColumn.NAN] + counts[CountColumn.INF] == 1
    assert counts[CountColumn.RATIO_FIRST + len(RATIO_BOUNDS)] == 1
    assert np.isfinite(values[: ValueColumn.PADDED_LOWEST]).all()
    assert values[ValueColumn.HIGHEST] == 1.0


@pytest.mark.parametrize(("value", "exceeds"), [(0.0, 0), (1e-6, 1)])
def test_a_bound_of_zero(new_recorder, value, exceeds):
    buffer, _ = fold(new_recorder, table(0.0), [[(0, torch.tensor([[value]]))]], rows=1)
    assert buffer.counts[0, CountColumn.EXCEEDANCES] == exceeds
    assert buffer.counts[0, CountColumn.RATIO_FIRST] == 1 - exceeds
    assert np.isfinite(buffer.values[:, : ValueColumn.PADDED_LOWEST]).all()


def test_without_any_reference_coverage_stays_zero(new_recorder):
    points = table(None, None)
    buffer, found = fold(new_recorder, points, [[(0, torch.ones(2, 3)), (1, torch.ones(2, 3))]])
    assert not points.has_reference
    assert not buffer.requests.any()
    assert not buffer.counts[:, CountColumn.UNITS].any()
    assert not buffer.counts[:, RATIO_COLUMNS].any()
    assert not found.exceeding.any()


def test_without_any_reference_units_are_measured_all_the_same(new_recorder):
    calls = [[(0, torch.full((2, 3), -1.0 - n)), (1, torch.ones(2, 3))] for n in range(4)]
    buffer, _ = fold(new_recorder, table(None, None), calls)
    assert buffer.counts[:, CountColumn.UNITS_MEASURED].tolist() == [4, 4]
    assert buffer.values[:, ValueColumn.UNIT_HIGHEST].tolist() == [4.0, 1.0]


def test_only_units_make_the_largest_magnitude_of_units(new_recorder):
    value = torch.tensor([[9.0, -20.0], [1.0, -3.0]])
    buffer, _ = fold(new_recorder, table(2.0), [[(0, value)]], unit=1)
    assert buffer.values[0, ValueColumn.UNIT_HIGHEST] == 3.0
    assert buffer.values[0, ValueColumn.LOWEST] == -20.0
    buffer, _ = fold(new_recorder, table(2.0), [[(0, value)]], unit=None)
    assert buffer.counts[0, CountColumn.UNITS_MEASURED] == 0
    assert buffer.values[0, ValueColumn.UNIT_HIGHEST] == -math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bound", [None, 2.0])
def test_a_nonfinite_unit_is_measured_but_not_the_largest(new_recorder, bad, bound):
    calls = [[(0, torch.tensor([[1.0, bad]]))], [(0, torch.tensor([[1.5, 0.0]]))]]
    buffer, _ = fold(new_recorder, table(bound), calls, rows=1)
    assert buffer.counts[0, CountColumn.UNITS_MEASURED] == 2
    assert buffer.counts[0, CountColumn.UNITS_NOT_FINITE] == 1
    assert buffer.values[0, ValueColumn.UNIT_HIGHEST] == 1.5


def test_points_without_a_bound_are_left_out_of_coverage(new_recorder):
    call = [(0, torch.full((2, 3), 9.0)), (1, torch.ones(2, 3))]
    buffer, _ = fold(new_recorder, table(None, 2.0), [call])
    assert buffer.counts[:, CountColumn.UNITS].tolist() == [0, 1]
    assert buffer.requests[RequestColumn.UNITS_COVERED] == 1


def test_shared_points_all_get_the_counts(new_recorder):
    value = torch.full((2, 3), 3.0)
    buffer, _ = fold(new_recorder, table(2.0, 4.0), [[(0, value), (1, value)]])
    assert buffer.counts[:, CountColumn.ELEMENTS].tolist() == [6, 6]
    assert buffer.counts[:, CountColumn.EXCEEDANCES].tolist() == [1, 0]
    assert np.array_equal(buffer.cells[0], buffer.cells[1])


def test_clip_columns(new_recorder, clip):
    points = table(None, None, clips=[clip, None])
    value = torch.tensor([[-3.0, 0.0], [4.5, 1.0]])
    buffer, _ = fold(new_recorder, points, [[(0, value), (1, value.clone())]])
    counts, values = buffer.counts, buffer.values
    assert counts[0, CountColumn.CLIP_ELEMENTS : CountColumn.CLIP_HIGH + 1].tolist() == [4, 1, 1]
    assert values[0, ValueColumn.CLIPPED_ENERGY] == pytest.approx(2.0**2 + 3.0**2)
    assert values[0, ValueColumn.ENERGY] == pytest.approx(9.0 + 4.5**2 + 1.0)
    assert not counts[1, CountColumn.CLIP_ELEMENTS : CountColumn.CLIP_HIGH + 1].any()
    assert values[1, ValueColumn.ENERGY] == 0.0


def test_energy_survives_huge_and_nonfinite_values(new_recorder, clip):
    points = table(None, clips=[clip])
    value = torch.tensor([[1e25, math.nan, math.inf, 2.0]])
    buffer, _ = fold(new_recorder, points, [[(0, value)]], rows=1)
    exact = float(np.float32(1e25)) ** 2
    assert buffer.values[0, ValueColumn.ENERGY] == pytest.approx(exact, rel=1e-6)
    assert np.isfinite(buffer.values[0, ValueColumn.CLIPPED_ENERGY])


def test_energy_of_a_sample_is_an_estimate_of_the_whole(new_recorder, clip):
    value = torch.randn(2, 60_000, generator=torch.Generator().manual_seed(2))
    buffer, _ = fold(new_recorder, table(None, clips=[clip]), [[(0, value)]])
    whole = float(value.double().square().sum())
    assert buffer.values[0, ValueColumn.ENERGY] == pytest.approx(whole, rel=0.1)


def test_a_call_in_which_nothing_fired(new_recorder):
    buffer, found = fold(new_recorder, table(2.0), [[]])
    assert found is None
    assert not buffer.requests.any()


def test_bounds_are_found_by_name_and_by_alias():
    known = profile({"a": 1.0, "b": None, "c": 3.0}, aliases={"c": ("d",)})
    names = [("a", ()), ("b", ()), ("d", ()), ("x", ("c",)), ("y", ())]
    bounds = [meta.observed_bound for meta in PointTable.of(names, known).metas]
    assert bounds == [1.0, None, 3.0, 3.0, None]


def test_clip_bounds_of_the_served_graph_win(clip):
    points = table(None, clips=[clip])
    assert (points.metas[0].clip_lo, points.metas[0].clip_hi) == (-1.0, 1.5)
    assert points.limits[0] == (-1.25, 1.75)
    assert points.has_clips
    assert len(points) == 1
    assert table(None).limits[0] == (-math.inf, math.inf)


@pytest.mark.parametrize("mutant", ["lost weight", "wrong row", "sum instead of max"])
def test_the_oracle_notices_planted_mutants(python_recorder, monkeypatch, mutant):
    from calidrift_agent._taps import _fold

    monkeypatch.setattr(_fold, "NATIVE", None)

    if mutant == "lost weight":
        original = _fold._add_cells

        def light(recorder, buffer):
            before = buffer.cells.copy()
            original(recorder, buffer)
            buffer.cells[:] = before + np.minimum(buffer.cells - before, 1)

        monkeypatch.setattr(_fold, "_add_cells", light)
        with pytest.raises(AssertionError):
            test_large_tensors_keep_exact_extremes_and_weighted_counts(python_recorder)
    elif mutant == "wrong row":
        original = _fold._add_unit
        monkeypatch.setattr(
            _fold, "_add_unit", lambda points, absmax, *rest: original(points, absmax * 0, *rest)
        )
        with pytest.raises(AssertionError):
            test_only_the_chosen_row_is_the_unit(python_recorder, 1, 0)
    else:
        original = _fold._by_point

        def planted(readings):
            points, highs, lows, absmax = original(readings)
            return points, highs + 1, lows, absmax

        monkeypatch.setattr(_fold, "_by_point", planted)
        with pytest.raises(AssertionError):
            test_small_tensors_are_counted_exactly(python_recorder)
