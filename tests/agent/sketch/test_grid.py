"""Bucketing is exact: the oracle is a search over exact bounds, at every telling bit pattern."""

from fractions import Fraction

import numpy as np
import pytest

from calidrift_agent._sketch import (
    BUCKETS,
    CELLS,
    HALF,
    HIGHEST_INDEX,
    INFINITY,
    LOWEST_INDEX,
    NOT_A_NUMBER,
    OVERFLOW,
    UNDERFLOW,
    ZERO,
    _grid,
    add_cells,
    add_cells_rows,
    bucket_bounds,
    cell_of,
)
from calidrift_agent.errors import SketchError


def oracle(values):
    """Cells by searching the exact bounds in float64; every float32 is exact there."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        magnitude = np.abs(values.astype(np.float64))
    bounds = np.concatenate(([0.0], bucket_bounds(), [np.finfo(np.float32).max, np.inf]))
    cell = np.searchsorted(bounds, magnitude, side="left")
    cell[np.isnan(values)] = NOT_A_NUMBER
    return cell + HALF * np.signbit(values)


def from_bits(bits):
    return np.ascontiguousarray(bits, dtype=np.uint32).view(np.float32)


def neighbours_of_bounds():
    exact = bucket_bounds().astype(np.float32)
    around = [np.nextafter(exact, np.float32(side)) for side in (0, np.inf)]
    both = np.concatenate([exact, *around])
    return np.concatenate([both, -both])


def mismatches(cells_of):
    """Patterns that a bucketing function misplaces: all upper halves with telling lower halves."""
    top = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.array([0, 1, 2, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF], dtype=np.uint32)
    everywhere = from_bits((top[:, None] | low[None, :]).ravel())
    values = np.concatenate([everywhere, neighbours_of_bounds()])
    return int((cells_of(values) != oracle(values)).sum())


def test_every_upper_half_with_telling_lower_halves_is_placed_exactly():
    assert mismatches(cell_of) == 0


def test_planted_mutant_logarithm_misplaces_values_on_bounds():
    def by_logarithm(values):
        with np.errstate(all="ignore"):
            index = np.ceil(np.log2(np.abs(values)) * np.float32(16)) - 1
        inside = (index >= LOWEST_INDEX) & (index <= HIGHEST_INDEX)
        cell = np.where(inside, index - LOWEST_INDEX + 2, 0).astype(np.int64)
        return np.where(inside, cell + HALF * np.signbit(values), oracle(values))

    assert mismatches(by_logarithm) > 0


def test_planted_mutant_lower_inclusive_grid_is_noticed():
    def lower_inclusive(values):
        with np.errstate(all="ignore"):
            return cell_of(np.nextafter(values, np.copysign(np.float32(np.inf), values)))

    assert mismatches(lower_inclusive) > 0


@pytest.mark.parametrize("seed", range(4))
def test_random_bit_patterns_are_placed_exactly(seed):
    bits = np.random.default_rng(seed).integers(0, 1 << 32, 300_000, dtype=np.uint64)
    values = from_bits(bits)
    np.testing.assert_array_equal(cell_of(values), oracle(values))


def test_patterns_around_every_threshold_are_placed_exactly():
    bits = np.abs(neighbours_of_bounds()).view(np.uint32).astype(np.int64)
    steps = np.arange(-40, 41)
    values = from_bits((bits[:, None] + steps[None, :]).ravel())
    np.testing.assert_array_equal(cell_of(values), oracle(values))


def test_bounds_are_exact_to_the_last_place_and_periodic():
    bounds = bucket_bounds()
    assert bounds.shape == (BUCKETS + 1,)
    np.testing.assert_array_equal(bounds[16:], 2 * bounds[:-16])
    for k, bound in enumerate(bounds.tolist()):
        exact = Fraction(2) ** (k + LOWEST_INDEX)
        assert (
            Fraction(np.nextafter(bound, 0)) ** 16
            < exact
            < Fraction(np.nextafter(bound, 1e9)) ** 16
        )


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.0, ZERO),
        (-0.0, HALF + ZERO),
        (1e-45, UNDERFLOW),
        (2.0**-24, UNDERFLOW),
        (-(2.0**-24), HALF + UNDERFLOW),
        (np.nextafter(np.float32(2.0**-24), np.float32(1)), 2),
        (1.0, 385),
        (np.nextafter(np.float32(1), np.float32(2)), 386),
        (2.0**16, OVERFLOW - 1),
        (np.nextafter(np.float32(2.0**16), np.float32(1e9)), OVERFLOW),
        (np.finfo(np.float32).max, OVERFLOW),
        (np.inf, INFINITY),
        (-np.inf, HALF + INFINITY),
        (np.nan, NOT_A_NUMBER),
    ],
)
def test_named_values(value, cell):
    assert cell_of(np.array([value], dtype=np.float32)).tolist() == [cell]


def test_index_examples_of_the_specification():
    # (x, index at scale 4): upper-inclusive, so that 1 belongs to bucket -1 and 2 to bucket 15.
    for value, index in [(1.0, -1), (2.0, 15), (4.0, 31), (0.5, -17), (1.5, 9)]:
        cell = int(cell_of(np.array([value], dtype=np.float32))[0])
        assert cell - 2 + LOWEST_INDEX == index


def test_shape_is_kept_and_strided_input_is_read_in_order():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(cell_of(values[:, ::2]), oracle(values)[:, ::2])
    assert cell_of(np.zeros((0, 3), dtype=np.float32)).shape == (0, 3)


def test_add_cells_counts_with_weight_and_adds():
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    cells = np.ones(CELLS, dtype=np.int64)
    add_cells(cells, values.reshape(100, 1000), weight=7)
    expected = 1 + 7 * np.bincount(oracle(values), minlength=CELLS)
    np.testing.assert_array_equal(cells, expected)


def test_counts_do_not_stall_where_float32_counts_would():
    cells = np.full(CELLS, 1 << 24, dtype=np.int64)
    add_cells(cells, np.zeros(1, dtype=np.float32))
    assert cells[ZERO] == (1 << 24) + 1
    add_cells(cells, np.zeros(3, dtype=np.float32), weight=1 << 40)
    assert cells[ZERO] == (1 << 24) + 1 + 3 * (1 << 40)


def rows_match(lengths, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    values = (rng.standard_normal(offsets[-1]) * 3).astype(np.float32)
    weights = rng.integers(1, 50, len(lengths))
    together = np.zeros((len(lengths), CELLS), dtype=np.int64)
    one_by_one = together.copy()
    add_cells_rows(together, values, offsets, weights)
    for p in range(len(lengths)):
        add_cells(one_by_one[p], values[offsets[p] : offsets[p + 1]], int(weights[p]))
    return bool(np.array_equal(together, one_by_one)) and int(together.sum()) == int(
        (np.asarray(lengths) * weights).sum()
    )


@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [0],
        [0, 0, 5, 0],
        [4096] * 40,
        [200_000, 3, 0, 70_000],
        [65_536, 65_536],
        [3] * 500,
        [1, 131_072, 1],
    ],
)
def test_rows_equal_point_by_point(lengths):
    assert rows_match(lengths)


def test_rows_equal_point_by_point_for_random_lengths():
    rng = np.random.default_rng(5)
    for seed in range(20):
        assert rows_match(rng.integers(0, 3000, rng.integers(1, 120)), seed)


def test_planted_mutant_wrong_row_edges_are_noticed(monkeypatch):
    real = np.searchsorted
    monkeypatch.setattr(_grid.np, "searchsorted", lambda a, v, side="left": real(a, v, "left"))
    with pytest.raises((AssertionError, ValueError, IndexError)):
        assert rows_match([5, 0, 100_000, 70_000, 9])


def test_work_is_cut_into_bounded_calls(monkeypatch):
    sizes = []
    real = np.bincount

    def recording(values, minlength):
        sizes.append((values.size, minlength))
        return real(values, minlength=minlength)

    monkeypatch.setattr(_grid.np, "bincount", recording)
    assert rows_match([4096] * 200 + [1] * 1000)
    assert max(size for size, _ in sizes) <= 1 << 16
    assert max(bins for _, bins in sizes) <= 64 * CELLS
    # 200 points of 4096 values: a dozen large calls, not one per point.
    sizes.clear()
    cells = np.zeros((200, CELLS), dtype=np.int64)
    values = np.zeros(200 * 4096, dtype=np.float32)
    add_cells_rows(cells, values, np.arange(201) * 4096, np.ones(200, dtype=np.int64))
    assert len(sizes) == 13


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.zeros(3), "float64"),
        (np.zeros(3, dtype=np.float16), "float16"),
        ([1.0, 2.0], "list"),
    ],
)
def test_other_types_are_refused_with_what_to_do(values, named):
    with pytest.raises(SketchError, match=rf"got {named}: convert the values first"):
        cell_of(values)


def test_wrong_arrays_are_refused():
    values = np.zeros(4, dtype=np.float32)
    cells = np.zeros((2, CELLS), dtype=np.int64)
    ones = np.ones(2, dtype=np.int64)
    with pytest.raises(SketchError, match="int64 of shape"):
        add_cells(np.zeros(CELLS, dtype=np.float32), values)
    with pytest.raises(SketchError, match="at least 1, got 0"):
        add_cells(cells[0], values, weight=0)
    with pytest.raises(SketchError, match=r"got 1\.5"):
        add_cells(cells[0], values, weight=1.5)
    for weight in (float("nan"), float("inf"), 1 << 63):
        with pytest.raises(SketchError, match="a whole number"):
            add_cells(cells[0], values, weight=weight)
    with pytest.raises(SketchError, match="3 offsets and 2 weights"):
        add_cells_rows(cells, values, np.array([0, 4]), ones)
    with pytest.raises(SketchError, match="ascend from 0"):
        add_cells_rows(cells, values, np.array([0, 2, 3]), ones)
    with pytest.raises(SketchError, match="ascend from 0"):
        add_cells_rows(cells, values, np.array([0, 5, 4]), ones)
    with pytest.raises(SketchError, match="every weight"):
        add_cells_rows(cells, values, np.array([0, 2, 4]), np.array([1, 0]))
    with pytest.raises(SketchError, match="points"):
        add_cells_rows(cells[0], values, np.array([0, 4]), ones[:1])
