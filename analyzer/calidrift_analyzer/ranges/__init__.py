"""Ranges from sketches: predicted quantization error, and the estimators built on it.

Ground floor, numpy only. Everything is a pure function of a `MagnitudeSketch`.
"""

from calidrift_analyzer.ranges._distances import Distances, distances, tail_shift
from calidrift_analyzer.ranges._divergence import kl_range
from calidrift_analyzer.ranges._error import cumulative_error, error_sums
from calidrift_analyzer.ranges._estimators import (
    Estimator,
    absmax_range,
    estimate_range,
    percentile_range,
)
from calidrift_analyzer.ranges._grids import SMALLEST_SCALE, UINT8, Codes, Range, grid_of
from calidrift_analyzer.ranges._mass import Mass, SignedMass, magnitude_mass, signed_mass
from calidrift_analyzer.ranges._mse import mse_range
from calidrift_analyzer.ranges._prediction import (
    Prediction,
    excess_energy,
    over_range_octaves,
    overload,
    predict,
)

__all__ = [
    "SMALLEST_SCALE",
    "UINT8",
    "Codes",
    "Distances",
    "Estimator",
    "Mass",
    "Prediction",
    "Range",
    "SignedMass",
    "absmax_range",
    "cumulative_error",
    "distances",
    "error_sums",
    "estimate_range",
    "excess_energy",
    "grid_of",
    "kl_range",
    "magnitude_mass",
    "mse_range",
    "over_range_octaves",
    "overload",
    "percentile_range",
    "predict",
    "signed_mass",
    "tail_shift",
]
