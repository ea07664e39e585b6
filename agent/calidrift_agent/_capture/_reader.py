"""Reads captures in another process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calidrift_agent._capture._file import (
    CAPTURE_SUFFIX,
    Capture,
    decode_capture,
    read_bytes,
)
from calidrift_agent._capture._index import read_index
from calidrift_agent.errors import CaptureError


def read_capture(path: Path | str) -> Capture:
    """Read one capture; its inclusion takes the index of its directory into account.

    Raises:
        CaptureError: Damaged, cut short, foreign, or written by a newer version.
    """
    path = Path(path)
    try:
        capture = decode_capture(read_bytes(path))
    except CaptureError as error:
        raise CaptureError(f"capture {path}: {error}") from error
    index = read_index(path.parent)
    if index is None:
        return capture
    return replace(capture, inclusion=capture.inclusion * index.inclusion(capture.kind))


def list_captures(directory: Path | str) -> list[Path]:
    """Paths of all complete captures in a directory and below it, by name.

    A directory that does not exist has none. Files still being written are left out.

    Raises:
        CaptureError: The directory cannot be listed.
    """
    try:
        return sorted(
            path
            for path in Path(directory).rglob(f"*{CAPTURE_SUFFIX}")
            if not path.name.startswith(".")
        )
    except OSError as error:
        raise CaptureError(
            f"capture directory {directory} cannot be listed ({error.strerror})"
        ) from error
