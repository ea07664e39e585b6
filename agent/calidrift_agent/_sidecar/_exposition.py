"""One reading of the state directories for everybody who asks within a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from calidrift_agent._export import StateDirectoryCollector
from calidrift_agent._sidecar._options import SidecarOptions
from calidrift_agent._sidecar._ship_figures import OwnFigures
from calidrift_agent._state import ModelState, StateDirectories

CACHE_SECONDS: Final = 1.0
"""As long as a reading is good: watches write once a second at the most."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What the state directories said at one moment.

    Attributes:
        at_ns: When, UTC nanoseconds.
        models: The models with their sketches.
        families: The same as Prometheus families, under the names of the catalogue. Not to be
            changed: others read them too.
    """

    at_ns: int
    models: tuple[ModelState, ...]
    families: tuple[Family, ...]


@final
class Exposition(Collector):
    """Reads state directories at most once a second, from however many threads it is asked.

    It never raises: what cannot be read is left out and counted in
    `calidrift_agent_scrape_errors_total`.

    Args:
        options: The directories, and how many points appear.
        pushes: What is counted about pushes; None where nothing is pushed.
        clock: Seconds on a clock that is never set.
    """

    def __init__(
        self,
        options: SidecarOptions,
        pushes: OwnFigures | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = _Kept(StateDirectories(options.directories))
        self._collector = StateDirectoryCollector(self._source, max_points=options.max_points)
        self._pushes = pushes
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._read_at = 0.0

    def reading(self) -> Reading:
        """The current reading, at most `CACHE_SECONDS` old."""
        with self._lock:
            known = self._reading
            if known is None or self._clock() - self._read_at >= CACHE_SECONDS:
                known = self._reading = self._read()
                self._read_at = self._clock()
            return known

    def describe(self) -> Iterable[Family]:
        """Names of everything that may be reported, so that registering does not read."""
        own = [] if self._pushes is None else self._pushes.families()
        return [*self._collector.describe(), *own]

    def collect(self) -> list[Family]:
        """All families that have data. Never raises."""
        return list(self.reading().families)

    def text(self) -> str:
        """The exposition in the Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry).decode()

    def document(self) -> dict[str, object]:
        """The exposition for a machine that reads JSON."""
        return {
            "metrics": [
                {
                    "name": family.name,
                    "type": family.type,
                    "help": family.documentation,
                    "samples": [
                        {"name": sample.name, "labels": sample.labels, "value": sample.value}
                        for sample in family.samples
                    ],
                }
                for family in self.collect()
            ]
        }

    def _read(self) -> Reading:
        families = self._collector.collect()
        if self._pushes is not None:
            families = [*families, *self._pushes.families()]
        return Reading(time.time_ns(), self._source.models, tuple(families))


@final
class _Kept:
    """Keeps what was read last, so that sketches and families are of the same moment."""

    def __init__(self, directories: StateDirectories) -> None:
        self._directories = directories
        self.models: tuple[ModelState, ...] = ()

    @property
    def damaged(self) -> tuple[str, ...]:
        return self._directories.damaged

    @property
    def folders(self) -> tuple[Path, ...]:
        return self._directories.folders

    def read(self) -> tuple[ModelState, ...]:
        self.models = ()  # nothing old, should this fail
        self.models = self._directories.read()
        return self.models
