"""What validation measured, and what the gate says about it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

from calidrift_analyzer.records._candidates import Candidate
from calidrift_analyzer.records._kernels import KernelReport

__all__ = [
    "Accuracy",
    "CandidateScore",
    "Figure",
    "Gate",
    "GateName",
    "HeldOutCoverage",
    "Latency",
    "SegmentAccuracy",
    "Sizes",
    "ValidationReport",
]


class GateName(StrEnum):
    """The closed list of gates."""

    ACCURACY = "accuracy"
    """Task metric on the gate split, against FP32; needs labels."""
    AGREEMENT = "agreement"
    """Same decision as FP32 on the gate split; stands in for accuracy without labels."""
    SQNR = "sqnr"
    """Output SQNR against FP32 on the gate split; only without labels."""
    SIZE = "size"
    KERNELS = "kernels"
    PARITY = "parity"
    COVERAGE = "coverage"


@final
@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its two-sided 95 % bootstrap interval."""

    estimate: float
    low: float
    high: float


@final
@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of promotion.

    Attributes:
        name: Which condition.
        passed: Whether it holds.
        measured: The figure; `None` where it could not be measured, which never passes.
        required: The limit.
        sentence: What was measured, what is required, and what to do where it failed.
    """

    name: GateName
    passed: bool
    measured: float | None
    required: float
    sentence: str


@final
@dataclass(frozen=True, slots=True)
class CandidateScore:
    """How one candidate did on the select split, on its q/dq graph.

    Attributes:
        id: The candidate.
        metric: Task metric; agreement with FP32 without labels; `None` without either.
        sqnr_db: Output SQNR against FP32 in dB; `None` where outputs are all 0 or not finite.
        bulk_sqnr_db: The same over outputs up to the 99th percentile of magnitude.
        seconds: What scoring took.
    """

    id: str
    metric: float | None
    sqnr_db: float | None
    bulk_sqnr_db: float | None
    seconds: float


@final
@dataclass(frozen=True, slots=True)
class SegmentAccuracy:
    """Accuracy of one segment on the report split.

    Attributes:
        name: The segment.
        samples: Samples in it.
        fp32: FP32 accuracy.
        int8: INT8 accuracy.
    """

    name: str
    samples: int
    fp32: float
    int8: float


@final
@dataclass(frozen=True, slots=True)
class Accuracy:
    """Task metric of the compiled INT8 model beside FP32, on the report split.

    Attributes:
        samples: Samples.
        fp32: FP32 metric with its 95 % bootstrap interval.
        int8: INT8 metric with its interval.
        difference: INT8 minus FP32 on the same samples, with its paired interval.
        segments: Every segment, the one that lost most first; empty without segments.
    """

    samples: int
    fp32: Figure
    int8: Figure
    difference: Figure
    segments: tuple[SegmentAccuracy, ...] = ()

    @property
    def worst_segment(self) -> SegmentAccuracy | None:
        """The segment that lost most against FP32."""
        return self.segments[0] if self.segments else None


@final
@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes, INT8 against FP32.

    Attributes:
        int8_bytes: Planned INT8 weights with their scales and zero points.
        fp32_bytes: The same weights in FP32.
        int8_file_bytes: The whole `model.pt2`.
        fp32_file_bytes: The FP32 model exported in the same way.
    """

    int8_bytes: int
    fp32_bytes: int
    int8_file_bytes: int
    fp32_file_bytes: int

    @property
    def ratio(self) -> float:
        """FP32 bytes ÷ INT8 bytes of the planned tensors."""
        return self.fp32_bytes / self.int8_bytes

    @property
    def file_ratio(self) -> float:
        """FP32 file ÷ INT8 file."""
        return self.fp32_file_bytes / self.int8_file_bytes


@final
@dataclass(frozen=True, slots=True)
class HeldOutCoverage:
    """How many held-out requests stay inside every observed bound of the candidate.

    Attributes:
        units: Held-out requests: rows of the gate and report splits, of each group one.
        covered: Those inside every bound.
        ratio: Their share.
        lower: One-sided lower 95 % Clopper-Pearson bound of that share.
        worst_point: Point with the most exceedances; empty where there is none.
        rows: Rows that the units were drawn from; as many as units without groups.
    """

    units: int
    covered: int
    ratio: float
    lower: float
    worst_point: str
    rows: int


@final
@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of both compiled models, measured alternately in one run.

    Attributes:
        rows: Rows per call.
        rounds: Pairs of calls.
        fp32_ms: Median FP32 milliseconds.
        int8_ms: Median INT8 milliseconds.
        ratio: Median of INT8 ÷ FP32 over the pairs, with its 95 % bootstrap interval; below 1 is
            faster than FP32.
    """

    rows: int
    rounds: int
    fp32_ms: float
    int8_ms: float
    ratio: Figure


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """The outcome of one validation.

    Attributes:
        model: Name of the model.
        created: UTC time, ISO 8601.
        candidate: The best candidate on the select split, the only one that was compiled.
        scores: All candidates, best first.
        labelled: Whether the task metric comes from labels. Without, agreement with FP32 and
            output SQNR stand in for it.
        gates: Every gate.
        accuracy: Figures of the report split; `None` without labels.
        agreement: Share of report samples with FP32's decision; `None` for outputs that are not
            class scores.
        sqnr_db: Output SQNR of the compiled model against FP32 on the report split, in dB.
        bulk_sqnr_db: The same over outputs up to the 99th percentile of magnitude.
        parity_db: Compiled model against its q/dq graph on the gate split, as SQNR in dB; `None`
            where they are equal bit for bit.
        sizes: Bytes.
        kernels: INT8 kernels against the plan.
        coverage: Held-out requests against the candidate's observed bounds.
        latency: `None` unless the kernels are proven.
        seconds: What the validation took.
    """

    model: str
    created: str
    candidate: Candidate
    scores: tuple[CandidateScore, ...]
    labelled: bool
    gates: tuple[Gate, ...]
    accuracy: Accuracy | None
    agreement: float | None
    sqnr_db: float | None
    bulk_sqnr_db: float | None
    parity_db: float | None
    sizes: Sizes
    kernels: KernelReport
    coverage: HeldOutCoverage
    latency: Latency | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return bool(self.gates) and all(gate.passed for gate in self.gates)

    @property
    def refusals(self) -> tuple[str, ...]:
        """A sentence for each gate that does not hold."""
        return tuple(gate.sentence for gate in self.gates if not gate.passed)
