"""Which calls are observed, and how: the sampling gate and the two strategies."""

from calidrift_agent._observe._armed import renew_lock
from calidrift_agent._observe._beside import Beside
from calidrift_agent._observe._context import RequestContext, current_context, request_context
from calidrift_agent._observe._gate import CallCounter, Gate
from calidrift_agent._observe._instead import Instead
from calidrift_agent._observe._intake import Desk, Intake, ObservedCall
from calidrift_agent._observe._sampling import DECISIONS, Sampler
from calidrift_agent._observe._shadow import (
    EdgeShadow,
    GraphShadow,
    Shadow,
    ShadowError,
    edge_inputs,
    why_not_replay,
)

__all__ = [
    "DECISIONS",
    "Beside",
    "CallCounter",
    "Desk",
    "EdgeShadow",
    "Gate",
    "GraphShadow",
    "Instead",
    "Intake",
    "ObservedCall",
    "RequestContext",
    "Sampler",
    "Shadow",
    "ShadowError",
    "current_context",
    "edge_inputs",
    "renew_lock",
    "request_context",
    "why_not_replay",
]
