"""What went wrong inside the agent: counted per stage, logged once per kind, never raised."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._vocabulary import DropReason, Stage
from calidrift_agent.errors import StrictModeError

CONSECUTIVE_LIMIT: Final = 20
"""Errors in a row, without one success between them, after which a watch detaches itself."""

_IN_REQUEST: Final = frozenset({Stage.SAMPLE, Stage.TAP})
"""Stages that run in the thread of a request."""
_STAGES: Final = tuple(Stage)
_REASONS: Final = tuple(DropReason)
_logger = logging.getLogger("calidrift_agent")


@final
class Ledger:
    """Counts errors and drops from any thread until the drain takes them.

    Args:
        model: Name of the watched model, for the log.
        on_exhausted: Called once, from the thread of the last straw, after `CONSECUTIVE_LIMIT`
            errors in a row.
        strict: For staging: errors are raised into the caller as well, at once where they happen
            inside a request, else with the next observed request, `flush` or `close`.

    Cost: 0.5 us per entry; nothing on the way of a request without errors.
    """

    __slots__ = (
        "_consecutive",
        "_drops",
        "_errors",
        "_exhausted",
        "_lock",
        "_logged",
        "_model",
        "_on_exhausted",
        "_pending",
        "_strict",
    )

    def __init__(
        self, model: str, on_exhausted: Callable[[], None], *, strict: bool = False
    ) -> None:
        self._model = model
        self._on_exhausted = on_exhausted
        self._strict = strict
        self.reset()

    def reset(self) -> None:
        """Start at zero with a new lock, as the child of a fork must."""
        # Re-entrant: a signal handler of this thread may call the model while it is held.
        self._lock = threading.RLock()
        self._errors = [0] * len(_STAGES)
        self._drops = [0] * len(_REASONS)
        self._consecutive = 0
        self._exhausted = False
        self._logged: set[tuple[Stage, str]] = set()
        self._pending: StrictModeError | None = None

    @property
    def exhausted(self) -> bool:
        """Whether there were too many errors in a row."""
        return self._exhausted

    def failed(self, stage: Stage, error: BaseException) -> None:
        """Count an error, and log it if it is the first of its kind.

        Raises:
            StrictModeError: In strict mode, where a request waits for this.
        """
        if isinstance(error, StrictModeError):
            raise error
        kind = (stage, type(error).__name__)
        with self._lock:
            self._errors[_STAGES.index(stage)] += 1
            self._consecutive += 1
            first = kind not in self._logged
            self._logged.add(kind)
            spent = self._consecutive >= CONSECUTIVE_LIMIT and not self._exhausted
            self._exhausted = self._exhausted or spent
        if first:
            self._log(
                "calidrift: %s failed while watching %s: %r; requests are not affected, and "
                "further errors of this kind are only counted",
                stage,
                self._model,
                error,
            )
        if spent:
            self._log(
                "calidrift: %d errors in a row while watching %s; it is no longer watched",
                CONSECUTIVE_LIMIT,
                self._model,
            )
            with suppress(Exception):
                self._on_exhausted()
        if self._strict:
            self._raise(stage, error)

    def _raise(self, stage: Stage, error: BaseException) -> None:
        strict = StrictModeError(
            f"{stage} failed while watching {self._model} ({type(error).__name__}: {error}); it "
            "is raised because CALIDRIFT_STRICT=1, which is for staging: unset it in production, "
            "where such errors are counted only"
        )
        strict.__cause__ = error
        if stage in _IN_REQUEST:
            raise strict
        self._pending = self._pending or strict

    def raise_pending(self) -> None:
        """Raise what failed beside requests since the last time; only in strict mode.

        Raises:
            StrictModeError: Something failed.
        """
        if self._pending is not None:
            error, self._pending = self._pending, None
            if error is not None:
                raise error

    def succeeded(self) -> None:
        """Note that an observation went all the way; errors before it are no longer in a row."""
        self._consecutive = 0

    def dropped(self, reason: DropReason, number: int = 1) -> None:
        """Count something that was not kept."""
        with self._lock:
            self._drops[_REASONS.index(reason)] += number

    def take(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return errors per stage and drops per reason since the last call."""
        with self._lock:
            errors, self._errors = self._errors, [0] * len(_STAGES)
            drops, self._drops = self._drops, [0] * len(_REASONS)
        return np.array(errors, np.int64), np.array(drops, np.int64)

    def _log(self, message: str, *values: object) -> None:
        with suppress(Exception):
            _logger.warning(message, *values)
