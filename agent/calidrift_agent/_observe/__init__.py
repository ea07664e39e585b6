"""Which calls are observed, and how: the sampling gate and the two strategies."""

from calidrift_agent._observe._armed import renew_lock
from calidrift_agent._observe._arrays import ArrayReader
from calidrift_agent._observe._beside import Beside, CallReader
from calidrift_agent._observe._checked_session import (
    FLOAT_NOISE,
    QUANTIZED_NOISE,
    CheckedSession,
)
from calidrift_agent._observe._compare import Comparison, compare_outputs, first_tensor
from calidrift_agent._observe._context import (
    RequestContext,
    current_context,
    keep_own_blocks,
    request_context,
)
from calidrift_agent._observe._decider import Decider
from calidrift_agent._observe._edges import EdgeShadow, InputNames, edge_inputs, graph_reader
from calidrift_agent._observe._frames import SEES_COMPILED_CALLS
from calidrift_agent._observe._gate import CallCounter, Gate, Seat
from calidrift_agent._observe._guard import SideEffectGuard
from calidrift_agent._observe._instead import Instead
from calidrift_agent._observe._intake import NOTHING, Desk, Intake, Keep, ObservedCall
from calidrift_agent._observe._module_shadow import ModuleShadow
from calidrift_agent._observe._outlook import Outlook, View
from calidrift_agent._observe._outside import compiled_from, compiled_with_layers
from calidrift_agent._observe._probe import why_not_copy
from calidrift_agent._observe._rails import ClipShadow, CodeShadow
from calidrift_agent._observe._reference import ReferenceModel
from calidrift_agent._observe._replay import ShadowError, one_row
from calidrift_agent._observe._sampling import DECISIONS, SALT_BYTES, Sampler
from calidrift_agent._observe._session_shadow import SessionShadow
from calidrift_agent._observe._shadow import (
    GraphShadow,
    Shadow,
    why_not_replay,
)
from calidrift_agent._observe._steps import STEP_LIMIT, Request, Steps
from calidrift_agent._observe._twin import is_compiled

__all__ = [
    "DECISIONS",
    "FLOAT_NOISE",
    "NOTHING",
    "QUANTIZED_NOISE",
    "SALT_BYTES",
    "SEES_COMPILED_CALLS",
    "STEP_LIMIT",
    "ArrayReader",
    "Beside",
    "CallCounter",
    "CallReader",
    "CheckedSession",
    "ClipShadow",
    "CodeShadow",
    "Comparison",
    "Decider",
    "Desk",
    "EdgeShadow",
    "Gate",
    "GraphShadow",
    "InputNames",
    "Instead",
    "Intake",
    "Keep",
    "ModuleShadow",
    "ObservedCall",
    "Outlook",
    "ReferenceModel",
    "Request",
    "RequestContext",
    "Sampler",
    "Seat",
    "SessionShadow",
    "Shadow",
    "ShadowError",
    "SideEffectGuard",
    "Steps",
    "View",
    "compare_outputs",
    "compiled_from",
    "compiled_with_layers",
    "current_context",
    "edge_inputs",
    "first_tensor",
    "graph_reader",
    "is_compiled",
    "keep_own_blocks",
    "one_row",
    "renew_lock",
    "request_context",
    "why_not_copy",
    "why_not_replay",
]
