"""What the service tells, as frozen dataclasses: the API and the page show the same ones.

Moments are UTC. `None` always means "cannot be said", never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar, final

from calidrift_agent._vocabulary import CaptureKind
from calidrift_analyzer.config import Mode
from calidrift_analyzer.records import (
    DeployAction,
    DeployState,
    JobEvent,
    JobKind,
    JobState,
    Trigger,
    Verdict,
)
from calidrift_analyzer.service._canary_view import CanaryView

__all__ = [
    "AssessmentView",
    "AuditView",
    "CaptureView",
    "DecisionView",
    "DeploymentView",
    "FreezeView",
    "JobDetail",
    "JobStepView",
    "JobView",
    "Measure",
    "ModelOverview",
    "OrderView",
    "Page",
    "PointRow",
    "ProgressView",
    "Series",
    "SeriesPoint",
    "TaskView",
    "moment",
]

_T = TypeVar("_T")


def moment(ns: int | None) -> datetime | None:
    """Give a moment for people and JSON; `None` for none, and for 0.

    >>> moment(1_800_000_000_000_000_000).isoformat()
    '2027-01-15T08:00:00+00:00'
    """
    if not ns:
        return None
    try:
        return datetime.fromtimestamp(ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return None


@final
@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """One page of a list.

    Attributes:
        items: What is on it, the newest first.
        next: Give it as `cursor` for the next page; `None` on the last one.
    """

    items: tuple[_T, ...]
    next: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeView:
    """A switch that forbids all changes of a model (of every one where `model` is empty)."""

    model: str
    frozen: bool
    actor: str
    at: datetime | None
    note: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressView:
    """How far a running job is; `total` is 0 where that is not known."""

    what: str
    done: int
    total: int
    since: datetime | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job as it stands."""

    job: int
    model: str
    kind: JobKind
    trigger: Trigger
    cause: str
    actor: str
    created: datetime | None
    state: JobState
    updated: datetime | None
    sentence: str
    attempts: int
    approved_by: str | None
    cancel_requested: bool
    finished: bool
    progress: ProgressView | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JobStepView:
    """One thing that happened to a job."""

    state: JobState
    event: JobEvent
    actor: str
    at: datetime | None
    sentence: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """A move of the version pointer, and what became of telling the deployment system."""

    version: str
    previous: str | None
    action: DeployAction
    key: str
    state: DeployState
    attempts: int
    created: datetime | None
    updated: datetime | None
    sentence: str
    output: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail:
    """A job with everything that happened to it.

    Attributes:
        job: The job.
        steps: Its steps, the first one first.
        selection: What was selected; `None` before, and where nothing was captured.
        report: The validation report; `None` before.
        deployment: What became of the hook; `None` before the promotion, and without a hook.
        canary: What its canaries showed; `None` before, and without canaries.
    """

    job: JobView
    steps: tuple[JobStepView, ...]
    selection: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    deployment: DeploymentView | None = None
    canary: CanaryView | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOverview:
    """One model in one sentence.

    Attributes:
        model: Its name.
        declared: Whether the configuration knows it.
        mode: What happens when it drifts.
        frozen: The switch that forbids all changes; `None` where it may change.
        verdict: What its traffic does to it; `None` before the first assessment.
        sentence: The verdict in words.
        next_step: What to do about it.
        profile: Digest of the profile in use.
        assessed: When that was found out.
        alarm: When the alarm in force was raised; `None` without one, and while it is muted.
        muted: Why nobody is called for it; `None` where nothing is muted.
        request_coverage: Share of units inside all observed bounds.
        worst_point: The worst point.
        worst_sqnr_change_db: Its predicted SQNR against calibration, dB.
        points: How many points there are.
        units: Units that were compared with a bound.
        last_window: End of the newest window.
        version: Version that the registry names; `None` before the first promotion.
        job: The job at work on it.
    """

    model: str
    declared: bool
    mode: Mode
    frozen: FreezeView | None
    verdict: Verdict | None
    sentence: str
    next_step: str
    profile: str = ""
    assessed: datetime | None = None
    alarm: datetime | None = None
    muted: str | None = None
    request_coverage: float | None = None
    worst_point: str | None = None
    worst_sqnr_change_db: float | None = None
    points: int = 0
    units: int = 0
    last_window: datetime | None = None
    version: str | None = None
    job: JobView | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """One point of a model; the list is in the order of the assessment, worst first."""

    point: str
    verdict: Verdict
    sentence: str
    next_step: str
    units: int
    exceedance: float | None
    coverage: float | None
    observed_bound: float | None
    sqnr_db: float | None
    sqnr_change_db: float | None
    clipped_energy: float | None
    log10_evidence: float | None
    alarm: datetime | None
    muted: str | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AssessmentView:
    """One assessment that was kept."""

    id: int
    model: str
    profile: str
    created: datetime | None
    verdict: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionView:
    """One selection, one decision of the gate, or one move of the version pointer.

    Attributes:
        id: Its number.
        model: Name of the model.
        name: The job of a selection, the candidate, or the version.
        created: When.
        word: `selected`; `accepted` or `refused`; `promoted` or `rolled_back`.
        document: The selection, the report, or the manifest; `None` in lists.
    """

    id: int
    model: str
    name: str
    created: datetime | None
    word: str
    document: Mapping[str, Any] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureView:
    """One captured request; its tensors are not told."""

    name: str
    process: str
    profile: str
    kind: CaptureKind
    captured: datetime | None
    segment: str | None
    size: int
    here: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    """One change, or one refusal to change something."""

    entry: int
    at: datetime | None
    actor: str
    action: str
    model: str
    subject: str
    outcome: str
    sentence: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """What became of a task of the schedule."""

    task: str
    started: datetime | None
    ended: datetime | None
    succeeded: bool
    sentence: str
    last_success: datetime | None
    runs: int
    failures: int


class Measure(StrEnum):
    """What a series shows of each point in each slice of time."""

    COVERAGE = "coverage"
    EXCEEDANCE = "exceedance"
    CLIPPED_ENERGY = "clipped_energy"
    SQNR_CHANGE = "sqnr_change"
    """Predicted SQNR at the frozen range minus that of the calibration set, dB."""


@final
@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """One point over time; `values` has one entry per slice, `None` where nothing was recorded."""

    point: str
    values: tuple[float | None, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points by slices of time.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile that the traffic ran under.
        measure: What is shown.
        step_seconds: Length of a slice.
        starts: Start of each slice, ascending, without gaps.
        points: In the order of the newest assessment, then by name.
    """

    model: str
    profile: str
    measure: Measure
    step_seconds: float
    starts: tuple[datetime, ...]
    points: tuple[SeriesPoint, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OrderView:
    """What became of an order for a job, or of one alert."""

    model: str
    job: int | None
    new: bool
    refused: bool
    sentence: str
