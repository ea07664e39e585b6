"""Quantiles of a sketch against exact quantiles of the same data."""

import numpy as np
import pytest

from calidrift_agent._sketch import MagnitudeSketch, _quantiles, magnitude_bounds
from calidrift_agent.errors import SketchError

SIZE = 1_000_000


def outliers(rng):
    values = rng.standard_normal(SIZE)
    values[: SIZE // 1000] *= 20
    return values


DISTRIBUTIONS = {
    "uniform": lambda rng: rng.uniform(-0.97, 0.97, SIZE),
    "gauss": lambda rng: rng.standard_normal(SIZE),
    "relu": lambda rng: np.maximum(rng.standard_normal(SIZE), 0),
    "gelu-like": lambda rng: (lambda x: x / (1 + np.exp(-1.702 * x)))(rng.standard_normal(SIZE)),
    "laplace": lambda rng: rng.laplace(size=SIZE),
    "lognormal(.5)": lambda rng: rng.lognormal(0, 0.5, SIZE),
    "lognormal(1)": lambda rng: rng.lognormal(0, 1, SIZE),
    "t5": lambda rng: rng.standard_t(5, SIZE),
    "t3": lambda rng: rng.standard_t(3, SIZE),
    "exponential": lambda rng: rng.exponential(size=SIZE),
    "outliers": outliers,
}


def sample(name):
    return DISTRIBUTIONS[name](np.random.default_rng(7)).astype(np.float32)


def sketch_of(values):
    sketch = MagnitudeSketch()
    sketch.update(values)
    return sketch


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_error_against_exact_quantiles(name):
    values = sample(name)
    sketch = sketch_of(values)
    magnitude = np.abs(values.astype(np.float64))
    for q, allowed in [(0.9, 0.005), (0.99, 0.005), (0.999, 0.01), (0.9999, 0.01)]:
        exact = np.quantile(magnitude, q)
        assert abs(sketch.magnitude_quantile(q) / exact - 1) <= allowed, (q, exact)
        upper = np.quantile(values, q)
        assert abs(sketch.quantile(q) / upper - 1) <= allowed, (q, upper)


def test_planted_mutant_bucket_ends_and_geometric_middle_miss_the_bound(monkeypatch):
    for fraction in (0.0, 0.5, 1.0):
        monkeypatch.setattr(
            _quantiles, "_inside", lambda low, high, _, f=fraction: low ** (1 - f) * high**f
        )
        with pytest.raises(AssertionError):
            for name in ("uniform", "gauss", "laplace"):
                test_error_against_exact_quantiles(name)


def test_planted_mutant_without_the_exact_extreme_misses_the_bound(monkeypatch):
    real = _quantiles.magnitude_intervals
    monkeypatch.setattr(
        _quantiles, "magnitude_intervals", lambda cells, low, _: real(cells, low, np.inf)
    )
    with pytest.raises(AssertionError):
        test_error_against_exact_quantiles("uniform")


def test_signed_quantiles_ascend_and_mirror():
    values = sample("gauss")
    sketch, mirrored = sketch_of(values), sketch_of(-values)
    grid = np.linspace(0, 1, 201)
    quantiles = [sketch.quantile(q) for q in grid]
    assert quantiles == sorted(quantiles)
    assert quantiles[0] == float(values.min())
    assert quantiles[-1] == float(values.max())
    for q in (0.001, 0.25, 0.9):
        assert mirrored.quantile(1 - q) == pytest.approx(-sketch.quantile(q), rel=1e-9)


def test_a_shift_by_octaves_scales_quantiles_exactly():
    values = sample("laplace")
    sketch, scaled = sketch_of(values), sketch_of(values * np.float32(8))
    for q in (0.01, 0.5, 0.99, 0.9999):
        assert scaled.quantile(q) == pytest.approx(8 * sketch.quantile(q), rel=1e-12)


def test_small_and_odd_data():
    one = sketch_of(np.array([0.7], dtype=np.float32))
    assert [one.quantile(q) for q in (0, 0.3, 1)] == [float(np.float32(0.7))] * 3
    assert one.magnitude_quantile(0.5) == float(np.float32(0.7))
    constant = sketch_of(np.full(1000, -3.3, dtype=np.float32))
    assert constant.quantile(0.5) == float(np.float32(-3.3))
    assert constant.magnitude_quantile(0.99) == float(np.float32(3.3))
    zeros = sketch_of(np.zeros(9, dtype=np.float32))
    assert zeros.quantile(0.5) == zeros.magnitude_quantile(0.5) == zeros.magnitude_quantile(1) == 0
    tiny = sketch_of(np.full(3, 1e-9, dtype=np.float32))
    assert 0 < tiny.magnitude_quantile(0.5) <= float(np.float32(1e-9))
    below = sketch_of(np.array([1e-12, 2e-12, 1e-9, -1e-9], dtype=np.float32))
    assert 0 < below.quantile(0.6) < below.quantile(0.9) < float(np.float32(1e-9))
    huge = sketch_of(np.array([1e6, 1e30], dtype=np.float32))
    assert huge.quantile(1) == float(np.float32(1e30))
    assert 2.0**16 < huge.quantile(0.01) <= float(np.float32(1e30))
    two_sided = sketch_of(np.array([-1, 0, 0, 0, 1], dtype=np.float32))
    assert two_sided.quantile(0.5) == 0.0


def test_non_finite_values_do_not_enter_quantiles():
    values = sample("gauss")[:10_000]
    dirty = np.concatenate([values, np.full(5000, np.nan), np.full(5000, np.inf)])
    assert sketch_of(dirty.astype(np.float32)).quantile(0.9) == sketch_of(values).quantile(0.9)


def test_questions_without_an_answer_are_refused():
    empty = MagnitudeSketch()
    for ask in (empty.quantile, empty.magnitude_quantile):
        with pytest.raises(SketchError, match="empty sketch has no quantiles"):
            ask(0.5)
        for q in (-0.1, 1.1, float("nan")):
            with pytest.raises(SketchError, match="between 0 and 1"):
                ask(q)


def test_magnitude_bounds_are_contiguous_copies():
    lower, upper = magnitude_bounds()
    assert lower.shape == upper.shape == (643,)
    np.testing.assert_array_equal(lower[1:], upper[:-1])
    lower[:] = -1
    assert magnitude_bounds()[0][0] == 0
