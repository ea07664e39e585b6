"""A Prometheus collector for all workers that share a state directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, final

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from calidrift_agent._export._collector import MAX_POINTS
from calidrift_agent._export._failures import ScrapeFailures
from calidrift_agent._export._families import (
    SCRAPE_ERRORS,
    ExportSnapshot,
    FamilyTable,
    LivingFigures,
    add_snapshot,
    agent_families,
)
from calidrift_agent._export._shown import ShownPoints
from calidrift_agent._state import ModelState, ShownLog, StateDirectory
from calidrift_agent.errors import ConfigurationError


class ModelSource(Protocol):
    """What a collector reads: a `StateDirectory`, or several as one (`StateDirectories`)."""

    @property
    def damaged(self) -> tuple[str, ...]:
        """What could not be read the last time, one sentence each."""
        ...

    @property
    def folders(self) -> tuple[Path, ...]:
        """The directories, where the choice of points is kept."""
        ...

    def read(self) -> tuple[ModelState, ...]:
        """All models at one moment."""
        ...


@final
class StateDirectoryCollector(Collector):
    """Reports all processes that use one state directory to a `prometheus_client` registry.

    For servers with several workers: whichever of them answers the scrape, or a sidecar, it
    reports for all. Register it once, in place of `watch.collector()`, which knows one process:
    `REGISTRY.register(calidrift_agent.StateDirectoryCollector("/run/calidrift"))`. It may be made
    before the workers are forked.

    Per model, counters are sums over all processes, living, dead and swept, so they do not go down
    when a worker is restarted or killed. `calidrift_activation_absmax` is the largest of windows
    of the last two minutes, also of a worker that died since. The sampling ratio is the mean of
    the living workers, the age of the state that of the worker that wrote longest ago. What a
    worker counted in the last second (`WatchOptions.drain_seconds`) is not in its file yet.

    A scrape never fails because of it: where the directory cannot be read, its figures are left
    out, and the failure is counted in `calidrift_agent_scrape_errors_total`. It may be scraped
    from several threads at once.

    Args:
        directory: The `state_dir` of the watches; it need not exist yet. Or a reader of one or
            several such folders.
        max_points: Points per model that appear one by one, see `ShownPoints`. Which of a larger
            model do is kept in the directory, so that all collectors of it show the same ones.

    Raises:
        ConfigurationError: `max_points` is negative.

    Example:
        >>> StateDirectoryCollector("/nobody/uses/this").collect()[0].name
        'calidrift_agent_scrape_errors'
    """

    def __init__(
        self, directory: Path | str | ModelSource, *, max_points: int = MAX_POINTS
    ) -> None:
        if max_points < 0:
            raise ConfigurationError(f"max_points must be 0 or more, got {max_points}")
        self._directory: ModelSource = (
            StateDirectory(directory) if isinstance(directory, Path | str) else directory
        )
        self._shown = ShownPoints(max_points, ShownLog(self._directory.folders))
        self._failures = ScrapeFailures()

    def describe(self) -> Iterable[Family]:
        """Names of everything that may be reported, so that registering does not collect."""
        return agent_families()

    def collect(self) -> list[Family]:
        """All families that have data. Never raises."""
        table = FamilyTable()
        try:
            models = self._directory.read()
        except Exception as error:
            self._failures.add(type(error).__name__, error)
            models = ()
        else:
            for complaint in self._directory.damaged[:1]:
                self._failures.add("damaged", complaint)
        for model in models:
            try:
                own = FamilyTable()
                snapshot = _snapshot(model)
                with self._failures.lock:
                    rows = self._shown.rows(snapshot)
                add_snapshot(own, snapshot, rows)
                table.absorb(own)
            except Exception as error:
                self._failures.add(type(error).__name__, error)
        table.number(SCRAPE_ERRORS, (), self._failures.number)
        return table.families()


def _snapshot(model: ModelState) -> ExportSnapshot:
    return ExportSnapshot(
        meta=model.meta,
        total=model.total,
        recent_absmax=model.recent_absmax,
        state_age_seconds=model.age_seconds,
        living=LivingFigures(
            model.points_expected, model.points_observed, model.states, model.present
        ),
    )
