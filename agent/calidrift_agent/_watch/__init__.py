"""Attaching to a model: `watch`, and what it returns."""

from calidrift_agent._attach import WatchOptions
from calidrift_agent._watch._cost import CostEstimate
from calidrift_agent._watch._detection import ReferenceUnits, slowest_detection, units_for
from calidrift_agent._watch._report import AttachReport, Reference
from calidrift_agent._watch._watch import Watch, watch

__all__ = [
    "AttachReport",
    "CostEstimate",
    "Reference",
    "ReferenceUnits",
    "Watch",
    "WatchOptions",
    "slowest_detection",
    "units_for",
    "watch",
]
