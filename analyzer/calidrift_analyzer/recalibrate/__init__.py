"""New ranges: candidates from production sketches, or from the calibration set and samples.

The work runs in a child process. The names that need torch are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

from calidrift_analyzer.recalibrate._recalibrate import recalibrate

if TYPE_CHECKING:
    from calidrift_analyzer.contract import (
        Calibration,
        Evaluate,
        Evaluation,
        ExampleInputs,
        Factory,
        Split,
    )

__all__ = [
    "Calibration",
    "Evaluate",
    "Evaluation",
    "ExampleInputs",
    "Factory",
    "Split",
    "recalibrate",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from calidrift_analyzer import contract

    return getattr(contract, name)
