"""A Prometheus collector for watches of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, final

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from calidrift_agent._export._failures import ScrapeFailures
from calidrift_agent._export._families import (
    SCRAPE_ERRORS,
    ExportSnapshot,
    FamilyTable,
    add_snapshot,
    agent_families,
)
from calidrift_agent._export._shown import ShownPoints
from calidrift_agent.errors import ConfigurationError

MAX_POINTS: Final = 64

SnapshotSource: TypeAlias = Callable[[], ExportSnapshot]


@final
class WatchCollector(Collector):
    """Reports one or several watches to a `prometheus_client` registry.

    Register it once: `REGISTRY.register(watch.collector())`. A registry refuses two collectors
    of the same names, so several watches of one process share one:
    `first.collector().joined_with(second.collector())`.

    A scrape never fails because of it: where figures cannot be collected they are left out, the
    failure is counted in `calidrift_agent_scrape_errors_total` and logged once per kind. It may
    be scraped from several threads at once, as long as its sources may be called so.

    Args:
        sources: Each returns a consistent snapshot of one watch.
        max_points: Points per watch that appear one by one (about 20 series each). Of a model
            with more, the worst ones do, see `ShownPoints`; how many were left out is reported
            in `calidrift_agent_points_omitted`.

    Raises:
        ConfigurationError: `max_points` is negative.

    Cost: 64 points take 1.4 ms to collect and 7 ms more for `prometheus_client` to render
    (measured), in Python, holding the interpreter lock. Render large models in a sidecar.
    """

    def __init__(self, *sources: SnapshotSource, max_points: int = MAX_POINTS) -> None:
        if max_points < 0:
            raise ConfigurationError(f"max_points must be 0 or more, got {max_points}")
        self._sources = sources
        self._max_points = max_points
        self._shown = [ShownPoints(max_points) for _ in sources]
        self._failures = ScrapeFailures()

    def joined_with(self, *others: WatchCollector) -> WatchCollector:
        """One collector for the watches of this one and of others."""
        sources = [*self._sources, *(source for other in others for source in other._sources)]
        return WatchCollector(*sources, max_points=self._max_points)

    def describe(self) -> Iterable[Family]:
        """Names of everything that may be reported, so that registering does not collect."""
        return agent_families()

    def collect(self) -> Iterable[Family]:
        """All families that have data. Never raises."""
        table = FamilyTable()
        for source, shown in zip(self._sources, self._shown, strict=True):
            try:
                # Aside first: a watch that fails half-way leaves nothing half-reported.
                own = FamilyTable()
                snapshot = source()
                with self._failures.lock:
                    rows = shown.rows(snapshot)
                add_snapshot(own, snapshot, rows)
                table.absorb(own)
            except Exception as error:
                self._failures.add(type(error).__name__, error)
        table.number(SCRAPE_ERRORS, (), self._failures.number)
        return table.families()
