"""Pushes windows to an analyzer, on a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

from calidrift_agent._sidecar._options import ShipOptions
from calidrift_agent._sidecar._ship_client import AnalyzerClient, ShipError
from calidrift_agent._sidecar._ship_figures import PushFailure, ShipFigures
from calidrift_agent._sidecar._ship_ledger import Ledger
from calidrift_agent._sidecar._ship_round import Round
from calidrift_agent._sidecar._ship_spool import Spool

FIRST_BACKOFF_SECONDS: Final = 1.0
MOST_BACKOFF_SECONDS: Final = 60.0
SPOOL_NAME: Final = ".push"
_GUARD_SECONDS: Final = 60.0
_LAST_TIMEOUT_SECONDS: Final = 1.0
_JITTER: Final = 0.1
_log = logging.getLogger("calidrift_agent")


@final
class Backoff:
    """How long to leave the analyzer alone after failures in a row.

    Twice as long after each, up to `MOST_BACKOFF_SECONDS`, and at a moment of chance in the
    second half of that, so that many sidecars do not come back together.

    Args:
        draw: A number of chance between two.
    """

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._failures = 0

    def reset(self) -> None:
        """Begin anew."""
        self._failures = 0

    def next(self, at_least: float = 0.0) -> float:
        """Seconds to wait after one more failure.

        Args:
            at_least: What the analyzer asked for.

        Example:
            >>> backoff = Backoff(lambda low, high: high)
            >>> [backoff.next() for _ in range(8)], backoff.next(120.0)
            ([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0], 132.0)
        """
        longest = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 30), MOST_BACKOFF_SECONDS)
        self._failures += 1
        waited = self._draw(longest / 2.0, longest)
        return max(waited, at_least * self._draw(1.0, 1.0 + _JITTER)) if at_least else waited


@final
class Shipper:
    """Looks for new windows at each interval, and once more at the end.

    Args:
        options: Where to, and how often.
        directories: What the sidecar reads.
        figures: Where windows are counted.
        backoff: How long to wait after failures; default: `Backoff()`.

    Raises:
        ConfigurationError: The token file or the CA file cannot be used.
    """

    def __init__(
        self,
        options: ShipOptions,
        directories: tuple[Path, ...],
        figures: ShipFigures,
        backoff: Backoff | None = None,
    ) -> None:
        self._options = options
        self._figures = figures
        self._client = AnalyzerClient(options)
        folder = options.spool or directories[0] / SPOOL_NAME
        self._round = Round(
            directories,
            self._client,
            Spool(folder, options.spool_bytes),
            Ledger(folder, options.url),
            figures,
            self._client if options.captures else None,
        )
        self._backoff = backoff or Backoff()
        self._retry_at = 0.0
        self._failing = False
        self._stopping = threading.Event()
        self._wanted = threading.Event()
        self._rounds = threading.Condition()
        self._begun = self._ended = 0
        self._thread = threading.Thread(target=self._run, name="calidrift-ship", daemon=True)
        _warn_of_plain_token(options)

    def start(self) -> None:
        """Begin to push, at once."""
        self._thread.start()

    def end(self) -> None:
        """Give up what is under way, push once more, and end."""
        self._client.timeout_seconds = min(_LAST_TIMEOUT_SECONDS, self._options.timeout_seconds)
        self._stopping.set()
        self._wanted.set()
        with self._rounds:
            self._rounds.notify_all()
        self._client.interrupt()

    def stop(self, seconds: float) -> None:
        """Wait for the end, or give up after `seconds`; what was not pushed waits on disk."""
        if not self._stopping.is_set():
            self.end()
        self._thread.join(seconds)

    def needed(self, seconds: float = _GUARD_SECONDS) -> Callable[[str], bool] | None:
        """Which files a sweep should leave: those of which something is nowhere else.

        Waits for one whole look at the directories, so that a sweep right after the start of the
        sidecar takes nothing away that is new to it.

        Returns:
            Says of a process whether its file is needed; None where no look was finished in time.
        """
        with self._rounds:
            wanted = self._begun + 1
            self._wanted.set()
            finished = self._rounds.wait_for(
                lambda: self._ended >= wanted or self._stopping.is_set(), seconds
            )
        secured = self._round.secured
        return (lambda process: process not in secured) if finished else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._look(reachable=time.monotonic() >= self._retry_at)
            self._wanted.wait(self._pause())
            self._wanted.clear()
        self._look(reachable=True)

    def _pause(self) -> float:
        interval = self._options.interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)
        until_retry = self._retry_at - time.monotonic()
        return min(interval, until_retry) if until_retry > 0.0 else interval

    def _look(self, *, reachable: bool) -> None:
        with self._rounds:
            self._begun += 1
        error: ShipError | None
        try:
            error = self._round.run(reachable=reachable)
        except Exception as defect:  # the thread has to live
            error = ShipError(PushFailure.SPOOL, f"{type(defect).__name__}: {defect}")
            self._figures.failures[error.kind] += 1
        with self._rounds:
            self._ended = self._begun
            self._rounds.notify_all()
        if error is not None:
            self._retry_at = time.monotonic() + self._backoff.next(error.retry_seconds)
            self._tell_failure(error)
        elif reachable:
            self._backoff.reset()
            if self._failing:
                self._failing = False
                _log.warning("the analyzer takes windows again")

    def _tell_failure(self, error: ShipError) -> None:
        if self._failing or self._stopping.is_set():
            return
        self._failing = True
        _log.warning(
            "windows cannot be pushed to %s (%s); they wait and are tried again",
            self._options.url,
            error,
        )


def _warn_of_plain_token(options: ShipOptions) -> None:
    parts = urlsplit(options.url)
    here = parts.hostname in ("localhost", "::1") or (parts.hostname or "").startswith("127.")
    if options.token_file is not None and parts.scheme == "http" and not here:
        _log.warning("the push token goes to %s unencrypted; use https:// there", options.url)


__all__ = ["Backoff", "Shipper"]
