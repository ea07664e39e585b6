"""Jobs, the ledger of what triggered them, the switches and the audit: tables of the service."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from calidrift_analyzer.records import (
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
from calidrift_analyzer.store._connection import Connection, StoreLostError
from calidrift_analyzer.store._sql import query

__all__ = ["JobBook", "NewJob", "Step"]

_T = TypeVar("_T")
_MOST: Final = 2**31
"""Rows where no limit is asked for."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is about to be queued."""

    model: str
    kind: JobKind
    trigger: Trigger
    cause: str
    actor: str
    sentence: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that is about to be taken; `document` is what the state needs to begin (anew)."""

    job: int
    state: JobState
    sentence: str
    event: JobEvent = JobEvent.ENTERED
    actor: str = "service"
    document: Mapping[str, Any] | None = None


@final
class JobBook:
    """The tables of jobs; reached as `Store.jobs`.

    Use `changing` for everything that must happen together or not at all.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changing = False

    def changing(self, change: Callable[[], _T], *, done: Callable[[], _T | None]) -> _T:
        """Make one change, exactly once, also where the disk fills up in the middle.

        Inside another change it becomes a part of that one, which is then made as a whole or not.

        DuckDB may die *after* a commit became durable. The change is then looked for before it is
        made again.

        Args:
            change: Makes the change; runs inside one transaction.
            done: Gives what `change` would have given where the change is there already, and
                `None` where it is not; asked only after the database was lost.

        Raises:
            StoreError: The database failed; nothing or everything was stored.
        """
        if self._changing:
            return change()
        self._changing = True
        try:
            try:
                with self._connection.transaction():
                    return change()
            except StoreLostError:
                found = done()
                if found is not None:
                    return found
            with self._connection.transaction():
                return change()
        finally:
            self._changing = False

    def add(self, new: NewJob, *, document: Mapping[str, Any] | None = None) -> int:
        """Queue a job; inside `changing`.

        Returns:
            Its number.
        """
        rows = self._connection.rows(
            query("job_add"),
            {
                "model": new.model,
                "kind": new.kind.value,
                "trigger": new.trigger.value,
                "cause": new.cause,
                "actor": new.actor,
                "created": time.time_ns(),
            },
        )
        job = int(rows[0][0])
        self.step(
            Step(
                job=job,
                state=JobState.QUEUED,
                sentence=new.sentence,
                actor=new.actor,
                document=document,
            )
        )
        return job

    def step(self, step: Step) -> None:
        """Write one step down."""
        self._connection.rows(
            query("job_step_add"),
            {
                "job": step.job,
                "state": step.state.value,
                "event": step.event.value,
                "actor": step.actor,
                "at": time.time_ns(),
                "sentence": step.sentence,
                "document": json.dumps(dict(step.document or {})),
            },
        )

    def find(self, job: int) -> JobRow | None:
        """Give one job as it stands; `None` where there is none of this number."""
        return next(iter(self.page(job=job)), None)

    def open_jobs(self, model: str | None = None) -> tuple[JobRow, ...]:
        """List the jobs that are not finished, the oldest first."""
        return self.page(model, open=True)[::-1]

    def page(
        self,
        model: str | None = None,
        *,
        job: int | None = None,
        open: bool | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> tuple[JobRow, ...]:
        """List jobs, the newest first.

        Args:
            model: Only those of this model.
            job: Only the one of this number.
            open: Only those that are not finished (True), or that are (False).
            before: Only those with a smaller number: where the page before ended.
            limit: At most so many.
        """
        rows = self._connection.rows(
            query("job_list"),
            {
                "model": model,
                "job": job,
                "before": before,
                "open": open,
                "limit": limit or _MOST,
            },
        )
        return tuple(
            JobRow(
                job=row[0],
                model=row[1],
                kind=JobKind(row[2]),
                trigger=Trigger(row[3]),
                cause=row[4],
                actor=row[5],
                created_ns=row[6],
                state=JobState(row[7]),
                updated_ns=row[8],
                sentence=row[9],
                attempts=row[10],
                approved_by=row[11],
                cancel_requested=row[12],
            )
            for row in rows
        )

    def steps(self, job: int) -> tuple[JobStep, ...]:
        """List what happened to a job, the first step first."""
        return tuple(
            JobStep(
                step=row[0],
                job=row[1],
                state=JobState(row[2]),
                event=JobEvent(row[3]),
                actor=row[4],
                at_ns=row[5],
                sentence=row[6],
                document=row[7],
            )
            for row in self._connection.rows(query("job_steps"), {"job": job})
        )

    def document(self, job: int, state: JobState) -> dict[str, Any]:
        """Give the document with which a job last came into a state; empty where it never did."""
        for step in reversed(self.steps(job)):
            if step.state is state and step.event is JobEvent.ENTERED:
                document: dict[str, Any] = json.loads(step.document)
                return document
        return {}

    def begun(self, model: str, since_ns: int, now_ns: int) -> tuple[int, int | None]:
        """Count recalibrations begun since a moment, and tell when the last one ended.

        A job that lies in the future, because the clock was set back, counts as of now, or of the
        first entry of the audit behind it: from when on it was noticed.
        """
        values = {"model": model, "since": since_ns, "now": now_ns}
        row = self._connection.rows(query("job_begun"), values)[0]
        return int(row[0]), None if row[1] is None else int(row[1])

    def outcomes(self) -> Mapping[tuple[str, JobState], int]:
        """Count the finished recalibrations by model and outcome."""
        rows = self._connection.rows(query("job_outcomes"))
        return {(str(model), JobState(state)): int(jobs) for model, state, jobs in rows}

    def trigger(self, key: str) -> TriggerRow | None:
        """Give what is known about an alarm or alert; `None` where it was never seen."""
        rows = self._connection.rows(query("trigger_find"), {"key": key})
        if not rows:
            return None
        key, source, model, status, seen_ns, job, sentence = rows[0]
        return TriggerRow(
            key=key,
            source=Trigger(source),
            model=model,
            status=status,
            seen_ns=seen_ns,
            job=job,
            sentence=sentence,
        )

    def put_trigger(self, row: TriggerRow) -> None:
        """Note what became of an alarm or alert."""
        self._connection.rows(
            query("trigger_put"),
            {
                "key": row.key,
                "source": row.source.value,
                "model": row.model,
                "status": row.status,
                "seen": row.seen_ns,
                "job": row.job,
                "sentence": row.sentence,
            },
        )

    def forget_triggers(self, until_ns: int) -> None:
        """Forget alerts that were resolved and last seen before a moment."""
        self._connection.rows(query("triggers_forget"), {"until": until_ns})

    def note(self, row: AuditRow) -> None:
        """Add to the audit; the number of `row` does not count."""
        self._connection.rows(
            query("audit_add"),
            {
                "at": row.at_ns,
                "actor": row.actor,
                "action": row.action,
                "model": row.model,
                "subject": row.subject,
                "outcome": row.outcome,
                "sentence": row.sentence,
            },
        )

    def audit(
        self, model: str | None = None, *, before: int | None = None, limit: int | None = None
    ) -> tuple[AuditRow, ...]:
        """List the audit, the newest entry first; arguments as for `page`."""
        rows = self._connection.rows(
            query("audit_list"), {"model": model, "before": before, "limit": limit or _MOST}
        )
        names = ("entry", "at_ns", "actor", "action", "model", "subject", "outcome", "sentence")
        return tuple(AuditRow(**dict(zip(names, row, strict=True))) for row in rows)

    def freeze(self, row: FreezeRow) -> None:
        """Turn a switch."""
        self._connection.rows(
            query("freeze_add"),
            {
                "model": row.model,
                "frozen": row.frozen,
                "actor": row.actor,
                "at": row.at_ns,
                "sentence": row.sentence,
            },
        )

    def freezes(self) -> tuple[FreezeRow, ...]:
        """List the switches as they stand."""
        return tuple(
            FreezeRow(model=row[0], frozen=row[1], actor=row[2], at_ns=row[3], sentence=row[4])
            for row in self._connection.rows(query("freezes"))
        )

    def record_task(self, row: TaskRow) -> None:
        """Note a run of a task; counters and the last success are kept by the table."""
        self._connection.rows(
            query("task_put"),
            {
                "task": row.task,
                "started": row.started_ns,
                "ended": row.ended_ns,
                "succeeded": row.succeeded,
                "sentence": row.sentence,
            },
        )

    def tasks(self) -> tuple[TaskRow, ...]:
        """List the tasks of the schedule by name."""
        names = (
            *("task", "started_ns", "ended_ns", "succeeded", "sentence", "last_success_ns"),
            *("runs", "failures"),
        )
        return tuple(
            TaskRow(**dict(zip(names, row, strict=True)))
            for row in self._connection.rows(query("tasks"))
        )
