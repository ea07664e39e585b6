"""What an offline assessment is asked for, and what it says."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import final

from calidrift_analyzer.offline._estimates import EstimatorOutlook, PointOutlook
from calidrift_analyzer.records import ModelAssessment, SegmentCoverage, Verdict

__all__ = ["OfflineOptions", "OfflineReport", "OutsideUnit", "SegmentBy"]


class SegmentBy(StrEnum):
    """Where the segment of a recorded input comes from."""

    CAPTURE = "capture"
    """The segment that was recorded in a capture; other files have none."""
    FOLDER = "folder"
    """The folder that the file lies in, below the one that was given."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineOptions:
    """How recorded inputs are assessed.

    Attributes:
        profile: The profile to compare with; where left out that of the version in service, or
            else what `calidrift calibrate` saved last.
        before_quantization: Measure the calibration set first and compare with that; nothing has
            to be quantized yet.
        segment_by: Where segments come from.
    """

    profile: Path | None = None
    before_quantization: bool = False
    segment_by: SegmentBy = SegmentBy.CAPTURE


@final
@dataclass(frozen=True, slots=True)
class OutsideUnit:
    """One row that left the observed bound of a point.

    Attributes:
        source: The file, below the folder that was given.
        row: Row inside the file, from 0.
        segment: Its segment; `None` without one.
        point: Where it went furthest outside.
        ratio: Its absolute maximum there ÷ the observed bound; `None` where it is not finite.
    """

    source: str
    row: int
    segment: str | None
    point: str
    ratio: float | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineReport:
    """What recorded inputs do to a model. Nothing of it was stored.

    Attributes:
        assessment: The same judgement as for production; each row is one unit.
        files: Files that were read.
        selected: Rows of captures that were kept *because* they left a range: figures over them
            are not figures of the traffic.
        outside: Rows that left a bound, the furthest first, at most 100.
        profile_from: Where the profile comes from, in words.
        ran: What was run, in words.
        estimators: With `before_quantization`: what each way of choosing INT8 ranges from the
            calibration set would do to these inputs.
        points: The same, point by point, the worst first.
    """

    assessment: ModelAssessment
    files: int
    selected: int
    outside: tuple[OutsideUnit, ...]
    profile_from: str
    ran: str
    estimators: tuple[EstimatorOutlook, ...] = ()
    points: tuple[PointOutlook, ...] = ()

    @property
    def worst_segment(self) -> SegmentCoverage | None:
        """The least covered segment; `None` without segments."""
        return self.assessment.segments[0] if self.assessment.segments else None

    @property
    def not_finite(self) -> int:
        """Points at which the inputs gave NaN or Inf."""
        points = self.assessment.points
        return sum(bool(one.nan_elements or one.infinite_elements) for one in points)

    @property
    def suffices(self) -> bool | None:
        """Whether the calibration set suffices for these inputs, as far as they can tell.

        Not, where the traffic drifted with harm, where every estimator would lose at some point, or
        where there is NaN or Inf, which no range is made for and no prediction is about; `None`
        where that cannot be said: nothing was compared, or the calibration set is too small.
        """
        verdict = self.assessment.verdict
        if verdict is Verdict.DRIFTED_HARMFUL or self.not_finite:
            return False
        if self.estimators and all(one.losing for one in self.estimators):
            return False
        calm = (Verdict.NOT_DRIFTED, Verdict.DRIFTED_HARMLESS)
        return True if verdict in calm else None
