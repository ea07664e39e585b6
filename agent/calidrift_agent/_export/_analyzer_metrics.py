"""What the analyzer reports on itself; a part of the catalogue."""

from __future__ import annotations

from typing import Final

from calidrift_agent._export._metric import Emitter, Metric, MetricType

ANALYZER_METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "calidrift_analyzer_ingest_lag_seconds",
        "calidrift.analyzer.ingest_lag",
        MetricType.GAUGE,
        "s",
        ("model",),
        Emitter.ANALYZER,
        "Age of the newest window in the store.",
    ),
    Metric(
        "calidrift_analyzer_ingested_rows_total",
        "calidrift.analyzer.ingested_rows",
        MetricType.COUNTER,
        "{row}",
        ("model",),
        Emitter.ANALYZER,
        "Rows of windows written to the store.",
    ),
    Metric(
        "calidrift_analyzer_dated_back_windows_total",
        "calidrift.analyzer.dated_back_windows",
        MetricType.COUNTER,
        "{window}",
        ("model",),
        Emitter.ANALYZER,
        "Pushed windows that ended ahead of the analyzer's clock, dated back to it.",
    ),
    Metric(
        "calidrift_analyzer_job_duration_seconds",
        "calidrift.analyzer.job_duration",
        MetricType.HISTOGRAM,
        "s",
        ("task",),  # not `job`: Prometheus gives every target a label of that name
        Emitter.ANALYZER,
        "How long tasks of the analyzer took.",
    ),
    Metric(
        "calidrift_analyzer_store_bytes",
        "calidrift.analyzer.store_size",
        MetricType.GAUGE,
        "By",
        (),
        Emitter.ANALYZER,
        "Size of the store on disk.",
    ),
    Metric(
        "calidrift_analyzer_open_jobs",
        "calidrift.analyzer.open_jobs",
        MetricType.GAUGE,
        "{job}",
        ("model", "state"),
        Emitter.ANALYZER,
        "Recalibration jobs that have not ended, by state.",
    ),
    Metric(
        "calidrift_analyzer_deploy_total",
        "calidrift.analyzer.deployments",
        MetricType.COUNTER,
        "{move}",
        ("model", "outcome"),
        Emitter.ANALYZER,
        "Promotions and rollbacks that a hook told to a deployment system, by outcome.",
    ),
    Metric(
        "calidrift_analyzer_task_runs_total",
        "calidrift.analyzer.task_runs",
        MetricType.COUNTER,
        "{run}",
        ("task", "outcome"),
        Emitter.ANALYZER,
        "Runs of the tasks of the schedule, by outcome.",
    ),
    Metric(
        "calidrift_analyzer_task_last_success_timestamp_seconds",
        "calidrift.analyzer.task_last_success",
        MetricType.GAUGE,
        "s",
        ("task",),
        Emitter.ANALYZER,
        "When a task of the schedule last did what it should, Unix time.",
    ),
    Metric(
        "calidrift_analyzer_revalidation_timestamp_seconds",
        "calidrift.analyzer.revalidation_time",
        MetricType.GAUGE,
        "s",
        ("model", "outcome"),
        Emitter.ANALYZER,
        "When the last re-validation of what serves ended, Unix time, with its outcome.",
    ),
)
