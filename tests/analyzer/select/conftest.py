"""Pools for the selection tests."""

import numpy as np
import pytest

from calidrift_agent import MagnitudeSketch
from calidrift_analyzer.records import CandidatePool


def _sketch(values):
    sketch = MagnitudeSketch()
    sketch.update(np.asarray(values, dtype=np.float32))
    return sketch


@pytest.fixture
def sketch_of():
    return _sketch


@pytest.fixture
def pool_of():
    """Function from maxima (N, P) and overrides to a pool with bounds of 1."""

    def build(maxima, **overrides):
        maxima = np.asarray(maxima, dtype=np.float32)
        size, points = maxima.shape
        finite = np.where(np.isfinite(maxima), maxima, 0)
        fields = {
            "ids": tuple(f"r{row:04d}" for row in range(size)),
            "points": tuple(f"p{column}" for column in range(points)),
            "maxima": maxima,
            "bounds": np.ones(points),
            "sketches": tuple(
                _sketch(np.concatenate([np.linspace(-1, 1, 200), finite[:, column]]))
                for column in range(points)
            ),
            "segments": (None,) * size,
            "inclusion": np.ones(size),
            "uniform": np.zeros(size, dtype=bool),
        }
        return CandidatePool(**(fields | overrides))

    return build


@pytest.fixture
def permuted():
    """Function that reorders the rows of a pool."""

    def permute(pool, order):
        order = np.asarray(order)
        return CandidatePool(
            ids=tuple(pool.ids[row] for row in order),
            points=pool.points,
            maxima=pool.maxima[order],
            bounds=pool.bounds,
            sketches=pool.sketches,
            segments=tuple(pool.segments[row] for row in order),
            inclusion=pool.inclusion[order],
            uniform=pool.uniform[order],
        )

    return permute
