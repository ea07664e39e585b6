"""What people do to jobs and models: approve, cancel, freeze, thaw, roll back."""

import time
from collections.abc import Callable

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import PROFILE_FILE, VersionLayout, number_of
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.deploy import enqueue, enqueue_again, serving
from calidrift_analyzer.errors import NoDataError, RefusedError
from calidrift_analyzer.jobs._database import Database
from calidrift_analyzer.jobs._orders import audit_row, frozen_by
from calidrift_analyzer.promote import publication, rollback
from calidrift_analyzer.records import (
    DeployAction,
    FreezeRow,
    JobEvent,
    JobRow,
    JobState,
    PromotedVersion,
    VersionRow,
)
from calidrift_analyzer.store import Step, Store

__all__ = [
    "approve",
    "cancel",
    "freeze",
    "require_job",
    "roll_back",
    "take_back",
    "tell_again",
    "version_row",
]

_RUNNING = frozenset(
    {JobState.SELECTING, JobState.RECALIBRATING, JobState.VALIDATING, JobState.CANARY}
)


def require_job(store: Store, job: int) -> JobRow:
    """Give a job.

    Raises:
        NoDataError: There is none of this number.
    """
    found = store.jobs.find(job)
    if found is None:
        raise NoDataError(f"there is no job {job}; list them with `calidrift jobs`")
    return found


def approve(store: Store, contract: ModelContract, job: int, *, actor: str, note: str = "") -> str:
    """Let the candidate of a job be promoted; the worker does it.

    Args:
        store: The store.
        contract: The contract of the job's model.
        job: Number of the job.
        actor: Who approves.
        note: Why, in words.

    Returns:
        A sentence.

    Raises:
        NoDataError: There is no such job.
        RefusedError: It does not wait for an approval, was approved already, or is frozen.
    """
    found = require_job(store, job)
    frozen = frozen_by(store, found.model)
    if found.state is not JobState.AWAITING_APPROVAL:
        _refuse(
            store,
            actor,
            "approve",
            found,
            f"job {job} is {found.state.value.replace('_', ' ')}; only a job that awaits approval "
            "can be approved",
        )
    if found.approved_by is not None:
        _refuse(store, actor, "approve", found, f"job {job} was approved by {found.approved_by}")
    if found.cancel_requested:
        _refuse(store, actor, "approve", found, f"job {job} is being cancelled")
    if frozen is not None:
        _refuse(
            store,
            actor,
            "approve",
            found,
            f"{frozen.model or 'every model'} was frozen by {frozen.actor}; thaw it first",
        )
    layout = VersionLayout(contract.registry, contract.name)
    newest = max((number_of(one) for one in layout.identities()), default=0)
    sentence = f"approved by {actor}" + (f": {note}" if note else "")

    def change() -> str:
        store.jobs.step(
            Step(
                job=job,
                state=JobState.AWAITING_APPROVAL,
                event=JobEvent.APPROVED,
                actor=actor,
                sentence=sentence,
                document={"newest": newest},
            )
        )
        store.jobs.note(audit_row(actor, "approve", found.model, f"job {job}", sentence))
        return sentence

    return store.jobs.changing(
        change, done=lambda: sentence if require_job(store, job).approved_by else None
    )


def cancel(store: Store, job: int, *, actor: str, note: str = "") -> str:
    """End a job: at once where it waits, else at the next step that its child reports.

    One that waits for its canary is ended by the worker, which withdraws the canary first.

    Args:
        store: The store.
        job: Number of the job.
        actor: Who cancels.
        note: Why, in words.

    Returns:
        A sentence.

    Raises:
        NoDataError: There is no such job.
        RefusedError: It has finished, or is being promoted.
    """
    found = require_job(store, job)
    if found.state.finished:
        _refuse(store, actor, "cancel", found, f"job {job} has finished: it was {found.state}")
    if found.approved_by is not None and found.state is not JobState.CANARY:
        _refuse(
            store,
            actor,
            "cancel",
            found,
            f"job {job} was approved by {found.approved_by} and is being promoted; roll back "
            "afterwards",
        )
    running = found.state in _RUNNING
    why = f": {note}" if note else ""
    sentence = f"cancelled by {actor}{why}"
    step = Step(
        job=job,
        state=found.state if running else JobState.CANCELLED,
        event=JobEvent.CANCEL_REQUESTED if running else JobEvent.ENTERED,
        actor=actor,
        sentence=f"{actor} wants this job to end{why}" if running else sentence,
    )

    def change() -> str:
        store.jobs.step(step)
        store.jobs.note(audit_row(actor, "cancel", found.model, f"job {job}", step.sentence))
        return step.sentence

    def done() -> str | None:
        now = require_job(store, job)
        return step.sentence if now.cancel_requested or now.state.finished else None

    return store.jobs.changing(change, done=done)


def freeze(store: Store, model: str, *, frozen: bool, actor: str, note: str = "") -> FreezeRow:
    """Forbid, or allow again, that anything changes a model.

    Args:
        store: The store.
        model: Name of the model; empty for all of them.
        frozen: True freezes, False thaws.
        actor: Who does it.
        note: Why, in words.

    Returns:
        The switch as it stands now.
    """
    row = FreezeRow(model=model, frozen=frozen, actor=actor, at_ns=time.time_ns(), sentence=note)

    def change() -> FreezeRow:
        store.jobs.freeze(row)
        word = "freeze" if frozen else "thaw"
        store.jobs.note(audit_row(actor, word, model, model or "every model", note))
        return row

    def done() -> FreezeRow | None:
        return row if row in store.jobs.freezes() else None

    return store.jobs.changing(change, done=done)


def roll_back(
    database: Database, contract: ModelContract, to: str | None, *, actor: str
) -> PromotedVersion:
    """Let an earlier version serve again, and keep who did it.

    Args:
        database: Where the move is kept.
        contract: The model.
        to: The version; where not given, the one before the current one.
        actor: Who does it.

    Returns:
        The version that serves from now on.

    Raises:
        RefusedError: The model is frozen.
        RegistryError: There is no such version, or it is damaged. What serves does not change.
    """
    frozen = database.run(lambda store: frozen_by(store, contract.name))
    if frozen is not None:
        sentence = f"{frozen.model or 'every model'} was frozen by {frozen.actor}; thaw it first"
        row = audit_row(actor, "rollback", contract.name, to or "", sentence, refused=True)
        database.run(lambda store: store.jobs.note(row))
        raise RefusedError(sentence)
    before = serving(contract)
    version = rollback(contract.registry, contract.name, to)
    moved = version_row(version, "rolled_back")
    profile = CalibrationProfile.load(version.path / PROFILE_FILE)
    sentence = f"{version.id} serves again"

    def record(store: Store) -> None:
        def change() -> bool:
            enqueue(store, contract, version.id, DeployAction.ROLLBACK, before)
            store.put_profile(profile)
            store.outcomes.record_version(moved)
            store.jobs.note(audit_row(actor, "rollback", contract.name, version.id, sentence))
            return True

        store.jobs.changing(change, done=_was_recorded(store, moved))

    database.run(record)
    return version


def take_back(database: Database, contract: ModelContract, to: str | None, *, actor: str) -> str:
    """Roll back, and publish what serves again where the model has a URL.

    Args:
        database: Where the move, and what came of publishing it, is kept.
        contract: The model.
        to: The version; where not given, the one before the current one.
        actor: Who does it.

    Returns:
        A sentence. A store that does not answer is told in it and undoes nothing.

    Raises:
        RefusedError: The model is frozen.
        RegistryError: There is no such version, or it is damaged. What serves does not change.
    """
    version = roll_back(database, contract, to, actor=actor)
    told = publication(contract.registry, contract.name, contract.registry_url)
    if told is None:
        return f"{version.id} serves again"
    row = audit_row(actor, "publish", contract.name, version.id, told)
    database.run(lambda store: store.jobs.note(row))
    return f"{version.id} serves again; {told}"


def tell_again(store: Store, contract: ModelContract, *, actor: str, note: str = "") -> str:
    """Have the last move of a model told to its deployment system once more, under a new key.

    Args:
        store: The store.
        contract: The model.
        actor: Who asks for it.
        note: Why, in words.

    Returns:
        A sentence.

    Raises:
        RefusedError: There is no hook, the last move still waits, or another version serves.
        NoDataError: No move was kept yet.
    """
    begun_ns = time.time_ns()

    def change() -> str:
        move = enqueue_again(store, contract)
        sentence = f"the {move.action} of {move.version} is told again"
        why = f": {note}" if note else ""
        row = audit_row(actor, "deploy", contract.name, move.version, f"{sentence}{why}")
        store.jobs.note(row)
        return sentence

    def done() -> str | None:
        last = store.deployments.newest(contract.name)
        if last is None or last.created_ns < begun_ns:
            return None
        return f"the {last.action} of {last.version} is told again"

    return store.jobs.changing(change, done=done)


def version_row(version: PromotedVersion, action: str) -> VersionRow:
    """Give a move of the version pointer that was made now."""
    return VersionRow(
        model=version.model,
        version=version.id,
        action=action,
        created_ns=time.time_ns(),
        profile=version.profile,
        document=version.manifest,
    )


def _was_recorded(store: Store, row: VersionRow) -> Callable[[], bool | None]:
    return lambda: True if row in store.outcomes.versions(row.model) else None


def _refuse(store: Store, actor: str, action: str, job: JobRow, sentence: str) -> None:
    """Keep a refusal in the audit, and say it.

    Raises:
        RefusedError: Always.
    """
    store.jobs.note(audit_row(actor, action, job.model, f"job {job.job}", sentence, refused=True))
    raise RefusedError(sentence)
