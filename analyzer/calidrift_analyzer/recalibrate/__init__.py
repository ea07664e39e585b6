"""New ranges: candidates from production sketches, or from the calibration set and samples.

The work runs in a child process. What user code needs of the contract is found here as well.
"""

from calidrift_analyzer.contract import (
    Calibration,
    Evaluate,
    Evaluation,
    ExampleInputs,
    Factory,
    Split,
)
from calidrift_analyzer.recalibrate._recalibrate import recalibrate

__all__ = [
    "Calibration",
    "Evaluate",
    "Evaluation",
    "ExampleInputs",
    "Factory",
    "Split",
    "recalibrate",
]
