from __future__ import annotations

import numpy as np
import pytest

from calidrift_agent._capture._choice import ExtremesAndRest, UniformReservoir


def fill_reservoir(capacity: int, rows: int, rng, choose=UniformReservoir.choose) -> list[str]:
    reservoir = UniformReservoir(capacity, rng)
    kept: dict[str, bool] = {}
    for row in range(rows):
        place = choose(reservoir)
        if place is not None:
            kept[str(row)] = True
            replaced = reservoir.put(place, str(row))
            if replaced is not None:
                del kept[replaced]
    assert reservoir.seen == rows
    assert len(kept) == len(reservoir) == min(capacity, rows)
    return list(kept)


def uniformity(choose) -> float:
    """Chi-square of how often each of 40 rows is in a reservoir of 8, over 2000 streams."""
    rng = np.random.default_rng(11)
    hits = np.zeros(40)
    for _ in range(2000):
        for key in fill_reservoir(8, 40, rng, choose):
            hits[int(key)] += 1
    expected = 2000 * 8 / 40
    return float(((hits - expected) ** 2 / expected).sum())


# 39 degrees of freedom, shrunk because a stream holds 8 rows without repetition: 99.9 % point 72.
BOUND = 72.0


def test_the_reservoir_is_uniform():
    assert uniformity(UniformReservoir.choose) < BOUND


def test_a_reservoir_that_favours_late_rows_is_found_out():
    """Planted mutant: shows that the law above can fail."""

    def favour_late(reservoir):
        reservoir.seen += 1
        if len(reservoir) < reservoir.capacity:
            return len(reservoir)
        return int(reservoir._rng.integers(reservoir.capacity))

    assert uniformity(favour_late) > 10 * BOUND


def test_a_reservoir_of_nothing_keeps_nothing():
    reservoir = UniformReservoir(0, np.random.default_rng(0))
    assert [reservoir.choose() for _ in range(3)] == [None, None, None]
    assert reservoir.seen == 3


def test_a_frozen_reservoir_stays_at_its_size():
    reservoir = UniformReservoir(10, np.random.default_rng(0))
    for key in "abc":
        reservoir.put(reservoir.choose(), key)
    assert reservoir.choose() == 3
    reservoir.freeze()
    assert reservoir.capacity == 3
    places = {reservoir.choose() for _ in range(200)}
    assert places == {None, 0, 1, 2}
    assert reservoir.at(0) == "a"
    assert reservoir.at(3) is None


def run_extremes(maxima: np.ndarray, room: int, per_point: int) -> set[str]:
    store = ExtremesAndRest(maxima.shape[1], per_point, np.random.default_rng(3))
    kept: set[str] = set()
    for row, values in enumerate(maxima):
        store.admit(str(row), values.astype(np.float32))
        kept.add(str(row))
        while len(store) > room:
            kept.remove(store.evict())
    assert len(store) == len(kept)
    return kept


@pytest.mark.parametrize("per_point", [1, 3])
def test_the_largest_maxima_of_every_point_survive(per_point):
    rng = np.random.default_rng(5)
    maxima = rng.lognormal(size=(3000, 10)).astype(np.float32)
    kept = run_extremes(maxima, 60, per_point)
    for point in range(10):
        top = np.argsort(maxima[:, point])[-per_point:]
        assert {str(row) for row in top} <= kept


def test_the_rest_is_a_random_choice():
    rng = np.random.default_rng(6)
    maxima = rng.lognormal(size=(4000, 2)).astype(np.float32)
    kept = np.array([int(key) for key in run_extremes(maxima, 200, 2)])
    assert len(kept) == 200
    # Uniform on 0..3999: mean 2000, standard error 1155 / sqrt(200) = 82.
    assert abs(kept.mean() - 2000) < 4 * 82


def test_when_everything_is_extreme_the_least_extreme_leaves():
    # Row 0 is the extreme of two points, rows 1 and 2 of one point each.
    maxima = np.array([[5, 5, 5, 5], [6, 1, 1, 1], [1, 1, 9, 1]], np.float32)
    kept = run_extremes(maxima, 2, 1)
    assert len(kept) == 2
    assert "0" in kept


def test_not_a_number_is_nobodys_extreme():
    store = ExtremesAndRest(1, 1, np.random.default_rng(0))
    store.admit("good", np.array([1.0], np.float32))
    store.admit("nan", np.array([np.nan], np.float32))
    assert store.evict() == "nan"


def test_removing_gives_the_place_free():
    store = ExtremesAndRest(2, 1, np.random.default_rng(0))
    store.admit("a", np.array([9.0, 9.0], np.float32))
    store.admit("b", np.array([1.0, 1.0], np.float32))
    store.remove("a")
    store.remove("unknown")
    store.admit("c", np.array([2.0, 0.5], np.float32))
    assert len(store) == 2
    assert store.evict() == "b"
    assert store.evict() == "c"
    with pytest.raises(ValueError, match="empty"):
        store.evict()
