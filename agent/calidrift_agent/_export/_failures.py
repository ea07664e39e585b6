"""What went wrong in scrapes: counted, logged once per kind, never raised."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import final

_log = logging.getLogger("calidrift_agent")


@final
class ScrapeFailures:
    """Counts failed scrapes, from any thread and in any forked child.

    Attributes:
        number: Failures so far.
    """

    def __init__(self) -> None:
        self.number = 0
        self._logged: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def lock(self) -> threading.Lock:
        """For everything that only one scrape may do at a time; a forked child has its own."""
        if self._pid != os.getpid():
            self._begin()  # it may be held by a thread that the child does not have
        return self._lock

    def add(self, kind: str, what: object) -> None:
        """Count one, and log it if it is the first of its kind."""
        with self.lock:
            self.number += 1
            first = kind not in self._logged
            self._logged.add(kind)
        if first:
            with suppress(Exception):
                _log.warning("calidrift: figures of a watch could not be collected (%s)", what)
