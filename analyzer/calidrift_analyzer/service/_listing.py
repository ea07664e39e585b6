"""Reads long lists out of the store, page by page; each function runs on the owner's thread."""

import json
from typing import Any

from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.service._paging import cursor_number, cursor_place, paged
from calidrift_analyzer.service._views import (
    AssessmentView,
    AuditView,
    CaptureView,
    DecisionView,
    Page,
    TaskView,
    moment,
)
from calidrift_analyzer.store import Kept, Store

__all__ = [
    "view_assessments",
    "view_audit",
    "view_captures",
    "view_decision",
    "view_decisions",
    "view_tasks",
]


def view_assessments(
    store: Store, model: str, cursor: str | None, limit: int
) -> Page[AssessmentView]:
    """List the assessments of a model, the newest first."""
    rows = store.views.kept("assessments", model, before=cursor_number(cursor), limit=limit + 1)
    return paged(
        [
            AssessmentView(
                id=row.id,
                model=row.model,
                profile=row.name,
                created=moment(row.created_ns),
                verdict=row.word,
            )
            for row in rows
        ],
        limit,
        [row.id for row in rows],
    )


def view_decisions(
    store: Store, kind: str, model: str, cursor: str | None, limit: int
) -> Page[DecisionView]:
    """List validations or moves of the version pointer, the newest first."""
    rows = store.views.kept(kind, model, before=cursor_number(cursor), limit=limit + 1)
    return paged([_decision(row) for row in rows], limit, [row.id for row in rows])


def view_decision(store: Store, kind: str, model: str, id: int) -> DecisionView:
    """Tell one decision with its document.

    Raises:
        NoDataError: There is none of this number.
    """
    rows = store.views.kept(kind, model, id=id, limit=1)
    if not rows:
        raise NoDataError(f"{model} has no entry {id} among its {kind}")
    row = rows[0]
    return _decision(row, json.loads(row.document))


def view_captures(store: Store, model: str, cursor: str | None, limit: int) -> Page[CaptureView]:
    """List captured requests, the newest first."""
    rows = store.views.captures(model, before=cursor_place(cursor), limit=limit + 1)
    return paged(
        [
            CaptureView(
                name=row.name.rsplit("/", 1)[-1],
                process=row.process,
                profile=row.profile,
                kind=row.kind,
                captured=moment(row.captured_ns),
                segment=row.segment,
                size=row.size,
                here=row.here,
            )
            for row in rows
        ],
        limit,
        [f"{row.captured_ns} {row.name}" for row in rows],
    )


def view_audit(store: Store, model: str | None, cursor: str | None, limit: int) -> Page[AuditView]:
    """List the audit, the newest entry first."""
    rows = store.jobs.audit(model, before=cursor_number(cursor), limit=limit + 1)
    return paged(
        [
            AuditView(
                entry=row.entry,
                at=moment(row.at_ns),
                actor=row.actor,
                action=row.action,
                model=row.model,
                subject=row.subject,
                outcome=row.outcome,
                sentence=row.sentence,
            )
            for row in rows
        ],
        limit,
        [row.entry for row in rows],
    )


def view_tasks(store: Store) -> tuple[TaskView, ...]:
    """Tell what became of the tasks of the schedule."""
    return tuple(
        TaskView(
            task=row.task,
            started=moment(row.started_ns),
            ended=moment(row.ended_ns),
            succeeded=row.succeeded,
            sentence=row.sentence,
            last_success=moment(row.last_success_ns),
            runs=row.runs,
            failures=row.failures,
        )
        for row in store.jobs.tasks()
    )


def _decision(row: Kept, document: dict[str, Any] | None = None) -> DecisionView:
    return DecisionView(
        id=row.id,
        model=row.model,
        name=row.name,
        created=moment(row.created_ns),
        word=row.word,
        document=document,
    )
