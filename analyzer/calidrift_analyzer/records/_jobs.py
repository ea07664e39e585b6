"""Recalibration as the store keeps it: jobs, their steps, what triggered them, who did what."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

__all__ = [
    "AuditRow",
    "FreezeRow",
    "JobEvent",
    "JobKind",
    "JobRow",
    "JobState",
    "JobStep",
    "TaskRow",
    "Trigger",
    "TriggerRow",
]


class JobState(StrEnum):
    """Where a job stands; only the store moves it on, one step at a time."""

    QUEUED = "queued"
    SELECTING = "selecting"
    RECALIBRATING = "recalibrating"
    VALIDATING = "validating"
    AWAITING_APPROVAL = "awaiting_approval"
    PROMOTED = "promoted"
    """A new version serves."""
    REFUSED = "refused"
    """A gate said no; what serves is as before."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    CONFIRMED = "confirmed"
    """A re-validation found what serves as good as it was."""
    CANARY = "canary"
    """The version serves on canaries and is compared with its peers."""

    @property
    def finished(self) -> bool:
        """Whether nothing will ever happen to the job again."""
        return self in _FINISHED


_FINISHED: Final = frozenset(
    {
        JobState.PROMOTED,
        JobState.REFUSED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.CONFIRMED,
    }
)


class JobKind(StrEnum):
    """What a job is for."""

    RECALIBRATION = "recalibration"
    REVALIDATION = "revalidation"
    """Measures what serves against FP32 again; changes nothing."""


class Trigger(StrEnum):
    """What asked for a job."""

    ALARM = "alarm"
    """An assessment of the analyzer itself."""
    ALERTMANAGER = "alertmanager"
    GRAFANA = "grafana"
    COMMAND = "command"
    API = "api"
    SCHEDULE = "schedule"


class JobEvent(StrEnum):
    """What one step of a job is."""

    ENTERED = "entered"
    """The job came into a state."""
    RESUMED = "resumed"
    """The state begins anew after the service was killed in it."""
    APPROVED = "approved"
    CANCEL_REQUESTED = "cancel_requested"
    LOOKED = "looked"
    """A canary was compared with its peers; the document has the figures."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as it stands.

    Attributes:
        job: Its number, from 1.
        model: Name of the model.
        kind: What it is for.
        trigger: What asked for it.
        cause: The alarm, alert or remark behind it, in words.
        actor: Who asked: a token's name, `local`, or `service`.
        created_ns: When, UTC nanoseconds.
        state: Where it stands.
        updated_ns: When it came there or anything happened to it, UTC nanoseconds.
        sentence: The last step in words.
        attempts: How often the state was begun.
        approved_by: Who approved its candidate; `None` while nobody has.
        cancel_requested: Whether somebody wants it to end.
    """

    job: int
    model: str
    kind: JobKind
    trigger: Trigger
    cause: str
    actor: str
    created_ns: int
    state: JobState
    updated_ns: int
    sentence: str
    attempts: int
    approved_by: str | None
    cancel_requested: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JobStep:
    """One thing that happened to a job; `document` is what the state needs to be begun anew."""

    step: int
    job: int
    state: JobState
    event: JobEvent
    actor: str
    at_ns: int
    sentence: str
    document: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRow:
    """One alarm or alert, by what makes it the same one when it comes again.

    Attributes:
        key: What makes it the same one.
        source: Where it came from.
        model: The model that it names.
        status: `firing` or `resolved`.
        seen_ns: When it was last seen, UTC nanoseconds.
        job: The job that it led to; `None` where it led to none.
        sentence: What became of it, in words.
    """

    key: str
    source: Trigger
    model: str
    status: str
    seen_ns: int
    job: int | None
    sentence: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One change, or one refusal to change something.

    Attributes:
        entry: Its number, from 1.
        at_ns: When, UTC nanoseconds.
        actor: Who.
        action: What was asked for.
        model: The model concerned; empty for all of them.
        subject: The job, version or alert concerned.
        outcome: `done` or `refused`.
        sentence: In words, with the reason of a refusal.
    """

    entry: int
    at_ns: int
    actor: str
    action: str
    model: str
    subject: str
    outcome: str
    sentence: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeRow:
    """Whether a model may be changed by anybody; `model` is empty for all models."""

    model: str
    frozen: bool
    actor: str
    at_ns: int
    sentence: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """What became of a task of the schedule.

    Attributes:
        task: Its name.
        started_ns: Start of the last run, UTC nanoseconds.
        ended_ns: Its end.
        succeeded: Whether it did what it should.
        sentence: Its outcome in words.
        last_success_ns: End of the last run that succeeded; `None` where none has.
        runs: Runs ever.
        failures: Those of them that failed.
    """

    task: str
    started_ns: int
    ended_ns: int
    succeeded: bool
    sentence: str
    last_success_ns: int | None
    runs: int
    failures: int
