"""State files: what one process counted, for readers in other processes (numpy only)."""

from calidrift_agent._state._buffer import OVERFLOW_SEGMENT, WindowBuffer
from calidrift_agent._state._directories import StateDirectories
from calidrift_agent._state._directory import ModelState, StateDirectory
from calidrift_agent._state._figures import ReferenceFigures
from calidrift_agent._state._meta import PointMeta, StateMeta, boot_id, new_process_id
from calidrift_agent._state._reader import ReadResult, StateReader, scan
from calidrift_agent._state._shown import ShownLog, admitted
from calidrift_agent._state._sweep import SweepOptions, SweepReport, sweep
from calidrift_agent._state._window import (
    NO_WINDOW,
    SegmentCount,
    Window,
    empty_values,
    flag_of,
    state_of,
)
from calidrift_agent._state._wire import (
    MAX_PUSH_CAPTURES,
    MAX_PUSH_ROWS,
    PUSH_MEDIA_TYPE,
    Push,
    PushedCapture,
    decode_push,
    encode_push,
    push_parts,
)
from calidrift_agent._state._writer import StateOptions, StateWriter

__all__ = [
    "MAX_PUSH_CAPTURES",
    "MAX_PUSH_ROWS",
    "NO_WINDOW",
    "OVERFLOW_SEGMENT",
    "PUSH_MEDIA_TYPE",
    "ModelState",
    "PointMeta",
    "Push",
    "PushedCapture",
    "ReadResult",
    "ReferenceFigures",
    "SegmentCount",
    "ShownLog",
    "StateDirectories",
    "StateDirectory",
    "StateMeta",
    "StateOptions",
    "StateReader",
    "StateWriter",
    "SweepOptions",
    "SweepReport",
    "Window",
    "WindowBuffer",
    "admitted",
    "boot_id",
    "decode_push",
    "empty_values",
    "encode_push",
    "flag_of",
    "new_process_id",
    "push_parts",
    "scan",
    "state_of",
    "sweep",
]
