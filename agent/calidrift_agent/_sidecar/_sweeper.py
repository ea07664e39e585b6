"""Sweeps the files of dead processes, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, final

from calidrift_agent._state import SweepOptions, sweep
from calidrift_agent.errors import StateError

SWEEP_SECONDS: Final = 60.0
_log = logging.getLogger("calidrift_agent")


@final
class Sweeper:
    """Merges and unlinks what dead processes left, once a minute; see `sweep`.

    It may be killed at any moment: no count is lost. Where the directory may not be written, it
    says so once, and leaves the files to the watches, which sweep too.

    Args:
        directories: What to sweep.
        options: How long files stay.
    """

    def __init__(self, directories: Iterable[Path], options: SweepOptions) -> None:
        self._directories = tuple(directories)
        self._options = options
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
            for directory in self._directories:
                self.sweep(directory)
            if self._stopping.wait(SWEEP_SECONDS):
                return

    def sweep(self, directory: Path) -> None:
        """Sweep one directory. Never raises."""
        try:
            report = sweep(directory, self._options, pause_seconds=SWEEP_SECONDS / 2)
            complaints = report.complaints
        except (StateError, OSError) as error:
            complaints = (str(error),)
        except Exception as error:  # the thread has to live
            complaints = (f"{type(error).__name__}: {error}",)
        for complaint in complaints:
            if complaint not in self._told and len(self._told) < 100:
                self._told.add(complaint)
                _log.warning("%s", complaint)
