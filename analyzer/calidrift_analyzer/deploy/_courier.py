"""Telling the moves of one model, in their order, until each has come to an end."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, TypeVar, final

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_exponential,
    wait_fixed,
)

from calidrift_agent.errors import RegistryError
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.deploy._command import run_command
from calidrift_analyzer.deploy._halt import Halt
from calidrift_analyzer.deploy._hook import HookResult
from calidrift_analyzer.deploy._outbox import notice_move, require_published, still_serves
from calidrift_analyzer.deploy._webhook import post
from calidrift_analyzer.errors import ConfigurationError, StoreError
from calidrift_analyzer.records import AuditRow, DeploymentRow, DeployState
from calidrift_analyzer.store import Store

__all__ = ["Courier", "Outbox"]

_T = TypeVar("_T")
_ACTOR: Final = "service"
_ACTION: Final = "deploy"
_NS: Final = 10**9
_FORCED_SECONDS: Final = 5.0
_STORE_SECONDS: Final = 2.0
_STORE_PATIENCE: Final = 30.0
_log = logging.getLogger(__name__)


class Outbox(Protocol):
    """Runs work on the one thread that may use the store."""

    def run(self, work: Callable[[Store], _T]) -> _T:
        """Run some work on the store and give what it gave."""
        ...


class _TryAgainError(Exception):
    """A try failed that may be repeated."""

    def __init__(self, found: HookResult) -> None:
        super().__init__(found.sentence)
        self.found = found


class _OvertakenError(Exception):
    """The move is no longer the one to tell."""


@final
class Courier:
    """Tells the moves of one model: in the foreground, or on a thread of its own.

    Args:
        outbox: The store.
        contract: The model; it has a hook.
        on_end: Called whenever a move has come to an end.
        first_seconds: Wait before a second try; it doubles, up to a minute.
    """

    def __init__(
        self,
        outbox: Outbox,
        contract: ModelContract,
        *,
        on_end: Callable[[DeploymentRow], None] | None = None,
        first_seconds: float = 1.0,
    ) -> None:
        if contract.deploy is None:
            raise ValueError(f"{contract.name} has no hook")
        self._outbox = outbox
        self._contract = contract
        self._deploy = contract.deploy
        self._on_end = on_end
        self._first_seconds = first_seconds
        self._wake = threading.Event()
        self._halt = Halt()
        self._started = False
        self._thread = threading.Thread(
            target=self._work, name=f"calidrift-deploy-{contract.name}", daemon=True
        )

    def start(self) -> None:
        """Tell what waits from before, and whatever comes, on a thread of its own."""
        self._started = True
        self._thread.start()

    def halt(self) -> None:
        """Ask what is under way to end, and begin nothing more."""
        self._halt.stop()
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """End what is under way; it is told again after the next start.

        Args:
            timeout: Seconds that a command gets to end by itself; it does not outlive this call.
        """
        self.halt()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._halt.force()
        if self._thread.is_alive():
            self._thread.join(_FORCED_SECONDS)

    def wake(self) -> None:
        """Say that there may be something to tell."""
        self._wake.set()

    def deliver(self) -> DeploymentRow | None:
        """Tell all that waits, here and now.

        Returns:
            The move that came to an end last; `None` where there was none to tell.

        Raises:
            StoreError: The outcome could not be kept: the move is told again some time.
        """
        last = None
        while not self._halt.stopped:
            row = self._outbox.run(self._due)
            if row is None:
                return last
            ended = self._bring(row)
            last = ended or last
            if ended is not None and self._on_end is not None:
                self._on_end(ended)
        return last

    def _work(self) -> None:
        settled_seconds = 0.0
        while not self._halt.stopped:
            self._wake.clear()
            try:
                self._notice(settled_seconds)
                settled_seconds = _STORE_PATIENCE  # later on, somebody may be recording a move
                self.deliver()
            except StoreError as error:
                _log.warning(
                    "the hook of %s waits for the database: %s", self._contract.name, error
                )
                self._wake.wait(_STORE_SECONDS)
                continue
            except Exception:  # a defect must not end the hooks of the service
                _log.exception("the hook of %s failed by a defect", self._contract.name)
                self._wake.wait(_STORE_PATIENCE)
                continue
            self._wake.wait()

    def _notice(self, settled_seconds: float) -> None:
        def work(store: Store) -> bool:
            look = partial(notice_move, store, self._contract, settled_seconds=settled_seconds)
            return store.jobs.changing(look, done=lambda: None)

        if self._outbox.run(work):
            _log.info("%s was moved by somebody else; its hook is told", self._contract.name)

    def _due(self, store: Store) -> DeploymentRow | None:
        """Give the newest move where it still waits; older ones need not be told any more."""
        newest = store.deployments.newest(self._contract.name)
        for row in store.deployments.page(self._contract.name, open=True):
            if newest is not None and row.entry != newest.entry:
                by = f"version {newest.version} ({newest.action}) came before this was told"
                _settle(store, row, DeployState.SUPERSEDED, by)
        return None if newest is None or newest.state.finished else newest

    def _bring(self, row: DeploymentRow) -> DeploymentRow | None:
        """Try until the move has come to an end; `None` where it has not, or was overtaken."""
        since_seconds = (time.time_ns() - row.created_ns) / _NS
        left = self._deploy.give_up_seconds - max(0.0, since_seconds)
        retrying = Retrying(
            retry=retry_if_exception_type(_TryAgainError),
            stop=lambda state: self._halt.stopped or stop_before_delay(left)(state),
            wait=wait_exponential(multiplier=self._first_seconds, max=60.0),
            sleep=self._pause,
            reraise=True,
        )
        try:
            retrying(self._try, row)
        except _OvertakenError:
            return None
        except _TryAgainError as error:
            if self._halt.stopped:
                return None
            sentence = f"gave up after {self._deploy.give_up_seconds:g} seconds: {error}"
            self._keep(row, DeployState.FAILED, self._advised(sentence), error.found.output)
        return self._outbox.run(lambda store: store.deployments.page(entry=row.entry)[0])

    def _try(self, row: DeploymentRow) -> None:
        """Tell the move once, and keep what became of it.

        Raises:
            _TryAgainError: It may be tried again.
            _OvertakenError: Another move is to be told, or the service ends.
        """
        due = self._outbox.run(self._due)
        if due is None or due.entry != row.entry:
            raise _OvertakenError
        try:
            instead = still_serves(self._contract, row.version)
            if instead is not None:
                sentence = f"version {instead} serves by now"
                self._keep(row, DeployState.SUPERSEDED, sentence)
                return
            require_published(self._contract)
            found = self._run(row)
        except RegistryError as error:
            found = HookResult(done=False, again=True, sentence=str(error))
        except ConfigurationError as error:
            found = HookResult(done=False, again=False, sentence=str(error))
        if self._halt.stopped and not found.done:
            raise _OvertakenError
        if found.done:
            self._keep(row, DeployState.DELIVERED, found.sentence, found.output)
            return
        self._keep(row, DeployState.ATTEMPTED, found.sentence, found.output)
        if found.again:
            raise _TryAgainError(found)
        self._keep(row, DeployState.FAILED, self._advised(found.sentence), found.output)

    def _run(self, row: DeploymentRow) -> HookResult:
        if self._deploy.command:
            return run_command(self._contract, row, self._halt)
        return post(self._contract, row, self._halt)

    def _keep(
        self, row: DeploymentRow, state: DeployState, sentence: str, output: str = ""
    ) -> None:
        """Keep what a try came to, however long the disk stays full."""

        def stop(state: RetryCallState) -> bool:
            over = not self._started and (state.seconds_since_start or 0.0) > _STORE_PATIENCE
            return self._halt.stopped or over

        retrying = Retrying(
            retry=retry_if_exception_type(StoreError),
            stop=stop,
            wait=wait_fixed(_STORE_SECONDS),
            sleep=self._pause,
            reraise=True,
        )
        retrying(self._outbox.run, lambda store: _settle(store, row, state, sentence, output))
        if state is DeployState.FAILED:
            _log.warning("the hook of %s failed: %s", row.model, sentence)

    def _pause(self, seconds: float) -> None:
        """Sleep until it is time, or something has come."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _advised(self, sentence: str) -> str:
        name = self._contract.name
        return (
            f"{sentence}; the move stands and calidrift serves it: mend the hook of "
            f"[models.{name}.deploy], then `calidrift jobs deploy {name}` tells it again"
        )


def _settle(
    store: Store, row: DeploymentRow, state: DeployState, sentence: str, output: str = ""
) -> None:
    """Write down where a move stands, once; an end stands in the audit, too."""

    def now() -> DeploymentRow:
        return store.deployments.page(entry=row.entry)[0]

    def change() -> bool:
        if now().state.finished:
            return True  # another process has told it meanwhile
        store.deployments.tried(row.entry, state, sentence, output)
        if state.finished:
            store.jobs.note(
                AuditRow(
                    entry=0,
                    at_ns=time.time_ns(),
                    actor=_ACTOR,
                    action=_ACTION,
                    model=row.model,
                    subject=row.version,
                    outcome="done" if state is not DeployState.FAILED else "refused",
                    sentence=f"{row.action} of {row.version}: {sentence}",
                )
            )
        return True

    def done() -> bool | None:
        found = now()
        return True if (found.state, found.sentence) == (state, sentence) else None

    store.jobs.changing(change, done=done)
