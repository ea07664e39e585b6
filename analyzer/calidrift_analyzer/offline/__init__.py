"""Assess recorded inputs instead of production: the same judgement, without a service or a store.

The model runs in a child process, each row of the inputs is one unit, and what it comes to is
judged by `assess`, like windows of production. Nothing is kept.
"""

from calidrift_analyzer.offline._estimates import (
    PREDICTED_LOSS_DB,
    EstimatorOutlook,
    PointOutlook,
    outlooks_of,
)
from calidrift_analyzer.offline._offline import assess_inputs
from calidrift_analyzer.offline._report import OfflineOptions, OfflineReport, OutsideUnit, SegmentBy
from calidrift_analyzer.offline._sources import Source, find_sources

__all__ = [
    "PREDICTED_LOSS_DB",
    "EstimatorOutlook",
    "OfflineOptions",
    "OfflineReport",
    "OutsideUnit",
    "PointOutlook",
    "SegmentBy",
    "Source",
    "assess_inputs",
    "find_sources",
    "outlooks_of",
]
