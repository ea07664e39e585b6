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
from calidrift_agent._capture._sealing import SEALED_SUFFIX, KeyRing
from calidrift_agent.errors import CaptureError


def read_capture(path: Path | str) -> Capture:
    """Read one capture; its inclusion takes the index of its directory into account.

    An encrypted one (`.safetensors.fernet`) is decrypted with `CALIDRIFT_CAPTURE_KEYS`.

    Raises:
        CaptureError: Damaged, cut short, foreign, written by a newer version, or encrypted with a
            key that is not here.
    """
    path = Path(path)
    try:
        blob = read_bytes(path)
        if path.name.endswith(SEALED_SUFFIX):
            blob = KeyRing().open(blob)
        capture = decode_capture(blob)
    except CaptureError as error:
        raise CaptureError(f"capture {path}: {error}") from error
    index = read_index(path.parent)
    if index is None:
        return capture
    chosen = index.inclusion(capture.kind, capture.segment, capture.id)
    return replace(capture, inclusion=capture.inclusion * chosen)


def list_captures(directory: Path | str) -> list[Path]:
    """Paths of all complete captures in a directory and below it, encrypted or not, by name.

    A directory that does not exist has none. Files still being written are left out.

    Raises:
        CaptureError: The directory cannot be listed.
    """
    try:
        return sorted(
            path
            for suffix in (CAPTURE_SUFFIX, SEALED_SUFFIX)
            for path in Path(directory).rglob(f"*{suffix}")
            if not path.name.startswith(".")
        )
    except OSError as error:
        raise CaptureError(
            f"capture directory {directory} cannot be listed ({error.strerror})"
        ) from error
