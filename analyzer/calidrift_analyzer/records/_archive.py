"""Rows of the store that are not windows: captured requests, alarms, and what stages decided."""

from dataclasses import dataclass
from typing import final

from calidrift_agent._vocabulary import CaptureKind

__all__ = ["AlarmRow", "AssessmentRow", "CaptureEntry", "ValidationRow", "VersionRow"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureEntry:
    """One capture file that a collect run has found and read; its tensors stay where they are.

    Attributes:
        path: Absolute path of the file.
        process: The process that wrote it (the name of its folder).
        model: Name of the model.
        profile: Digest of the profile that was in force; empty without one.
        kind: Which capture store it belongs to.
        captured_ns: When the request ran, UTC nanoseconds.
        segment: Segment of the request; `None` without one.
        size: Bytes of the file.
    """

    path: str
    process: str
    model: str
    profile: str
    kind: CaptureKind
    captured_ns: int
    segment: str | None
    size: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRow:
    """The first alarm of one point under one profile; later ones never replace it.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile.
        point: Name of the point.
        end_ns: End of the window in which the threshold was crossed, UTC nanoseconds.
        units: Units observed at the point up to then.
        observed: Units observed by the model up to then.
        served: Requests served up to then.
        log10_evidence: Largest log10 e-value when the alarm was recorded.
        log10_threshold: The threshold it crossed.
    """

    model: str
    profile: str
    point: str
    end_ns: int
    units: int
    observed: int
    served: int
    log10_evidence: float
    log10_threshold: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AssessmentRow:
    """One assessment as it was recorded; `document` is the JSON that `status --json` prints."""

    model: str
    profile: str
    created_ns: int
    verdict: str
    document: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRow:
    """One decision of the gate about one candidate; `document` is its report as JSON."""

    model: str
    candidate: str
    created_ns: int
    accepted: bool
    document: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """One move of the version pointer.

    Attributes:
        model: Name of the model.
        version: Version that serves from now on.
        action: `promoted`, `rolled_back`, or `learned` (the same model with a learned reference).
        created_ns: When, UTC nanoseconds.
        profile: Digest of the profile that belongs to the version.
        document: The manifest as JSON.
    """

    model: str
    version: str
    action: str
    created_ns: int
    profile: str
    document: str
