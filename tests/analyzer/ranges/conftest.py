"""Data that the range tests share."""

import numpy as np
import pytest

from calidrift_agent import MagnitudeSketch

SIZE = 400_000


def _gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def _outliers(rng, share, factor):
    values = rng.standard_normal(SIZE)
    values[: round(SIZE * share)] *= factor
    return values


_MAKERS = {
    "uniform": lambda rng: rng.uniform(-1, 1, SIZE),
    "gauss": lambda rng: rng.standard_normal(SIZE),
    "relu": lambda rng: np.maximum(rng.standard_normal(SIZE), 0),
    "gelu": lambda rng: _gelu(rng.standard_normal(SIZE)),
    "laplace": lambda rng: rng.laplace(size=SIZE),
    "lognormal": lambda rng: rng.lognormal(0, 0.5, SIZE),
    "t5": lambda rng: rng.standard_t(5, SIZE),
    "t3": lambda rng: rng.standard_t(3, SIZE),
    "negative": lambda rng: -rng.exponential(size=SIZE),
    "outliers": lambda rng: _outliers(rng, 1e-4, 30),
}
_CACHE = {}


@pytest.fixture
def names():
    return tuple(_MAKERS)


@pytest.fixture
def sample():
    """Function from a name to (float32 values, sketch); both are shared, do not change them."""

    def of(name):
        if name not in _CACHE:
            values = _MAKERS[name](np.random.default_rng(11)).astype(np.float32)
            sketch = MagnitudeSketch()
            sketch.update(values)
            _CACHE[name] = values, sketch
        return _CACHE[name]

    return of


@pytest.fixture
def sketch_of():
    def build(values):
        sketch = MagnitudeSketch()
        sketch.update(np.asarray(values, dtype=np.float32))
        return sketch

    return build


@pytest.fixture
def measured_sqnr():
    """Function that quantizes raw values and measures the SQNR in dB."""

    def measure(values, bound):
        values = values.astype(np.float64)
        code = np.clip(np.round(values / bound.scale) + bound.zero_point, bound.qmin, bound.qmax)
        error = values - (code - bound.zero_point) * bound.scale
        return 10 * np.log10((values**2).sum() / (error**2).sum())

    return measure
