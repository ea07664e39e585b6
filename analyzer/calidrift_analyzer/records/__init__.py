"""The ground floor that sibling stages exchange: frozen dataclasses, and their JSON documents."""

from calidrift_analyzer.records._archive import (
    AlarmRow,
    AssessmentRow,
    CaptureEntry,
    ValidationRow,
    VersionRow,
)
from calidrift_analyzer.records._assessment import (
    Alarm,
    Breach,
    Interval,
    ModelAssessment,
    PointAssessment,
    SegmentCoverage,
    ServiceLevel,
    Verdict,
)
from calidrift_analyzer.records._candidates import (
    Candidate,
    Production,
    Source,
)
from calidrift_analyzer.records._documents import (
    read_record,
    record_document,
)
from calidrift_analyzer.records._kernels import (
    KernelReport,
    LayerKernels,
    LayerKind,
)
from calidrift_analyzer.records._selection import (
    CandidatePool,
    PickedBy,
    Selection,
    Suspicion,
    SuspicionReason,
)
from calidrift_analyzer.records._validation import (
    Accuracy,
    CandidateScore,
    Figure,
    Gate,
    GateName,
    HeldOutCoverage,
    Latency,
    SegmentAccuracy,
    Sizes,
    ValidationReport,
)
from calidrift_analyzer.records._versions import (
    PromotedVersion,
)
from calidrift_analyzer.records._windows import (
    ModelHistory,
    ModelTotals,
    ObservedModel,
    PointTotals,
    SegmentHistory,
    SegmentTotals,
)

__all__ = [
    "Accuracy",
    "Alarm",
    "AlarmRow",
    "AssessmentRow",
    "Breach",
    "Candidate",
    "CandidatePool",
    "CandidateScore",
    "CaptureEntry",
    "Figure",
    "Gate",
    "GateName",
    "HeldOutCoverage",
    "Interval",
    "KernelReport",
    "Latency",
    "LayerKernels",
    "LayerKind",
    "ModelAssessment",
    "ModelHistory",
    "ModelTotals",
    "ObservedModel",
    "PickedBy",
    "PointAssessment",
    "PointTotals",
    "Production",
    "PromotedVersion",
    "SegmentAccuracy",
    "SegmentCoverage",
    "SegmentHistory",
    "SegmentTotals",
    "Selection",
    "ServiceLevel",
    "Sizes",
    "Source",
    "Suspicion",
    "SuspicionReason",
    "ValidationReport",
    "ValidationRow",
    "Verdict",
    "VersionRow",
    "read_record",
    "record_document",
]
