"""What the steps of a demo found, and the result they come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

from calidrift_analyzer.cycle import CycleOutcome, LearnedReference
from calidrift_analyzer.demo._measure import Score
from calidrift_analyzer.demo._result import (
    DemoOptions,
    DemoResult,
    EstimatorScore,
    SegmentAccuracies,
    SqnrChange,
)
from calidrift_analyzer.demo._workdir import Workdir
from calidrift_analyzer.errors import NoDataError, RefusedError
from calidrift_analyzer.records import ModelAssessment, PromotedVersion, ValidationReport

__all__ = ["Findings", "Relearned", "Repaired", "Scores", "Shift", "result_of"]

_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Accuracy of each version on the report split."""

    fp32: Score
    stale: Score
    recalibrated: Score
    sketch_only: Score


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What the analyzer saw of the stale version.

    Attributes:
        calm: Its judgement at the end of the low-light traffic.
        alarmed: Its first judgement with an alarm.
        coverage: Request coverage of the shifted traffic alone.
        overhead_ratio: The agent's own time ÷ forward time.
    """

    calm: ModelAssessment
    alarmed: ModelAssessment
    coverage: float
    overhead_ratio: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a cycle that promoted a candidate did."""

    outcome: CycleOutcome
    report: ValidationReport
    version: PromotedVersion

    @classmethod
    def of(cls, outcome: CycleOutcome) -> "Repaired":
        """Take the outcome of a cycle.

        Raises:
            RefusedError: Nothing was promoted.
        """
        if outcome.report is None or outcome.version is None:
            raise RefusedError(f"the demo's model was not repaired: {outcome.sentence}")
        return cls(outcome=outcome, report=outcome.report, version=outcome.version)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Relearned:
    """What came after the promotion.

    Attributes:
        burn_in: Judgement when the random units were complete.
        reference: What was learned from them.
        after: Judgement of the traffic after it, against this reference.
    """

    burn_in: ModelAssessment
    reference: LearnedReference
    after: ModelAssessment


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that the steps found, and how long they took."""

    scores: Scores
    shift: Shift
    repaired: Repaired
    kernels_found: int
    relearned: Relearned
    plots: tuple[Path, Path]
    step_seconds: Mapping[str, float]
    wall_seconds: float


def result_of(found: Findings, options: DemoOptions, workdir: Workdir) -> DemoResult:
    """Bring the findings into the result's form.

    Args:
        found: What the steps found.
        options: What the demo was told.
        workdir: Its folder.

    Raises:
        NoDataError: A figure that the result needs was not measured.
    """
    scores, report = found.scores, found.repaired.report
    before = found.repaired.outcome.assessment
    selection, latency = found.repaired.outcome.selection, report.latency
    worst = max(scores.fp32.segments, key=lambda one: _loss(scores, one))
    served, observed = _until_alarm(found.shift)
    point = _required(before.worst_point, "worst point")
    after = found.relearned.after
    return DemoResult(
        seed=options.seed,
        fp32_accuracy=scores.fp32.accuracy,
        stale_int8_accuracy=scores.stale.accuracy,
        recalibrated_int8_accuracy=scores.recalibrated.accuracy,
        sketch_only_int8_accuracy=scores.sketch_only.accuracy,
        worst_segment=worst,
        fp32_worst_segment_accuracy=scores.fp32.segments[worst],
        stale_worst_segment_accuracy=scores.stale.segments[worst],
        recalibrated_worst_segment_accuracy=scores.recalibrated.segments[worst],
        segments={
            name: SegmentAccuracies(
                scores.fp32.segments[name],
                scores.stale.segments[name],
                scores.recalibrated.segments[name],
            )
            for name in scores.fp32.segments
        },
        request_coverage_before=found.shift.coverage,
        request_coverage_after=_required(after.request_coverage, "coverage").estimate,
        reference_units=found.relearned.reference.units,
        alarm_in_burn_in=any(
            level.breach is not None for level in found.relearned.burn_in.service_levels
        ),
        verdict_after=after.verdict,
        alarm_before_shift=found.shift.calm.alarm is not None,
        requests_until_alarm=served,
        observed_until_alarm=observed,
        sampling_ratio=_required(before.sampling_ratio, "sampling ratio"),
        overhead_ratio=found.shift.overhead_ratio,
        selected_samples=len(selection.ids) if selection else 0,
        selected_by=dict(selection.by_segment) if selection else {},
        worst_point=point,
        sqnr_change_db=SqnrChange(
            before.point(point).sqnr_change_db, after.point(point).sqnr_change_db
        ),
        estimators={one.id: EstimatorScore(one.metric, one.sqnr_db) for one in report.scores},
        promoted_candidate=report.candidate.id,
        promoted_version=found.repaired.version.id,
        learned_version=_required(found.relearned.reference.version, "learned version"),
        size_ratio=report.sizes.ratio,
        int8_kernels_planned=report.kernels.planned,
        int8_kernels_found=found.kernels_found,
        latency_ratio_int8_to_fp32=latency.ratio.estimate if latency else None,
        latency_ratio_interval=(latency.ratio.low, latency.ratio.high) if latency else None,
        wall_seconds=found.wall_seconds,
        step_seconds=dict(found.step_seconds),
        workdir=workdir.root,
        config=workdir.config,
        plot_png=found.plots[0],
        plot_svg=found.plots[1],
    )


def _loss(scores: Scores, segment: str) -> float:
    return scores.fp32.segments[segment] - scores.stale.segments[segment]


def _until_alarm(shift: Shift) -> tuple[int, int]:
    """Requests served and observed from the shift to the alarm; 0 where it came before."""
    alarm = _required(shift.alarmed.alarm, "alarm")
    return (
        max(alarm.served - shift.calm.served, 0),
        max(alarm.observed - shift.calm.units, 0),
    )


def _required(value: _T | None, name: str) -> _T:
    if value is None:
        raise NoDataError(f"the demo ended without a {name}; report this with --seed and --debug")
    return value
