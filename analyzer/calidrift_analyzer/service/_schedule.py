"""When tasks run: APScheduler keeps the time, the store keeps what became of them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import TaskRow
from calidrift_analyzer.service._metrics import JobDurations
from calidrift_analyzer.service._owner import StoreOwner

__all__ = ["Schedule", "Task"]

_THREADS: Final = 2
_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        name: Its name, in the store and in metrics.
        run: Does it and gives the outcome as a sentence; may be repeated.
        seconds: Time between two runs; 0 for never.
        at_start: Whether it runs as soon as the service does.
    """

    name: str
    run: Callable[[], str]
    seconds: float
    at_start: bool = True


@final
class Schedule:
    """Runs tasks in time, each at most once at a time.

    The times live in memory: a task that was due while the service was down runs at the start.
    What became of it, and its last success, is in the store, so that a period longer than the
    service's life is kept all the same.

    Args:
        tasks: The tasks.
        owner: The store, for the outcomes.
        durations: Notes how long each took.
    """

    def __init__(self, tasks: tuple[Task, ...], owner: StoreOwner, durations: JobDurations) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._owner = owner
        self._durations = durations
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(_THREADS)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def start(self) -> None:
        """Begin."""
        before = {row.task: row.ended_ns for row in self._owner.run(lambda s: s.jobs.tasks())}
        now = datetime.now(UTC)
        for task in self._tasks.values():
            if task.seconds <= 0:
                continue
            first = now
            if not task.at_start:
                last = before.get(task.name)
                begun = now if last is None else datetime.fromtimestamp(last / 1e9, UTC)
                first = max(now, min(begun, now) + timedelta(seconds=task.seconds))
            self._scheduler.add_job(
                self.run_now,
                "interval",
                args=[task.name],
                seconds=task.seconds,
                id=task.name,
                name=task.name,
                next_run_time=first,
                replace_existing=True,
            )
        self._scheduler.start()

    def stop(self) -> None:
        """Begin nothing more; a task that is under way ends by itself."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def run_now(self, name: str) -> TaskRow:
        """Run one task and keep what became of it; never raises."""
        task = self._tasks[name]
        started_ns, clock = time.time_ns(), time.monotonic()
        try:
            sentence, succeeded = task.run(), True
        except Exception as error:
            sentence, succeeded = str(error) or type(error).__name__, False
            _log.warning("the task %s failed: %s", name, sentence)
        seconds = time.monotonic() - clock
        self._durations.note(name, seconds)
        row = TaskRow(
            task=name,
            started_ns=started_ns,
            ended_ns=started_ns + int(seconds * 1e9),
            succeeded=succeeded,
            sentence=sentence,
            last_success_ns=None,
            runs=0,
            failures=0,
        )
        try:
            self._owner.run(lambda store: store.jobs.record_task(row))
        except StoreError as error:
            _log.warning("the outcome of the task %s could not be kept: %s", name, error)
        return row
