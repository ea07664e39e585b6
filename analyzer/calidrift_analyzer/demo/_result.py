"""What a demo run is told, and what it found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from calidrift_analyzer.demo._training import EPOCHS
from calidrift_analyzer.demo._workdir import REFERENCE_UNITS
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import Verdict

__all__ = ["DemoOptions", "DemoResult", "EstimatorScore", "SegmentAccuracies", "SqnrChange"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """How a demo runs.

    Attributes:
        workdir: Folder for its files; new, empty, or of an earlier demo.
        seed: Decides splits, weights, noise, traffic and sampling.
        epochs: Passes over the training pictures.
        calm_requests: Low-light requests that are served first.
        shifted_requests: Requests of all four conditions that follow.
        repaired_requests: The same again for the promoted version, while it learns its reference.
        watched_requests: The same again, watched against that reference.
        reference_units: Random units that the reference is made of.
        sample_rate: Share of the requests that is observed.
    """

    workdir: Path
    seed: int = 0
    epochs: int = EPOCHS
    calm_requests: int = 2_000
    shifted_requests: int = 12_000
    repaired_requests: int = 4_000
    watched_requests: int = 2_000
    reference_units: int = REFERENCE_UNITS
    sample_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigurationError(f"the seed is {self.seed}, but must be a whole number from 0")


@final
@dataclass(frozen=True, slots=True)
class EstimatorScore:
    """One candidate on the select split.

    Attributes:
        accuracy: Share of pictures classified rightly.
        sqnr_db: Output SQNR against FP32 in dB.
    """

    accuracy: float | None
    sqnr_db: float | None


@final
@dataclass(frozen=True, slots=True)
class SqnrChange:
    """Predicted SQNR of production minus that of the reference at the same ranges, in dB.

    Attributes:
        before: Of the stale version.
        after: Of the promoted version at the same point.
    """

    before: float | None
    after: float | None


@final
@dataclass(frozen=True, slots=True)
class SegmentAccuracies:
    """One condition on the report split.

    Attributes:
        fp32: FP32 accuracy.
        stale_int8: Accuracy of the version that was calibrated on low light.
        recalibrated_int8: Accuracy of the promoted version.
    """

    fp32: float
    stale_int8: float
    recalibrated_int8: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Everything a demo run measured; nothing in it comes from anywhere else.

    Accuracies are shares of the report split (170 pictures under each of four conditions), INT8
    ones on compiled INT8 kernels.

    Attributes:
        seed: As given.
        fp32_accuracy: FP32.
        stale_int8_accuracy: INT8, calibrated on low light only.
        recalibrated_int8_accuracy: INT8, the promoted version.
        sketch_only_int8_accuracy: INT8, the best candidate from production sketches alone.
        worst_segment: Condition in which the stale version lost most against FP32.
        fp32_worst_segment_accuracy: FP32 in that condition.
        stale_worst_segment_accuracy: The stale version in that condition.
        recalibrated_worst_segment_accuracy: The promoted version in that condition.
        segments: All conditions.
        request_coverage_before: Share of observed shifted requests inside every observed bound of
            the stale version's profile.
        request_coverage_after: The same for the promoted version, of random units after those that
            its reference was learned from.
        reference_units: Random units that this reference was learned from, in whole windows.
        alarm_in_burn_in: Whether the tolerance alarm was raised while they were observed.
        verdict_after: What the analyzer says in the end.
        alarm_before_shift: Whether low-light traffic raised an alarm.
        requests_until_alarm: Requests served from the shift to the end of the window that alarmed.
        observed_until_alarm: Requests observed in that time.
        sampling_ratio: Observed ÷ served requests of the stale version.
        overhead_ratio: The agent's own time ÷ forward time, both of the stale version.
        selected_samples: Captured requests added to the calibration set.
        selected_by: The same by condition.
        worst_point: Point that suffered most under the stale version.
        sqnr_change_db: Its change of predicted SQNR, before and after.
        estimators: Every candidate (`<source>-<estimator>`) on the select split.
        promoted_candidate: Candidate that was promoted.
        promoted_version: Version that it became.
        learned_version: The same model with the learned reference; it serves now.
        size_ratio: FP32 bytes ÷ INT8 bytes of the planned tensors with scales and zero points.
        int8_kernels_planned: Convolution and linear calls planned in INT8.
        int8_kernels_found: Those found in the code that serves.
        latency_ratio_int8_to_fp32: Median of paired ratios, both compiled; below 1 is faster.
        latency_ratio_interval: Its 95 % bootstrap interval.
        wall_seconds: The whole run.
        step_seconds: Each step.
        workdir: Folder with every file of the run.
        config: Its `calidrift.toml`.
        plot_png: Layer-wise activation maxima, one line per condition.
        plot_svg: The same as SVG.
    """

    seed: int
    fp32_accuracy: float
    stale_int8_accuracy: float
    recalibrated_int8_accuracy: float
    sketch_only_int8_accuracy: float
    worst_segment: str
    fp32_worst_segment_accuracy: float
    stale_worst_segment_accuracy: float
    recalibrated_worst_segment_accuracy: float
    segments: Mapping[str, SegmentAccuracies]
    request_coverage_before: float
    request_coverage_after: float
    reference_units: int
    alarm_in_burn_in: bool
    verdict_after: Verdict
    alarm_before_shift: bool
    requests_until_alarm: int
    observed_until_alarm: int
    sampling_ratio: float
    overhead_ratio: float
    selected_samples: int
    selected_by: Mapping[str, int]
    worst_point: str
    sqnr_change_db: SqnrChange
    estimators: Mapping[str, EstimatorScore]
    promoted_candidate: str
    promoted_version: str
    learned_version: str
    size_ratio: float
    int8_kernels_planned: int
    int8_kernels_found: int
    latency_ratio_int8_to_fp32: float | None
    latency_ratio_interval: tuple[float, float] | None
    wall_seconds: float
    step_seconds: Mapping[str, float]
    workdir: Path
    config: Path
    plot_png: Path
    plot_svg: Path
