"""Metrics: the one catalogue, and the collector for a Prometheus registry (no torch)."""

from calidrift_agent._export._catalogue import CATALOGUE, Emitter, Metric, MetricType, metric
from calidrift_agent._export._collector import SnapshotSource, WatchCollector
from calidrift_agent._export._families import ExportSnapshot

__all__ = [
    "CATALOGUE",
    "Emitter",
    "ExportSnapshot",
    "Metric",
    "MetricType",
    "SnapshotSource",
    "WatchCollector",
    "metric",
]
