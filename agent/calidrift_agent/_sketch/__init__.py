"""The sketch: exact bucketing on a fixed magnitude grid, and the mergeable histogram over it.

Needs numpy only. Every range estimate, error prediction and drift score of Calidrift is a pure
function of a `MagnitudeSketch`.
"""

from calidrift_agent._sketch._grid import (
    BUCKETS,
    CELLS,
    FIRST_BUCKET,
    HALF,
    HIGHEST_INDEX,
    INFINITY,
    LOWEST_INDEX,
    NOT_A_NUMBER,
    OVERFLOW,
    SCALE,
    UNDERFLOW,
    ZERO,
    add_cells,
    add_cells_rows,
    bucket_bounds,
    cell_of,
    count_rows,
    packed_table,
)
from calidrift_agent._sketch._magnitude import MagnitudeSketch, Side
from calidrift_agent._sketch._quantiles import magnitude_bounds

__all__ = [
    "BUCKETS",
    "CELLS",
    "FIRST_BUCKET",
    "HALF",
    "HIGHEST_INDEX",
    "INFINITY",
    "LOWEST_INDEX",
    "NOT_A_NUMBER",
    "OVERFLOW",
    "SCALE",
    "UNDERFLOW",
    "ZERO",
    "MagnitudeSketch",
    "Side",
    "add_cells",
    "add_cells_rows",
    "bucket_bounds",
    "cell_of",
    "count_rows",
    "magnitude_bounds",
    "packed_table",
]
