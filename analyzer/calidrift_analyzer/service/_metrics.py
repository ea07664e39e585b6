"""`/metrics` of the analyzer, from the board: a scrape never waits for the database."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Final, final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from calidrift_agent._export import metric
from calidrift_analyzer.records import ModelAssessment, PointAssessment, alarm_in_force
from calidrift_analyzer.service._board import Board

__all__ = ["AnalyzerCollector", "JobDurations", "analyzer_registry"]

_BUCKETS: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1_800.0, 7_200.0)
_LARGEST_EXPONENT: Final = 308.0
_MOST_SEGMENTS: Final = 64
_POINT_FIGURES: Final = (
    "calidrift_coverage_ratio",
    "calidrift_sqnr_db",
    "calidrift_sqnr_change_db",
    "calidrift_clipped_energy_ratio",
    "calidrift_drift_evidence",
)


@final
class JobDurations:
    """How long tasks and recalibrations took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        known = metric("calidrift_analyzer_job_duration_seconds")
        self._histogram = Histogram(
            known.name, known.help, known.labels, registry=registry, buckets=_BUCKETS
        )

    def note(self, job: str, seconds: float) -> None:
        """Note one."""
        self._histogram.labels(job).observe(seconds)


@final
class AnalyzerCollector(Collector):
    """The figures of the analyzer; what is not known has no sample.

    Args:
        board: Where they are.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def describe(self) -> Iterable[Family]:
        """Promise nothing: figures exist only once there are data."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Give the families that have samples."""
        for family in (*self._of_models(), *self._of_service()):
            if family.samples:
                yield family

    def _of_models(self) -> list[Family]:
        points = {name: _gauge(name) for name in _POINT_FIGURES}
        coverage = _gauge("calidrift_request_coverage_ratio")
        alarm = _gauge("calidrift_drift_alarm")
        levels = _gauge("calidrift_service_level_alarm")
        segments = _gauge("calidrift_segment_alarm")
        harm = _gauge("calidrift_harm_alarm")
        detectable = _gauge("calidrift_detectable_exceedance_ratio")
        detection = _gauge("calidrift_detection_seconds")
        for model, (_, one) in self._board.latest().items():
            for point in one.points:
                for name, value in _figures(point):
                    _add(points[name], (model, point.name), value)
            found = one.request_coverage
            _add(coverage, (model,), None if found is None else found.estimate)
            _add(alarm, (model,), _alarm(one))
            _add(harm, (model,), None if one.harm is None else _standing(one, one.harm.breach))
            for level in one.service_levels[: _MOST_SEGMENTS + 1]:
                family = levels if level.segment is None else segments
                labels = (model,) if level.segment is None else (model, level.segment)
                if level.tolerance < 1.0 or level.breach:  # else it cannot break, whatever comes
                    _add(family, labels, _standing(one, level.breach))
            _add(detectable, (model,), one.detectable_exceedance)
            _add(detection, (model,), self._board.seconds_to_detect(model))
        alarms = (alarm, levels, segments, harm)
        return [*points.values(), coverage, *alarms, detectable, detection]

    def _of_service(self) -> list[Family]:
        figures = self._board.figures()
        recalibrations = _counter("calidrift_recalibrations_total")
        for (model, state), jobs in figures.outcomes.items():
            recalibrations.add_metric((model, state.value), jobs)
        revalidated = _gauge("calidrift_analyzer_revalidation_timestamp_seconds")
        for model, (state, ended_ns) in figures.revalidations.items():
            _add(revalidated, (model, state.value), ended_ns / 1e9)
        at_work = _gauge("calidrift_analyzer_open_jobs")
        for (model, state), jobs in figures.open_jobs.items():
            _add(at_work, (model, state.value), jobs)
        deployed = _counter("calidrift_analyzer_deploy_total")
        for (model, outcome), moves in figures.deployments.items():
            deployed.add_metric((model, outcome.value), moves)
        lag = _gauge("calidrift_analyzer_ingest_lag_seconds")
        for model, last_ns in figures.last_window_ns.items():
            _add(lag, (model,), max(0.0, (time.time_ns() - last_ns) / 1e9))
        rows = _counter("calidrift_analyzer_ingested_rows_total")
        for model, count in self._board.rows().items():
            rows.add_metric((model,), count)
        ahead = _counter("calidrift_analyzer_dated_back_windows_total")
        for model, count in self._board.dated_back().items():
            ahead.add_metric((model,), count)
        success = _gauge("calidrift_analyzer_task_last_success_timestamp_seconds")
        runs = _counter("calidrift_analyzer_task_runs_total")
        for task in figures.tasks:
            if task.last_success_ns is not None:
                _add(success, (task.task,), task.last_success_ns / 1e9)
            runs.add_metric((task.task, "failed"), task.failures)
            runs.add_metric((task.task, "done"), task.runs - task.failures)
        size = _gauge("calidrift_analyzer_store_bytes")
        _add(size, (), figures.store_bytes)
        return [
            recalibrations,
            revalidated,
            at_work,
            deployed,
            lag,
            rows,
            ahead,
            success,
            runs,
            size,
        ]


def analyzer_registry(board: Board) -> tuple[CollectorRegistry, JobDurations]:
    """Give the registry of a service's `/metrics`, and where durations are noted."""
    registry = CollectorRegistry()
    registry.register(AnalyzerCollector(board))
    return registry, JobDurations(registry)


def _figures(point: PointAssessment) -> Iterator[tuple[str, float | None]]:
    yield "calidrift_coverage_ratio", None if point.coverage is None else point.coverage.estimate
    yield "calidrift_sqnr_db", point.sqnr_production_db
    yield "calidrift_sqnr_change_db", point.sqnr_change_db
    yield "calidrift_clipped_energy_ratio", point.clipped_energy
    evidence = point.log10_evidence_now
    yield (
        "calidrift_drift_evidence",
        None if evidence is None else 10.0 ** min(evidence, _LARGEST_EXPONENT),
    )


def _alarm(assessment: ModelAssessment) -> float | None:
    """1 while an alarm stands that nobody has muted; nothing where none could be raised."""
    if not assessment.service_levels and not any(
        point.log10_evidence is not None for point in assessment.points
    ):
        return None
    return 0.0 if alarm_in_force(assessment) is None else 1.0


def _standing(assessment: ModelAssessment, breach: object) -> float:
    """1 while a breach of all traffic, a segment or harm stands; a mute of the model takes it."""
    return 1.0 if breach is not None and assessment.muted is None else 0.0


def _gauge(name: str) -> GaugeMetricFamily:
    known = metric(name)
    return GaugeMetricFamily(known.name, known.help, labels=known.labels)


def _counter(name: str) -> CounterMetricFamily:
    known = metric(name)
    return CounterMetricFamily(known.name, known.help, labels=known.labels)


def _add(family: GaugeMetricFamily, labels: tuple[str, ...], value: float | None) -> None:
    if value is not None and not math.isnan(value):
        family.add_metric(labels, value)
