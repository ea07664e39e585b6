"""What the service does by itself: ingest, assess, retention, re-validation, publication."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, final

from calidrift_agent._registry import VersionLayout
from calidrift_analyzer.assess import AssessRules, assess_stored, judged
from calidrift_analyzer.collect import CollectReport, collect
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.cycle import landmarks_of, retention_of
from calidrift_analyzer.errors import CalidriftError, StoreError
from calidrift_analyzer.jobs import Order, Worker, notice_move, order_job
from calidrift_analyzer.promote import publish
from calidrift_analyzer.records import (
    DeployState,
    JobKind,
    JobState,
    ModelAssessment,
    Trigger,
    alarm_in_force,
    needs_action,
    record_document,
)
from calidrift_analyzer.service._board import Board, Figures
from calidrift_analyzer.service._owner import StoreOwner
from calidrift_analyzer.store import Store

__all__ = ["TaskFailedError", "Tasks"]

_KEEP_NS: Final = 900 * 10**9
"""An assessment that says nothing new is kept this often at most."""
_FORGET: Final = timedelta(days=90)
_SETTLED_SECONDS: Final = 30.0
"""So long a command may try to record its own move of the version pointer."""
_SERVICE: Final = "service"
_Windows = dict[str, tuple[int, int]]


class TaskFailedError(Exception):
    """A task did not do what it should; the message is its outcome."""


@final
@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks; each gives its outcome as a sentence, and may be repeated at any time.

    Args:
        config: The models and folders.
        owner: The store.
        worker: To be woken where there is a new job.
        board: Where figures go.
        tell: Has the moves of a model told to where its hook leads.
    """

    config: AnalyzerConfig
    owner: StoreOwner
    worker: Worker
    board: Board
    tell: Callable[[str], None] = lambda model: None
    _judged: dict[str, tuple[object, ...]] = field(default_factory=dict, init=False, repr=False)
    _loaded: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    def ingest(self) -> str:
        """Read the state directories once."""
        if not self.config.state_dirs:
            self.refresh()
            return "no state_dirs are configured; windows come by push alone"
        before, report, after = self.owner.run(self._collect)
        for model, (rows, _) in after.items():
            self.board.count_rows(model, rows - before.get(model, (0, 0))[0])
        self.refresh()
        sentence = f"new windows: {report.windows}; processes: {report.processes}"
        if report.skipped:
            one = report.skipped[0]
            sentence += f"; {len(report.skipped)} could not be read, the first: {one.reason}"
        return sentence

    def assess(self) -> str:
        """Judge every model, and order a job where its drift does harm.

        Raises:
            TaskFailedError: A model could not be judged; the others were.
        """
        self._notice()
        models = [one.model for one in self.owner.run(lambda store: store.observed())]
        before = dict(self._judged)
        failed = []
        for model in dict.fromkeys(models):
            try:
                assessment = self.owner.run(partial(self._assess, model))
            except StoreError:
                raise
            except CalidriftError as error:
                failed.append(f"{model}: {error}")
                continue
            self.board.put(assessment)
        self._rest(idle=self._judged == before)
        self.refresh()
        if failed:
            raise TaskFailedError("; ".join(failed))
        return f"models assessed: {len(set(models))}"

    def canary(self) -> str:
        """Have the versions looked at that are tried on canaries; the worker does it."""
        tried = [
            f"{job.model}: {job.sentence}"
            for job in self.owner.run(lambda store: store.jobs.open_jobs())
            if job.state is JobState.CANARY
        ]
        if tried:
            self.worker.look()
        return "; ".join(tried) or "nothing is tried on canaries"

    def retain(self) -> str:
        """Fold what is old, and forget alerts that were resolved long ago.

        Raises:
            TaskFailedError: The database cannot be held to its limit.
        """
        retention, find = retention_of(self.config), landmarks_of(self.config)
        report = self.owner.run(lambda store: store.retain(retention, find))
        until_ns = time.time_ns() - int(_FORGET.total_seconds() * 1e9)
        self.owner.run(lambda store: store.jobs.forget_triggers(until_ns))
        self.refresh()
        if not report.fits:
            raise TaskFailedError(
                f"the database has {report.bytes_after} bytes, more than "
                f"max_database_bytes ({retention.max_bytes}), although everything is as coarse as "
                "it may be: raise the limit"
            )
        return f"{report.folded} records were folded into {report.rollups}"

    def revalidate(self) -> str:
        """Order that what serves is measured against FP32 again."""
        ordered = []
        for model, contract in self.config.models.items():
            if not VersionLayout(contract.registry, model).pointer.exists():
                continue
            order = Order(
                model=model,
                kind=JobKind.REVALIDATION,
                trigger=Trigger.SCHEDULE,
                cause="the period of revalidate_seconds",
                actor=_SERVICE,
            )
            answer = self.owner.run(partial(order_job, order=order, rules=self.config.service))
            ordered.append(f"{model}: {answer.sentence}")
        self.worker.wake()
        return "; ".join(ordered) or "nothing was promoted yet"

    def publish(self) -> str:
        """Bring what serves to where it is not yet published, or not as a whole.

        Raises:
            TaskFailedError: A model could not be published; the others were.
        """
        done, failed = [], []
        for model, contract in self.config.models.items():
            if contract.registry_url is None:
                continue
            try:
                found = publish(contract.registry, model, contract.registry_url, thorough=False)
            except CalidriftError as error:
                failed.append(f"{model}: {error}")
                continue
            done.append(f"{model}: {found.version or 'nothing was promoted yet'}")
        if failed:
            raise TaskFailedError("; ".join(failed))
        return "; ".join(done)

    def deploy(self) -> str:
        """Have what waits told, and say how the last move of each model ended.

        Raises:
            TaskFailedError: The hook of a model was given up.
        """
        hooks = [name for name, one in self.config.models.items() if one.deploy is not None]
        for name in hooks:
            self.tell(name)
        rows = self.owner.run(lambda store: [store.deployments.newest(name) for name in hooks])
        found = [row for row in rows if row is not None]
        told = "; ".join(f"{row.model} {row.version} {row.state}: {row.sentence}" for row in found)
        if any(row.state is DeployState.FAILED for row in found):
            raise TaskFailedError(told)
        return told or "no model was moved yet"

    def _notice(self) -> None:
        """Record the versions that commands put into service beside this process."""
        for model, contract in self.config.models.items():
            look = partial(notice_move, contract=contract, settled_seconds=_SETTLED_SECONDS)
            if self.owner.run(look) is not None and contract.deploy is not None:
                self.tell(model)

    def _rest(self, *, idle: bool) -> None:
        """Let go of what judging has read as soon as nothing comes any more."""
        if not idle:
            self._loaded.set()
        elif self._loaded.is_set():
            self._loaded.clear()
            self.owner.run(lambda store: store.release_memory())

    def refresh(self) -> None:
        """Read what `/metrics` shows."""
        self.board.show(self.owner.run(_figures))

    def _collect(self, store: Store) -> tuple[_Windows, CollectReport, _Windows]:
        before = store.views.windows()
        report = collect(self.config.state_dirs, store)
        return before, report, store.views.windows()

    def _assess(self, model: str, store: Store) -> ModelAssessment:
        contract = self.config.models.get(model)
        rules = AssessRules() if contract is None else AssessRules.of(contract)
        before = self.board.latest().get(model)
        # Judging months of windows takes seconds: not again where nothing came in between.
        stands = (
            store.views.windows().get(model),
            store.profile_digests(),
            judged(store, model, contract),
        )
        if before is None or self._judged.get(model) != stands:
            assessment = assess_stored(store, model, contract=contract, rules=rules)
            self._judged[model] = stands
        else:
            assessment = before[1]
        assessment = store.annotations.annotate(assessment)
        if _says_something_new(store, assessment, None if before is None else before[1]):
            store.outcomes.record_assessment(assessment, json.dumps(record_document(assessment)))
        alarm = alarm_in_force(assessment)
        acts = self.config.service.own_alarms and contract is not None
        if acts and alarm is not None and needs_action(assessment):
            order = Order(
                model=model,
                trigger=Trigger.ALARM,
                cause=assessment.sentence,
                actor=_SERVICE,
                key=f"alarm:{model}:{assessment.profile}:{alarm.end_ns}",
            )
            if order_job(store, order, self.config.service).new:
                self.worker.wake()
        return assessment


def _says_something_new(
    store: Store, assessment: ModelAssessment, before: ModelAssessment | None
) -> bool:
    """Whether an assessment is worth keeping: a new verdict, a new alarm, or a while has passed."""
    last = store.views.latest(assessment.model)
    if last is None or (last.word, last.name) != (assessment.verdict.value, assessment.profile):
        return True
    if before is not None and _alarmed(before) != _alarmed(assessment):
        return True
    return time.time_ns() - last.created_ns >= _KEEP_NS


def _alarmed(assessment: ModelAssessment) -> frozenset[str]:
    return frozenset(point.name for point in assessment.points if point.alarm is not None)


def _figures(store: Store) -> Figures:
    states = Counter((job.model, job.state) for job in store.jobs.open_jobs())
    return Figures(
        last_window_ns={model: last for model, (_, last) in store.views.windows().items()},
        outcomes=store.jobs.outcomes(),
        revalidations=store.outcomes.revalidations(),
        open_jobs=dict(states),
        deployments=store.deployments.outcomes(),
        tasks=store.jobs.tasks(),
        store_bytes=store.path.stat().st_size,
    )
