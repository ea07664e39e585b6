"""The benefit of a maximum: clipped energy removed."""

import numpy as np
import pytest

from calidrift_analyzer.ranges import overload
from calidrift_analyzer.select._benefit import benefit_at, benefits


def test_removed_energy_against_raw_values(sketch_of):
    values = np.random.default_rng(0).standard_t(4, 300_000)
    sketch = sketch_of(values)
    maxima = np.array([0.5, 3.0, 6.0, 8.0])
    got = benefit_at(maxima, 3.0, sketch)
    energy = (values**2).sum()
    left = [(np.maximum(np.abs(values) - max(c, 3.0), 0) ** 2).sum() / energy for c in maxima]
    clipped = (np.maximum(np.abs(values) - 3.0, 0) ** 2).sum() / energy
    np.testing.assert_allclose(got, clipped - np.array(left), rtol=0.02, atol=1e-9)


def rises_with_the_maximum(function, sketch):
    got = function(np.geomspace(0.1, 100, 300), 2.0, sketch)
    return bool((np.diff(got) >= -1e-15).all()) and bool((got >= 0).all()) and got[0] == 0


def test_monotone_and_zero_inside(sketch_of):
    for values in (np.random.default_rng(0).standard_t(2, 5000), [0.0], [np.nan], [1.0]):
        assert rises_with_the_maximum(benefit_at, sketch_of(values))


def test_planted_mutants_are_noticed(sketch_of):
    sketch = sketch_of(np.random.default_rng(0).standard_t(2, 5000))
    assert not rises_with_the_maximum(lambda m, c, s: overload(s, np.maximum(m, c)), sketch)
    assert not rises_with_the_maximum(lambda m, c, s: overload(s, c) - overload(s, m), sketch)


def test_captured_maxima_count_where_the_sampled_sketch_missed_them(sketch_of):
    sketch = sketch_of(np.full(1000, 0.5))
    assert float(overload(sketch, 1.0)) == 0.0
    got = benefit_at(np.array([0.9, 2.0, 3.0]), 1.0, sketch)
    # Energy 250; beyond the bound 1 + 4; up to 2 removes 1 + 3, up to 3 all of it.
    np.testing.assert_allclose(got, [0, 4 / 250, 5 / 250])


def test_without_any_finite_value_in_the_sketch(sketch_of):
    got = benefit_at(np.array([0.5, 2.0]), 1.0, sketch_of([]))
    np.testing.assert_allclose(got, [0, 1 / 4])


def test_points_without_a_bound_count_nothing(sketch_of):
    sketches = (sketch_of(np.linspace(0, 5, 100)),) * 2
    maxima = np.array([[4.0, 4.0], [1.0, 5.0]], dtype=np.float32)
    got = benefits(maxima, np.array([2.0, np.nan]), sketches)
    assert got[0, 0] > 0
    assert got[1, 0] == 0
    assert (got[:, 1] == 0).all()
    assert (benefits(maxima, np.array([np.inf, np.inf]), sketches) == 0).all()


def test_an_octave_more_is_worth_the_same_at_every_scale(sketch_of):
    values = np.random.default_rng(1).standard_t(3, 20_000)
    maxima = np.array([4.0, 9.0, 20.0])
    plain = benefit_at(maxima, 3.0, sketch_of(values))
    scaled = benefit_at(maxima * 16, 48.0, sketch_of(values * 16))
    np.testing.assert_allclose(scaled, plain, rtol=1e-12)
    assert plain[0] == pytest.approx(plain[0])
