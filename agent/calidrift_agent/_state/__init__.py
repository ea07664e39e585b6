"""State files: what one process counted, for readers in other processes (numpy only)."""

from calidrift_agent._state._buffer import OVERFLOW_SEGMENT, WindowBuffer
from calidrift_agent._state._meta import PointMeta, StateMeta, boot_id, new_process_id
from calidrift_agent._state._reader import ReadResult, StateReader, scan
from calidrift_agent._state._window import NO_WINDOW, SegmentCount, Window, empty_values
from calidrift_agent._state._writer import StateOptions, StateWriter

__all__ = [
    "NO_WINDOW",
    "OVERFLOW_SEGMENT",
    "PointMeta",
    "ReadResult",
    "SegmentCount",
    "StateMeta",
    "StateOptions",
    "StateReader",
    "StateWriter",
    "Window",
    "WindowBuffer",
    "boot_id",
    "empty_values",
    "new_process_id",
    "scan",
]
