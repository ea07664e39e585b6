"""Sweeps the files of dead processes, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias, final

from calidrift_agent._state import SweepOptions, sweep
from calidrift_agent.errors import StateError

SWEEP_SECONDS: Final = 60.0
_log = logging.getLogger("calidrift_agent")

Needed: TypeAlias = Callable[[str], bool]


@final
class Sweeper:
    """Merges and unlinks what dead processes left, once a minute; see `sweep`.

    It may be killed at any moment: no count is lost. Where the directory may not be written, it
    says so once, and leaves the files to the watches, which sweep too.

    Args:
        directories: What to sweep.
        options: How long files stay.
        guard: Asked before each sweep: says of which processes the files are needed, see `sweep`;
            where it gives None, that sweep is left out.
    """

    def __init__(
        self,
        directories: Iterable[Path],
        options: SweepOptions,
        guard: Callable[[], Needed | None] | None = None,
    ) -> None:
        self._directories = tuple(directories)
        self._options = options
        self._guard = guard
        self._stopping = threading.Event()
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="calidrift-sweep", daemon=True)

    def start(self) -> None:
        """Begin, with a sweep at once."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other sweep; one that is under way is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        while True:
            needed = None if self._guard is None else self._guard()
            if self._guard is None or needed is not None:
                for directory in self._directories:
                    self.sweep(directory, needed)
            if self._stopping.wait(SWEEP_SECONDS):
                return

    def sweep(self, directory: Path, needed: Needed | None = None) -> None:
        """Sweep one directory. Never raises."""
        try:
            report = sweep(directory, self._options, pause_seconds=SWEEP_SECONDS / 2, needed=needed)
            complaints = report.complaints
        except (StateError, OSError) as error:
            complaints = (str(error),)
        except Exception as error:  # the thread has to live
            complaints = (f"{type(error).__name__}: {error}",)
        for complaint in complaints:
            if complaint not in self._told and len(self._told) < 100:
                self._told.add(complaint)
                _log.warning("%s", complaint)
