"""The parent's part of validation."""

from collections.abc import Sequence
from typing import Final

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.contract import Progress, run_in_child
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import (
    Candidate,
    ValidationReport,
    read_record,
    record_document,
)

__all__ = ["validate"]

_JOB: Final = "calidrift_analyzer.validate._job:run"


def validate(
    contract: ModelContract,
    candidates: Sequence[Candidate],
    *,
    freezing: bool = True,
    progress: Progress | None = None,
) -> ValidationReport:
    """Measure candidates against FP32 and judge the best one. Nothing that serves is touched.

    Three disjoint splits, so that no accuracy is judged on the data that chose it: all candidates
    are scored on `select` as q/dq graphs; the best one alone is compiled and passes or fails on
    `gate`; what is published is measured on `report`. Held-out requests for the coverage gate are
    the rows of both `gate` and `report`, of which neither chose the candidate.

    Latency is reported only where every planned INT8 kernel is in the generated code: a model that
    fell back to float can be faster than FP32, too.

    Args:
        contract: The model contract with its limits.
        candidates: What recalibration wrote.
        freezing: False only to prove that the gate notices a model that runs in float.
        progress: Told of every step.

    Returns:
        The report; `passed` says whether the candidate may be promoted.

    Raises:
        ConfigurationError: There is no candidate.
        ToolchainError: There is no C++ compiler; found out before anything is measured.
        ContractError: User code or a candidate's file is missing or misbehaves.
        ChildError: The child died.

    Cost: 5 s of imports, evaluation of each candidate as a q/dq graph (about the time of FP32
    eager), 5 to 20 s of compiling, 10 evaluations of the winner and FP32.
    """
    if not candidates:
        raise ConfigurationError("there is no candidate to validate; recalibrate first")
    document = run_in_child(
        _JOB,
        {
            "contract": record_document(contract),
            "candidates": [record_document(candidate) for candidate in candidates],
            "freezing": freezing,
        },
        progress=progress,
    )
    return read_record(ValidationReport, document, source="the child's answer")
