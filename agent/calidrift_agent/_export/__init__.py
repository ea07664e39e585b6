"""Metrics: the one catalogue, and the collector for a Prometheus registry (no torch)."""

from calidrift_agent._export._catalogue import CATALOGUE, metric
from calidrift_agent._export._collector import MAX_POINTS, SnapshotSource, WatchCollector
from calidrift_agent._export._directory import ModelSource, StateDirectoryCollector
from calidrift_agent._export._families import ExportSnapshot, LivingFigures
from calidrift_agent._export._metric import Emitter, Metric, MetricType
from calidrift_agent._export._series import series_of

__all__ = [
    "CATALOGUE",
    "MAX_POINTS",
    "Emitter",
    "ExportSnapshot",
    "LivingFigures",
    "Metric",
    "MetricType",
    "ModelSource",
    "SnapshotSource",
    "StateDirectoryCollector",
    "WatchCollector",
    "metric",
    "series_of",
]
