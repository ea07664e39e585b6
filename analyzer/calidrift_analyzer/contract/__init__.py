"""The model contract: what user code provides, and the child process that alone imports it."""

from typing import TYPE_CHECKING, Any

from calidrift_analyzer.contract._process import Progress, run_in_child
from calidrift_analyzer.contract._protocols import (
    Calibration,
    Evaluate,
    Evaluation,
    ExampleInputs,
    Factory,
    Split,
)

if TYPE_CHECKING:
    from calidrift_analyzer.contract._user_code import UserCode

__all__ = [
    "Calibration",
    "Evaluate",
    "Evaluation",
    "ExampleInputs",
    "Factory",
    "Progress",
    "Split",
    "UserCode",
    "run_in_child",
]


def __getattr__(name: str) -> Any:
    # It needs torch, which a parent that only spawns children need not import.
    if name != "UserCode":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from calidrift_analyzer.contract import _user_code

    return _user_code.UserCode
