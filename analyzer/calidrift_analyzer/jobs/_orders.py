"""Asking for a job: what is allowed when, and a sentence for every refusal."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, final

from calidrift_analyzer.config import Mode, ServiceConfig
from calidrift_analyzer.records import (
    AuditRow,
    FreezeRow,
    JobKind,
    JobState,
    Trigger,
    TriggerRow,
)
from calidrift_analyzer.store import NewJob, Step, Store

__all__ = ["Answer", "Order", "audit_row", "frozen_by", "order_job", "resolve_trigger"]

_DAY_NS: Final = 86_400 * 10**9
_ASKED_BY_PEOPLE: Final = frozenset({Trigger.COMMAND, Trigger.API})
_FIRING: Final = "firing"
_RESOLVED: Final = "resolved"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Somebody, or something, asks for a job.

    Attributes:
        model: Name of a configured model.
        trigger: What asks.
        cause: The alarm, alert or remark behind it, in words.
        actor: Who asks.
        kind: What for.
        key: What makes an alarm or alert the same one when it comes again; empty where each order
            is one of its own.
    """

    model: str
    trigger: Trigger
    cause: str
    actor: str
    kind: JobKind = JobKind.RECALIBRATION
    key: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of an order.

    Attributes:
        job: The job; `None` where there is none.
        new: Whether this order made it.
        refused: Whether it was refused, as opposed to being known already.
        sentence: In words, with the reason of a refusal.
    """

    job: int | None
    new: bool
    refused: bool
    sentence: str


def order_job(store: Store, order: Order, rules: ServiceConfig) -> Answer:
    """Queue a job, or say why not; exactly once for each key, whatever is repeated.

    A refused alarm or alert is looked at anew when it comes again: the cool-down ends some time.

    Args:
        store: The store.
        order: What is asked for.
        rules: Mode, cool-down and daily cap.

    Raises:
        StoreError: The database failed; nothing was changed, or everything, and repeating the same
            order finds it.
    """
    begun_ns = time.time_ns()
    book = store.jobs
    known = book.trigger(order.key) if order.key else None
    if known is not None and known.job is not None:
        sentence = f"this alert led to job {known.job} already"
        return Answer(job=known.job, new=False, refused=False, sentence=sentence)
    if known is not None and known.status == _RESOLVED:
        sentence = "this alert was resolved already; nothing is recalibrated for it"
        return Answer(job=None, new=False, refused=False, sentence=sentence)
    reason = _refusal(store, order, rules)
    if reason is not None:
        # Told once, however often it comes; and once more where the clock was set back since.
        if known is None or known.sentence != reason or known.seen_ns > begun_ns:
            book.changing(lambda: _refuse(store, order, reason), done=lambda: None)
        return Answer(job=None, new=False, refused=True, sentence=reason)
    job = book.changing(lambda: _queue(store, order), done=lambda: _queued(store, order, begun_ns))
    return Answer(job=job, new=True, refused=False, sentence=f"job {job} is queued")


def resolve_trigger(store: Store, order: Order) -> Answer:
    """Note that an alert is over: its job is cancelled where it has not begun.

    A resolution that arrives before the alert itself makes the alert pass without a job.
    """
    book = store.jobs
    known = book.trigger(order.key)
    job = None if known is None or known.job is None else book.find(known.job)
    if known is not None and known.status == _RESOLVED:
        return Answer(job=known.job, new=False, refused=False, sentence="resolved already")
    if job is not None and job.state is JobState.QUEUED:
        sentence = f"the alert was resolved before job {job.job} began; it is cancelled"
    elif job is not None and not job.state.finished:
        sentence = f"the alert was resolved; job {job.job} goes on, it is {_spoken(job.state)}"
    else:
        sentence = "the alert was resolved"
    row = _trigger_row(order, None if job is None else job.job, sentence, _RESOLVED)

    def change() -> None:
        book.put_trigger(row)
        if job is not None and job.state is JobState.QUEUED:
            book.step(
                Step(
                    job=job.job,
                    state=JobState.CANCELLED,
                    sentence=sentence,
                    actor=order.actor,
                )
            )
            book.note(audit_row(order.actor, "cancel", order.model, f"job {job.job}", sentence))

    book.changing(change, done=lambda: None)
    return Answer(job=row.job, new=False, refused=False, sentence=sentence)


def frozen_by(store: Store, model: str) -> FreezeRow | None:
    """Give the switch that freezes a model; `None` where it may be changed."""
    rows = {row.model: row for row in store.jobs.freezes() if row.frozen}
    return rows.get("") or rows.get(model)


def audit_row(
    actor: str, action: str, model: str, subject: str, sentence: str, *, refused: bool = False
) -> AuditRow:
    """Give an entry of the audit for what happens now."""
    return AuditRow(
        entry=0,
        at_ns=time.time_ns(),
        actor=actor,
        action=action,
        model=model,
        subject=subject,
        outcome="refused" if refused else "done",
        sentence=sentence,
    )


def _refusal(store: Store, order: Order, rules: ServiceConfig) -> str | None:
    """Say why there will be no job now; `None` where nothing speaks against it."""
    book = store.jobs
    if rules.mode is Mode.OFF and order.kind is JobKind.RECALIBRATION:
        return "recalibration is off (mode = 'off'); set mode to 'propose' or 'auto' in [service]"
    frozen = frozen_by(store, order.model)
    if frozen is not None:
        what = f"model {order.model}" if frozen.model else "every model"
        why = f": {frozen.sentence}" if frozen.sentence else ""
        return f"{what} was frozen by {frozen.actor}{why}; thaw it first"
    at_work = book.open_jobs(order.model)
    if at_work:
        one = at_work[0]
        return (
            f"job {one.job} of {order.model} is {_spoken(one.state)}; one job at a time works on "
            "a model: let it finish, or cancel it"
        )
    if order.kind is not JobKind.RECALIBRATION:
        return None
    now_ns = time.time_ns()
    begun, ended_ns = book.begun(order.model, now_ns - _DAY_NS, now_ns)
    if begun >= rules.daily_cap:
        return (
            f"{order.model} was recalibrated {begun} times within 24 hours, and daily_cap is "
            f"{rules.daily_cap}; look at why it did not help before raising the cap"
        )
    cool_ns = int(rules.cool_down_seconds * 1e9)
    # A clock that was set back may leave an end far ahead; it is no reason to wait for years.
    if order.trigger in _ASKED_BY_PEOPLE or ended_ns is None or abs(now_ns - ended_ns) >= cool_ns:
        return None
    until = datetime.fromtimestamp((ended_ns + cool_ns) / 1e9, UTC)
    return (
        f"the last recalibration of {order.model} ended less than cool_down_seconds "
        f"({rules.cool_down_seconds:g}) ago; the next one is possible from "
        f"{until:%Y-%m-%d %H:%M:%S} UTC on, or by command at once"
    )


def _refuse(store: Store, order: Order, reason: str) -> None:
    if order.key:
        store.jobs.put_trigger(_trigger_row(order, None, reason, _FIRING))
    store.jobs.note(
        audit_row(order.actor, order.kind, order.model, order.cause, reason, refused=True)
    )


def _queue(store: Store, order: Order) -> int:
    book = store.jobs
    sentence = f"queued by {order.trigger}: {order.cause}" if order.cause else "queued"
    job = book.add(
        NewJob(
            model=order.model,
            kind=order.kind,
            trigger=order.trigger,
            cause=order.cause,
            actor=order.actor,
            sentence=sentence,
        )
    )
    if order.key:
        book.put_trigger(_trigger_row(order, job, f"led to job {job}", _FIRING))
    book.note(audit_row(order.actor, order.kind, order.model, f"job {job}", sentence))
    return job


def _queued(store: Store, order: Order, since_ns: int) -> int | None:
    """Find what a lost commit may have stored."""
    if order.key:
        known = store.jobs.trigger(order.key)
        return None if known is None else known.job
    for job in store.jobs.open_jobs(order.model):
        if job.created_ns >= since_ns:
            return job.job
    return None


def _trigger_row(order: Order, job: int | None, sentence: str, status: str) -> TriggerRow:
    return TriggerRow(
        key=order.key,
        source=order.trigger,
        model=order.model,
        status=status,
        seen_ns=time.time_ns(),
        job=job,
        sentence=sentence,
    )


def _spoken(state: JobState) -> str:
    return "on canaries" if state is JobState.CANARY else state.value.replace("_", " ")
