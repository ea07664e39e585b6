"""The whole service: store, worker, schedule and figures, started and stopped in order."""

import logging
import time
from functools import partial
from typing import Final, final

from prometheus_client import CollectorRegistry

from calidrift_analyzer.config import LOOPBACK, AnalyzerConfig, service_tokens
from calidrift_analyzer.deploy import Courier, check_hook
from calidrift_analyzer.errors import ConfigurationError, StoreError
from calidrift_analyzer.jobs import RealStages, Stages, Worker
from calidrift_analyzer.records import JobRow
from calidrift_analyzer.service._board import Board
from calidrift_analyzer.service._gate import Gate
from calidrift_analyzer.service._leftovers import remove_leftovers
from calidrift_analyzer.service._limits import RateLimit
from calidrift_analyzer.service._metrics import JobDurations, analyzer_registry
from calidrift_analyzer.service._owner import StoreOwner
from calidrift_analyzer.service._reading import ViewContext
from calidrift_analyzer.service._schedule import Schedule, Task
from calidrift_analyzer.service._tasks import Tasks
from calidrift_analyzer.service._together import Together
from calidrift_analyzer.service._tokens import TokenFile, Tokens

__all__ = ["Service", "load_tokens"]

_JOB_SECONDS: Final = 1e9
_PATIENCE_SECONDS: Final = 10.0
"""A command that holds the database when the service starts is no reason to give up."""
_HOOK_SECONDS: Final = 3.0
"""Hooks that were asked to end with the service are ended after this time, all together."""
_DEPLOY_SECONDS: Final = 60.0
"""Moves of commands while the service holds the database are noticed within this time."""
_log = logging.getLogger(__name__)


def load_tokens(config: AnalyzerConfig) -> TokenFile:
    """Read the tokens, and refuse to be open to others without any.

    They are read again when their file changes.

    Raises:
        ConfigurationError: They cannot be read, a file that is named has none, or there are none
            though others could ask.
    """
    named = config.service.tokens
    tokens = TokenFile(named, service_tokens())
    if named is not None and not len(Tokens.load(named, "")):
        # Half written, or emptied by mistake: to work without any would let everybody in.
        raise ConfigurationError(
            f"the tokens file {named} holds no token; write one table [NAME] with secret and "
            "scopes for each, or remove the key tokens from [service]"
        )
    if not tokens.guarded and config.service.host not in LOOPBACK:
        raise ConfigurationError(
            f"the service would listen on {config.service.host} without any token, open to "
            "everybody; name a tokens file in [service], set CALIDRIFT_TOKENS, or listen on "
            "127.0.0.1"
        )
    return tokens


@final
class Service:
    """One analyzer at work, without its HTTP server.

    Args:
        config: The configuration.
        stages: What jobs do; for tests.

    Raises:
        ConfigurationError: The tokens cannot be used.
        StoreBusyError: Another process holds the database.
        StoreError: The database cannot be used.
    """

    def __init__(self, config: AnalyzerConfig, *, stages: Stages | None = None) -> None:
        self.config = config
        for contract in config.models.values():
            check_hook(contract)
        self.gate = Gate(load_tokens(config), RateLimit(config.service.requests_per_minute))
        self.board = Board()
        self._together = Together()
        self.registry: CollectorRegistry
        self._durations: JobDurations
        self.registry, self._durations = analyzer_registry(self.board)
        self.owner = StoreOwner(config.database, patience=_PATIENCE_SECONDS)
        self.worker = Worker(self.owner, config, stages or RealStages(), on_end=self._job_ended)
        self._couriers = {
            name: Courier(self.owner, contract, on_end=lambda row: self.tasks.refresh())
            for name, contract in config.models.items()
            if contract.deploy is not None
        }
        self.tasks = Tasks(config, self.owner, self.worker, self.board, self.tell)
        self.schedule = Schedule(_timetable(config, self.tasks), self.owner, self._durations)

    def start(self) -> None:
        """Begin to work."""
        try:
            self.owner.run(partial(remove_leftovers, config=self.config))
        except (StoreError, OSError) as error:
            _log.warning("what ended jobs left could not be removed: %s", error)
        self.worker.start()
        for courier in self._couriers.values():
            courier.start()
        self.schedule.start()

    def stop(self) -> None:
        """Stop everything; a job that is under way goes on with the next start."""
        self.schedule.stop()
        for courier in self._couriers.values():
            courier.halt()
        self.worker.stop(timeout=1.0)
        until = time.monotonic() + _HOOK_SECONDS
        for courier in self._couriers.values():
            courier.stop(timeout=max(0.0, until - time.monotonic()))
        self.owner.close()

    def tell(self, model: str) -> None:
        """Have the moves of a model told to where its hook leads, if it has one."""
        courier = self._couriers.get(model)
        if courier is not None:
            courier.wake()

    def context(self) -> ViewContext:
        """Give what views need beside the store."""
        return ViewContext(
            config=self.config,
            live=self.worker.live(),
            latest=self.board.latest(),
            together=self._together,
        )

    def _job_ended(self, job: JobRow) -> None:
        self._durations.note(job.kind.value, (time.time_ns() - job.created_ns) / _JOB_SECONDS)
        self.tell(job.model)
        self.tasks.refresh()


def _timetable(config: AnalyzerConfig, tasks: Tasks) -> tuple[Task, ...]:
    told = config.service
    publication = Task(name="publication", run=tasks.publish, seconds=told.publish_seconds)
    published = any(model.registry_url is not None for model in config.models.values())
    hooks = any(contract.deploy is not None for contract in config.models.values())
    return (
        Task(name="ingest", run=tasks.ingest, seconds=told.ingest_seconds),
        Task(name="assess", run=tasks.assess, seconds=told.assess_seconds),
        Task(name="canary", run=tasks.canary, seconds=told.assess_seconds),
        Task(name="retention", run=tasks.retain, seconds=told.retention_seconds, at_start=False),
        Task(
            name="revalidation",
            run=tasks.revalidate,
            seconds=told.revalidate_seconds,
            at_start=False,
        ),
        *((publication,) if published else ()),
        Task(name="deploy", run=tasks.deploy, seconds=_DEPLOY_SECONDS if hooks else 0.0),
    )
