"""What one cycle did."""

from dataclasses import dataclass
from typing import final

from calidrift_analyzer.collect import CollectReport
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import (
    Candidate,
    ModelAssessment,
    PromotedVersion,
    Selection,
    ValidationReport,
)

__all__ = ["CycleOptions", "CycleOutcome"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CycleOptions:
    """How a cycle works.

    Attributes:
        force: Recalibrate although nothing drifted.
        promote: Put an accepted candidate into service; False leaves that to a person.
        estimators: How ranges are estimated, from each source.
    """

    force: bool = False
    promote: bool = True
    estimators: tuple[Estimator, ...] = tuple(Estimator)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CycleOutcome:
    """What one cycle did. A stage that was not reached is `None` or empty.

    Attributes:
        collected: What was new in the state directories.
        assessment: What the traffic does to the served model.
        selection: Captured requests that were added to the calibration set; `None` also where
            nothing was captured: then the candidates come from the production sketch alone.
        candidates: What recalibration wrote.
        report: What validation measured, and what its gates said.
        version: What serves now, where a candidate was promoted.
        sentence: The outcome in words.
    """

    collected: CollectReport
    assessment: ModelAssessment
    selection: Selection | None = None
    candidates: tuple[Candidate, ...] = ()
    report: ValidationReport | None = None
    version: PromotedVersion | None = None
    sentence: str

    @property
    def refused(self) -> bool:
        """Whether a gate said no."""
        return self.report is not None and not self.report.passed
