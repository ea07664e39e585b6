"""Attaching to a model: `watch`, and what it returns."""

from calidrift_agent._watch._options import WatchOptions
from calidrift_agent._watch._report import AttachReport, Reference
from calidrift_agent._watch._watch import Watch, watch

__all__ = ["AttachReport", "Reference", "Watch", "WatchOptions", "watch"]
