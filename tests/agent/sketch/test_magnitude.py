"""Laws of the sketch: merging is replaying, whatever the order and partition."""

import json
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calidrift_agent._sketch import (
    BUCKETS,
    CELLS,
    HALF,
    LOWEST_INDEX,
    OVERFLOW,
    SCALE,
    MagnitudeSketch,
    Side,
    bucket_bounds,
)
from calidrift_agent.errors import SketchError

any_floats = arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


def sketch_of(*parts, weight=1):
    sketch = MagnitudeSketch()
    for part in parts:
        sketch.update(np.asarray(part, dtype=np.float32), weight)
    return sketch


def mixed(seed=0, size=5000):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, size) * np.exp2(rng.integers(-30, 20, size))
    values[rng.integers(0, size, 50)] = 0
    values[rng.integers(0, size, 5)] = np.nan
    values[rng.integers(0, size, 5)] = np.inf
    values[rng.integers(0, size, 5)] = -np.inf
    return values.astype(np.float32)


def merge_is_replay(merge, parts):
    merged = reduce(merge, [sketch_of(part) for part in parts], MagnitudeSketch())
    return merged == sketch_of(np.concatenate(parts))


@given(st.lists(any_floats, min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_merge_is_replay_for_any_order_and_partition(parts, random):
    assert merge_is_replay(add, parts)
    shuffled = list(parts)
    random.shuffle(shuffled)
    assert reduce(add, map(sketch_of, shuffled)) == sketch_of(*parts)


def test_merge_law_on_a_large_mixed_sample():
    values = mixed()
    for cut in ([], [0], [5000], [1, 2, 3], [100, 100, 4999]):
        assert merge_is_replay(add, np.split(values, cut))


@pytest.mark.parametrize("mutant", ["extremes", "negative", "cells"])
def test_planted_mutants_break_the_merge_law(mutant):
    def merge(left, right):
        result = left + right
        if mutant == "extremes" and left.count:
            result.minimum, result.maximum = left.minimum, left.maximum
        elif mutant == "negative":
            result.cells[HALF:] = right.cells[HALF:]
        else:
            result.cells[:] = np.maximum(left.cells, right.cells)
        return result

    assert not merge_is_replay(merge, np.split(mixed(), [2000, 4000]))


def test_merge_in_place_leaves_the_other_alone_and_returns_nothing():
    left, right = sketch_of([1, 2]), sketch_of([-3])
    before = right.copy()
    assert left.merge(right) is None
    assert left == sketch_of([1, 2, -3])
    assert right == before
    assert left + MagnitudeSketch() == left
    with pytest.raises(SketchError, match="use update"):
        left.merge(np.zeros(3))
    with pytest.raises(TypeError):
        left + 1


def test_weight_is_repetition():
    values = mixed(3)
    weighted = sketch_of(values, weight=3)
    assert weighted == sketch_of(values, values, values)


def test_empty():
    empty = sketch_of([], np.zeros((0, 4)))
    assert empty == MagnitudeSketch()
    assert (empty.count, empty.absmax, empty.zero_count) == (0, 0.0, 0)
    assert (empty.minimum, empty.maximum) == (np.inf, -np.inf)
    assert empty.magnitude_cells().sum() == 0
    indices, counts = empty.downscale(0)
    assert indices.size == counts.size == 0


def test_non_finite_only():
    sketch = sketch_of([np.nan, np.inf, -np.inf, -np.nan])
    assert (sketch.count, sketch.nan_count, sketch.inf_count) == (0, 2, 2)
    assert (sketch.minimum, sketch.maximum, sketch.absmax) == (np.inf, -np.inf, 0.0)
    signalling = np.array([0x7F800001, 0xFF800001, 0x3F800000], dtype=np.uint32).view(np.float32)
    with_signalling = MagnitudeSketch()
    with_signalling.update(signalling)
    assert (with_signalling.nan_count, with_signalling.maximum) == (2, 1.0)


def test_extremes_are_exact_beside_non_finite_values():
    sketch = sketch_of([np.nan, -7.25, np.inf, 3.5, 0.0, -0.0])
    assert (sketch.minimum, sketch.maximum, sketch.absmax) == (-7.25, 3.5, 7.25)
    assert (sketch.count, sketch.zero_count) == (4, 2)
    assert sketch_of([2.0, 5.0]).absmax == 5.0
    assert sketch_of([-2.0, -5.0]).absmax == 5.0


def test_negation_swaps_the_halves():
    values = mixed(2)
    sketch, negated = sketch_of(values), sketch_of(-values)
    np.testing.assert_array_equal(negated.cells[:HALF], sketch.cells[HALF:])
    np.testing.assert_array_equal(negated.cells[HALF:], sketch.cells[:HALF])
    assert (negated.minimum, negated.maximum) == (-sketch.maximum, -sketch.minimum)
    np.testing.assert_array_equal(negated.magnitude_cells(), sketch.magnitude_cells())


def direct_histogram(values, scale):
    """Oracle: count at a scale by searching its own exact bounds."""
    step = 1 << (SCALE - scale)
    magnitude = np.abs(values[np.isfinite(values) & (values != 0)].astype(np.float64))
    magnitude = magnitude[(magnitude > 2.0**-24) & (magnitude <= 2.0**16)]
    first = LOWEST_INDEX // step
    bounds = np.exp2((np.arange(0, -(-BUCKETS // step) + 1) + first) * step / 16)
    exact = bucket_bounds()[::step]
    bounds[: exact.size] = exact if LOWEST_INDEX % step == 0 else bounds[: exact.size]
    place = np.searchsorted(bounds, magnitude, side="left") - 1
    indices, counts = np.unique(place + first, return_counts=True)
    return indices.tolist(), counts.tolist()


@pytest.mark.parametrize("scale", [4, 3, 2, 1, 0, -1, -2, -3, -5, -10])
def test_downscale_equals_counting_at_that_scale(scale):
    values = mixed(4)
    indices, counts = sketch_of(values).downscale(scale)
    assert (indices.tolist(), counts.tolist()) == direct_histogram(values, scale)


def test_planted_mutant_truncating_division_is_not_downscaling():
    values = mixed(4)
    indices, _ = sketch_of(values).downscale(4)
    truncated = np.trunc(indices / 4).astype(np.int64)
    assert (truncated != indices >> 2).any()
    folded = np.unique(truncated, return_index=True)[1]
    counts = np.add.reduceat(sketch_of(values).downscale(4)[1], folded)
    assert counts.tolist() != direct_histogram(values, 2)[1]


def test_downscale_by_side_and_composed():
    sketch = sketch_of([-3.0, -0.1, 0.1, 0.1, 8.0])
    positive, counts = sketch.downscale(0, Side.POSITIVE)
    assert (positive.tolist(), counts.tolist()) == ([-4, 2], [2, 1])
    negative, counts = sketch.downscale(0, Side.NEGATIVE)
    assert (negative.tolist(), counts.tolist()) == ([-4, 1], [1, 1])
    both, counts = sketch.downscale(0)
    assert (both.tolist(), counts.tolist()) == ([-4, 1, 2], [3, 1, 1])
    for scale in (5, -11):
        with pytest.raises(SketchError, match=r"-10 \.\.\. 4"):
            sketch.downscale(scale)


def test_specification_examples_after_downscaling():
    examples = [(1, 0, -1), (1, 3, -1), (2, 3, 7), (1.5, 0, 0), (4, 2, 7), (0.5, 1, -3)]
    for value, scale, index in examples:
        assert sketch_of([value]).downscale(scale)[0].tolist() == [index]


@given(any_floats)
@settings(max_examples=100, deadline=None)
def test_mapping_round_trip_is_exact(values):
    sketch = sketch_of(values)
    text = json.dumps(sketch.to_mapping(), allow_nan=False)
    assert MagnitudeSketch.from_mapping(json.loads(text)) == sketch


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (7, "an object with the keys"),
        ({"cells": [], "min": None}, "an object with the keys"),
        ({"cells": {}, "min": None, "max": None}, "a list of"),
        ({"cells": [[CELLS, 1]], "min": None, "max": None}, "pairs of a cell"),
        ({"cells": [[0, 0]], "min": None, "max": None}, "pairs of a cell"),
        ({"cells": [[0, 1.0]], "min": None, "max": None}, "pairs of a cell"),
        ({"cells": [[0, 1 << 63]], "min": None, "max": None}, "pairs of a cell"),
        ({"cells": [[True, 1]], "min": None, "max": None}, "pairs of a cell"),
        ({"cells": [[1, True]], "min": None, "max": None}, "pairs of a cell"),
        ({"cells": [[1, 1 << 62], [2, 1 << 62]], "min": None, "max": None}, r"2\*\*63"),
        ({"cells": [], "min": None, "max": 10**400}, "finite number or null"),
        ({"cells": [[3]], "min": None, "max": None}, "pairs of a cell"),
        ({"cells": [[3, 1], [3, 1]], "min": None, "max": None}, "listed twice"),
        ({"cells": [], "min": "a", "max": None}, "finite number or null"),
        ({"cells": [], "min": float("nan"), "max": None}, "finite number or null"),
    ],
)
def test_damaged_mappings_are_refused(mapping, message):
    with pytest.raises(SketchError, match=message):
        MagnitudeSketch.from_mapping(mapping)


def test_from_cells_copies_and_keeps_wider_extremes():
    source = sketch_of(mixed(5))
    built = MagnitudeSketch.from_cells(source.cells, source.minimum, source.maximum)
    assert built == source
    source.cells[5] += 1
    assert built != source
    wide = MagnitudeSketch.from_cells(sketch_of([1.0]).cells, -4.0, 9.0)
    assert (wide.minimum, wide.maximum) == (-4.0, 9.0)


def test_from_cells_widens_extremes_that_contradict_the_cells():
    cells = sketch_of([-0.3, 0.0, 1.0]).cells
    for low, high in [(np.inf, -np.inf), (-np.inf, np.inf), (0.0, 0.5)]:
        built = MagnitudeSketch.from_cells(cells, low, high)
        assert built.minimum <= float(np.float32(-0.3))
        assert built.maximum == 1.0
    overflow = np.zeros(CELLS, dtype=np.int64)
    overflow[OVERFLOW] = 1
    assert MagnitudeSketch.from_cells(overflow).maximum == float(np.finfo(np.float32).max)
    assert MagnitudeSketch.from_cells(np.zeros(CELLS, dtype=np.int64)) == MagnitudeSketch()


@pytest.mark.parametrize(
    ("cells", "extremes", "message"),
    [
        (np.zeros(CELLS - 1, dtype=np.int64), (), "1290 integers"),
        (np.zeros(CELLS), (), "1290 integers"),
        (np.full(CELLS, -1), (), "must not be negative"),
        (np.full(CELLS, 2**64 - 1, dtype=np.uint64), (), r"2\*\*63"),
        (np.zeros(CELLS, dtype=np.int64), (np.nan, 1.0), "leave NaN out"),
    ],
)
def test_from_cells_refuses_what_is_not_a_sketch(cells, extremes, message):
    with pytest.raises(SketchError, match=message):
        MagnitudeSketch.from_cells(cells, *extremes)


def test_equality_copy_and_face():
    sketch = sketch_of([1.0, -2.0])
    twin = sketch.copy()
    assert twin == sketch
    twin.update(np.ones(1, dtype=np.float32))
    assert twin != sketch
    assert sketch != "sketch"
    assert repr(sketch) == "MagnitudeSketch(count=2, min=-2, max=1)"
    with pytest.raises(TypeError):
        hash(sketch)


def test_other_types_are_refused():
    with pytest.raises(SketchError, match="float64"):
        MagnitudeSketch().update(np.zeros(3))
