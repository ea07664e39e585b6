"""How many Prometheus series a watch may have, from the catalogue alone."""

from __future__ import annotations

from math import prod
from typing import Final

from calidrift_agent._export._catalogue import CATALOGUE
from calidrift_agent._export._collector import MAX_POINTS
from calidrift_agent._export._metric import Emitter, Metric, MetricType
from calidrift_agent._vocabulary import RATIO_BOUNDS, AgentState, DropReason, Stage

_VALUES: Final = {
    "rail": 2,
    "kind": 2,
    "stage": len(Stage),
    "reason": len(DropReason),
    "state": len(AgentState),
}
"""Number of values of a label; every label that is not here has one per process."""


def series_of(points: int) -> int:
    """Most series that one process reports for a watched model of so many points.

    What has no data is not reported, so there are usually fewer.

    Example:
        >>> series_of(10) > series_of(1) > 0
        True
        >>> series_of(1000) == series_of(64)
        True
    """
    shown = min(points, MAX_POINTS)
    return sum(_series(metric, shown) for metric in CATALOGUE if metric.emitter is Emitter.AGENT)


def _series(metric: Metric, points: int) -> int:
    labels = prod(_VALUES.get(label, 1) for label in metric.labels if label != "point")
    # A histogram has one series per bucket, the one without a bound included, a count and a sum.
    each = len(RATIO_BOUNDS) + 3 if metric.type is MetricType.HISTOGRAM else 1
    return labels * each * (points if "point" in metric.labels else 1)
