"""The ground floor that sibling stages exchange: frozen dataclasses, and their JSON documents."""

from calidrift_analyzer.records._annotations import (
    Marker,
    MarkerKind,
    Mute,
    MuteState,
)
from calidrift_analyzer.records._archive import (
    AlarmRow,
    AssessmentRow,
    CaptureEntry,
    ValidationRow,
    VersionRow,
)
from calidrift_analyzer.records._assessment import (
    ModelAssessment,
    PointAssessment,
    Verdict,
)
from calidrift_analyzer.records._attention import (
    NEAR_SECONDS,
    alarm_in_force,
    annotated,
    needs_action,
)
from calidrift_analyzer.records._canary import (
    CanaryComparison,
    CanaryLook,
    CanaryMeasure,
    CanaryTrial,
    CanaryWindows,
)
from calidrift_analyzer.records._candidates import (
    Candidate,
    Production,
    Source,
)
from calidrift_analyzer.records._deployments import (
    DeployAction,
    DeploymentRow,
    DeployState,
)
from calidrift_analyzer.records._described import (
    ReturnLevel,
    Season,
    Seasons,
)
from calidrift_analyzer.records._documents import (
    read_record,
    record_document,
)
from calidrift_analyzer.records._evidence import (
    Alarm,
    Breach,
    HarmBreach,
    HarmLoss,
    Interval,
    MeasuredHarm,
    SegmentCoverage,
    ServiceLevel,
)
from calidrift_analyzer.records._jobs import (
    AuditRow,
    FreezeRow,
    JobEvent,
    JobKind,
    JobRow,
    JobState,
    JobStep,
    TaskRow,
    Trigger,
    TriggerRow,
)
from calidrift_analyzer.records._kernels import (
    KernelReport,
    LayerKernels,
    LayerKind,
)
from calidrift_analyzer.records._references import (
    BurnIn,
    ObservedUnits,
    PointUnits,
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
    ComparedHistory,
    ModelHistory,
    ModelTotals,
    ObservedModel,
    PointTotals,
    SegmentHistory,
    SegmentTotals,
)

__all__ = [
    "NEAR_SECONDS",
    "Accuracy",
    "Alarm",
    "AlarmRow",
    "AssessmentRow",
    "AuditRow",
    "Breach",
    "BurnIn",
    "CanaryComparison",
    "CanaryLook",
    "CanaryMeasure",
    "CanaryTrial",
    "CanaryWindows",
    "Candidate",
    "CandidatePool",
    "CandidateScore",
    "CaptureEntry",
    "ComparedHistory",
    "DeployAction",
    "DeployState",
    "DeploymentRow",
    "Figure",
    "FreezeRow",
    "Gate",
    "GateName",
    "HarmBreach",
    "HarmLoss",
    "HeldOutCoverage",
    "Interval",
    "JobEvent",
    "JobKind",
    "JobRow",
    "JobState",
    "JobStep",
    "KernelReport",
    "Latency",
    "LayerKernels",
    "LayerKind",
    "Marker",
    "MarkerKind",
    "MeasuredHarm",
    "ModelAssessment",
    "ModelHistory",
    "ModelTotals",
    "Mute",
    "MuteState",
    "ObservedModel",
    "ObservedUnits",
    "PickedBy",
    "PointAssessment",
    "PointTotals",
    "PointUnits",
    "Production",
    "PromotedVersion",
    "ReturnLevel",
    "Season",
    "Seasons",
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
    "TaskRow",
    "Trigger",
    "TriggerRow",
    "ValidationReport",
    "ValidationRow",
    "Verdict",
    "VersionRow",
    "alarm_in_force",
    "annotated",
    "needs_action",
    "read_record",
    "record_document",
]
