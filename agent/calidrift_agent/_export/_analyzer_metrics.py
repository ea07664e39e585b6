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
        "calidrift_analyzer_job_duration_seconds",
        "calidrift.analyzer.job_duration",
        MetricType.HISTOGRAM,
        "s",
        ("job",),
        Emitter.ANALYZER,
        "How long analyzer jobs took.",
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
)
