"""Captures: rows of production traffic, kept within limits, as safetensors (no torch)."""

from calidrift_agent._capture._crowd import Crowd, thin_out
from calidrift_agent._capture._file import (
    Capture,
    CaptureRow,
    decode_capture,
    write_privately,
)
from calidrift_agent._capture._index import CaptureIndex, read_index
from calidrift_agent._capture._options import CaptureOptions
from calidrift_agent._capture._reader import list_captures, read_capture
from calidrift_agent._capture._sealing import SEALED_SUFFIX, KeyRing
from calidrift_agent._capture._writer import CaptureWriter

__all__ = [
    "SEALED_SUFFIX",
    "Capture",
    "CaptureIndex",
    "CaptureOptions",
    "CaptureRow",
    "CaptureWriter",
    "Crowd",
    "KeyRing",
    "decode_capture",
    "list_captures",
    "read_capture",
    "read_index",
    "thin_out",
    "write_privately",
]
