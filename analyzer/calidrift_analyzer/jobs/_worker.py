"""The worker: one thread that leads jobs from state to state, and never loses one."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

from calidrift_analyzer.config import AnalyzerConfig, Mode, ModelContract
from calidrift_analyzer.errors import CalidriftError, RefusedError, StoreError
from calidrift_analyzer.jobs._actions import approve
from calidrift_analyzer.jobs._database import Database
from calidrift_analyzer.jobs._orders import audit_row, frozen_by
from calidrift_analyzer.jobs._stages import job_folder
from calidrift_analyzer.jobs._work import StageResult, Stages, StageWork
from calidrift_analyzer.records import JobEvent, JobKind, JobRow, JobState
from calidrift_analyzer.store import Step, Store

__all__ = ["LiveProgress", "Worker"]

_ATTEMPTS: Final = 3
"""How often a state is begun before a job counts as one that kills the service."""
_RETRY_SECONDS: Final = 2.0
_WORKING: Final = frozenset({JobState.SELECTING, JobState.RECALIBRATING, JobState.VALIDATING})
_log = logging.getLogger(__name__)


class _CancelledError(Exception):
    """Somebody wants the job to end."""


class _StoppedError(Exception):
    """The service ends; the job goes on with the next one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProgress:
    """How far the job at work is; only this process knows.

    Attributes:
        job: Its number.
        what: What is being done.
        done: Steps that are finished.
        total: Of how many; 0 where that is not known.
        since_ns: When its state began in this process, UTC nanoseconds.
    """

    job: int
    what: str
    done: int
    total: int
    since_ns: int


@final
class Worker:
    """Leads the open jobs through their states, the oldest first, one at a time.

    Everything that counts is in the store before it is acted on: a process that is killed at any
    moment is followed by one that begins the same state anew, or finds that it was done.

    Args:
        database: The store.
        config: The models, and the mode.
        stages: What happens in each state.
        on_end: Called with a job that has come to an end.
    """

    def __init__(
        self,
        database: Database,
        config: AnalyzerConfig,
        stages: Stages,
        *,
        on_end: Callable[[JobRow], None] | None = None,
    ) -> None:
        self._database = database
        self._config = config
        self._stages = stages
        self._on_end = on_end
        self._wake = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._live: LiveProgress | None = None
        self._unwanted: set[int] = set()
        self._looked_at: set[tuple[int, bool]] = set()
        self._entered: set[tuple[int, JobState]] = set()
        self._thread = threading.Thread(target=self._work, name="calidrift-jobs", daemon=True)

    def start(self) -> None:
        """Begin to work, on a thread of its own."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop at the next step; a job that is under way goes on with the next start."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wake(self) -> None:
        """Say that there may be something to do."""
        self._wake.set()

    def look(self) -> None:
        """Look again at the jobs that wait for their canaries; one that waits blocks no other."""
        with self._lock:
            self._looked_at.clear()
        self._wake.set()

    def unwant(self, job: int) -> None:
        """Let a running job end at its next step; the store knows of it already."""
        with self._lock:
            self._unwanted.add(job)
        self._wake.set()

    def live(self) -> LiveProgress | None:
        """Give how far the job at work is; `None` while there is none."""
        with self._lock:
            return self._live

    def run_until_idle(self) -> None:
        """Work here and now until no job can go on; for commands and tests.

        Raises:
            StoreError: The store cannot be used.
        """
        while not self._stopping and self._advance():
            pass

    def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                if self._advance():
                    continue
            except StoreError as error:
                _log.warning("jobs wait for the database: %s", error)
                self._wake.wait(_RETRY_SECONDS)
                continue
            except Exception:  # a defect must not end all jobs of the service
                _log.exception("the worker of jobs failed and goes on")
                self._wake.wait(_RETRY_SECONDS)
                continue
            self._wake.wait()

    def _advance(self) -> bool:
        """Do one step of one job; False where none can go on."""
        job = self._database.run(self._due)
        if job is None:
            return False
        contract = self._config.models.get(job.model)
        if contract is None:
            sentence = f"model {job.model!r} is no longer configured; add it again"
            if job.state is JobState.CANARY:
                sentence += ", and promote or roll back: its canaries go on with their version"
            return self._end(job, JobState.FAILED, sentence)
        if job.cancel_requested and job.state is not JobState.CANARY:
            return self._end(job, JobState.CANCELLED, job.sentence)
        if job.state is JobState.QUEUED:
            again = job.kind is JobKind.REVALIDATION
            first = JobState.VALIDATING if again else JobState.SELECTING
            result = StageResult(state=first, sentence=f"{first.value} began", document={})
            return self._enter(job, result)
        if job.state is JobState.AWAITING_APPROVAL and job.approved_by is None:
            note = "mode = 'auto'"
            self._database.run(
                lambda store: approve(store, contract, job.job, actor="auto", note=note)
            )
            return True
        return self._do(job, contract)

    def _due(self, store: Store) -> JobRow | None:
        """Give the oldest job that can go on now."""
        for job in store.jobs.open_jobs():
            if job.state is JobState.CANARY:
                # Frozen or not: what is worse than its peers is withdrawn.
                if self._unseen(job):
                    return job
                continue
            if job.cancel_requested or job.state in _WORKING:
                return job
            waits_for_us = (
                job.state is JobState.QUEUED
                or job.approved_by is not None
                or self._config.service.mode is Mode.AUTO
            )
            if waits_for_us and frozen_by(store, job.model) is None:
                return job
        return None

    def _unseen(self, job: JobRow) -> bool:
        """Whether a canary is to be looked at: after `look`, and once somebody cancels it."""
        with self._lock:
            return (job.job, job.cancel_requested) not in self._looked_at

    def _do(self, job: JobRow, contract: ModelContract) -> bool:
        """Do the work of a job's state, however that ends."""
        if not self._begin(job):
            return True
        try:
            document, newest = self._database.run(lambda store: _needs(store, job))
            result = self._stages.run(
                StageWork(
                    job=job,
                    contract=contract,
                    document=document,
                    newest=newest,
                    database=self._database,
                    progress=self._progress(job),
                )
            )
        except _StoppedError:
            return False
        except _CancelledError:
            return self._end(job, JobState.CANCELLED, "cancelled while it was at work")
        except StoreError:
            raise  # the state begins anew when the store is back
        except RefusedError as error:
            return self._end(job, JobState.REFUSED, str(error))
        except CalidriftError as error:
            return self._end(job, JobState.FAILED, str(error))
        except Exception as error:
            _log.exception("job %d failed by a defect", job.job)
            kind = type(error).__name__
            return self._end(job, JobState.FAILED, f"it failed by a defect ({kind}: {error})")
        finally:
            with self._lock:
                self._live = None
        if result is None:
            with self._lock:
                self._looked_at.add((job.job, job.cancel_requested))
            return True
        return self._enter(job, result)

    def _begin(self, job: JobRow) -> bool:
        """Note that a state begins anew, where another process had begun it."""
        if (job.job, job.state) in self._entered or job.state not in _WORKING:
            return True
        if job.attempts >= _ATTEMPTS:
            self._end(
                job,
                JobState.FAILED,
                f"the service ended {job.attempts} times while this job was {job.state}; look at "
                "its log and at free memory before asking for another one",
            )
            return False
        step = Step(
            job=job.job,
            state=job.state,
            event=JobEvent.RESUMED,
            sentence=f"{job.state} begins anew, after the service ended in it",
        )

        def move(store: Store) -> bool:
            def change() -> bool:
                store.jobs.step(step)
                return True

            return store.jobs.changing(change, done=lambda: _stands(store, step))

        self._database.run(move)
        self._entered.add((job.job, job.state))
        return True

    def _enter(self, job: JobRow, result: StageResult) -> bool:
        """Move a job on, together with everything that belongs to the move."""
        step = Step(
            job=job.job,
            state=result.state,
            sentence=result.sentence,
            event=result.event,
            document=result.document,
        )

        def change(store: Store) -> bool:
            now = store.jobs.find(job.job)
            if now is None or now.state is not job.state:
                return True  # somebody ended it meanwhile
            if result.record is not None:
                result.record(store)
            store.jobs.step(step)
            if result.state.finished:
                _note_end(store, job, result.state, result.sentence)
            return True

        self._persist(
            lambda store: store.jobs.changing(
                lambda: change(store), done=lambda: _stands(store, step)
            )
        )
        self._entered.add((job.job, result.state))
        if result.state.finished:
            self._ended(job)
        return True

    def _persist(self, change: Callable[[Store], bool]) -> None:
        """Keep what minutes of work came to, however long the disk stays full."""
        while True:
            try:
                self._database.run(change)
                return
            except StoreError as error:
                if self._stopping or threading.current_thread() is not self._thread:
                    raise
                _log.warning("the outcome of a job waits for the database: %s", error)
                self._wake.wait(_RETRY_SECONDS)
                self._wake.clear()

    def _end(self, job: JobRow, state: JobState, sentence: str) -> bool:
        return self._enter(job, StageResult(state=state, sentence=sentence, document={}))

    def _ended(self, job: JobRow) -> None:
        """Tidy up behind a job and tell of its end."""
        contract = self._config.models.get(job.model)
        if contract is not None:
            shutil.rmtree(job_folder(contract, job.job), ignore_errors=True)
        with self._lock:
            self._unwanted.discard(job.job)
        self._entered = {one for one in self._entered if one[0] != job.job}
        ended = self._database.run(lambda store: store.jobs.find(job.job))
        if self._on_end is not None and ended is not None:
            self._on_end(ended)

    def _progress(self, job: JobRow) -> Callable[[str, int, int], None]:
        since_ns = time.time_ns()

        def tell(what: str, done: int, total: int) -> None:
            with self._lock:
                if job.job in self._unwanted:
                    raise _CancelledError
                self._live = LiveProgress(
                    job=job.job, what=what, done=done, total=total, since_ns=since_ns
                )
            if self._stopping:
                raise _StoppedError

        return tell


def _needs(store: Store, job: JobRow) -> tuple[Mapping[str, object], int]:
    """Give what a state begins with, and the newest version at the approval."""
    newest = 0
    for step in store.jobs.steps(job.job):
        if step.event is JobEvent.APPROVED:
            newest = int(json.loads(step.document).get("newest", 0))
    return store.jobs.document(job.job, job.state), newest


def _stands(store: Store, step: Step) -> bool | None:
    """Whether a commit that was lost on the way has stored a step all the same."""
    last = store.jobs.steps(step.job)[-1]
    same = (last.state, last.event, last.sentence) == (step.state, step.event, step.sentence)
    return True if same else None


def _note_end(store: Store, job: JobRow, state: JobState, sentence: str) -> None:
    store.jobs.note(
        audit_row(
            job.approved_by or "service",
            state.value,
            job.model,
            f"job {job.job}",
            sentence,
            refused=state in (JobState.REFUSED, JobState.FAILED),
        )
    )
