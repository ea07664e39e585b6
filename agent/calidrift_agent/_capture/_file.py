"""One capture as a safetensors file: tensors of one row, and text beside them. Never pickle.

Tensors: `input:<name>` per input and `maxima`, float32 (P,). Text, all strings: `format`,
`version`, `id`, `model`, `profile`, `points` (JSON list), `points_digest`, `time_ns`, `segment`,
`session` (a digest), `kind`, `inclusion`, `row`, `bfloat16` (JSON list of the inputs whose
uint16 words are bfloat16 bit patterns, a type that numpy does not have).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from calidrift_agent._capture._options import Inputs
from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import CaptureError

CAPTURE_SUFFIX: Final = ".safetensors"
_FORMAT: Final = "calidrift-capture"
_VERSION: Final = 1
_INPUT: Final = "input:"
_MAXIMA: Final = "maxima"
_LENGTH: Final = struct.Struct("<Q")
_MAX_FILE_BYTES: Final = 2**31
_ID: Final = re.compile(r"[0-9a-f]{32}")
_DTYPES: Final = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


@final
@dataclass(frozen=True, slots=True)
class CaptureRow:
    """One observed row that may be kept.

    Attributes:
        inputs: The model's inputs cut to this row, by name. bfloat16 tensors come as their
            uint16 bit patterns and are named in `bfloat16`.
        maxima: float32 (P,), largest magnitude of this row per point.
        uncovered: Whether a maximum exceeded its observed bound.
        time_ns: When the request came, UTC nanoseconds.
        segment: Segment of the request, "" for none.
        session: Session of the request, "" for none; only a digest of it is written.
        inclusion: Probability with which this row was observed, in (0, 1].
        row: Index of the row inside its batch.
        bfloat16: Names of the inputs that are bfloat16 bit patterns.
    """

    inputs: Inputs
    maxima: NDArray[np.float32]
    uncovered: bool
    time_ns: int
    segment: str = ""
    session: str = ""
    inclusion: float = 1.0
    row: int = 0
    bfloat16: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """One kept row, as read from its file.

    Attributes:
        id: Random name of the capture.
        model: Name given to `watch`.
        profile: Digest of the profile that was in force, "" without one.
        points: Names of the points, in the order of `maxima`.
        inputs: The model's inputs, by name.
        maxima: float32 (P,).
        time_ns: When the request came, UTC nanoseconds.
        segment: Segment of the request, "" for none.
        session: Digest of the session, "" for none.
        kind: Store it belongs to.
        inclusion: Probability with which this row was observed *and* is in its store. For
            `UNCOVERED` an upper bound once that store was full: never estimate population
            figures from it.
        row: Index of the row inside its batch.
        bfloat16: Names of the inputs whose uint16 words are bfloat16 bit patterns.
    """

    id: str
    model: str
    profile: str
    points: tuple[str, ...]
    inputs: Inputs
    maxima: NDArray[np.float32]
    time_ns: int
    segment: str
    session: str
    kind: CaptureKind
    inclusion: float
    row: int
    bfloat16: tuple[str, ...]

    def as_float32(self, name: str) -> NDArray[np.float32]:
        """The input `name` as float32 (exact for bfloat16 and float16)."""
        array = self.inputs[name]
        if name in self.bfloat16:
            widened: NDArray[np.uint32] = array.astype(np.uint32) << np.uint32(16)
            return widened.view(np.float32)
        return array.astype(np.float32)


def points_digest(points: tuple[str, ...]) -> str:
    """SHA-256 of the names of the points, in order."""
    return hashlib.sha256("\n".join(points).encode()).hexdigest()


def is_suitable(inputs: Mapping[str, object]) -> bool:
    """Whether there is something to keep and all of it is of a kind that the file can hold."""
    return bool(inputs) and all(
        str(name).isprintable()  # a redaction may name them as it likes
        and isinstance(array, np.ndarray)
        and array.dtype.name in _DTYPES
        for name, array in inputs.items()
    )


def encode_capture(row: CaptureRow, inputs: Inputs, header: Mapping[str, str]) -> bytes:
    """The bytes of a capture file.

    Args:
        row: What is kept.
        inputs: What of its inputs may be kept.
        header: `id`, `kind`, `model`, `profile`, `points` and `points_digest`.
    """
    # safetensors writes the memory of an array as it lies: a transposed one would come back wrong.
    tensors = {
        f"{_INPUT}{name}": np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(
            array.shape
        )
        for name, array in inputs.items()
    }
    tensors[_MAXIMA] = np.ascontiguousarray(row.maxima, np.float32)
    kept = [name for name in row.bfloat16 if name in inputs]
    session = hashlib.blake2b(row.session.encode(errors="replace"), digest_size=8).hexdigest()
    text = {
        **header,
        "format": _FORMAT,
        "version": str(_VERSION),
        "time_ns": str(row.time_ns),
        "segment": row.segment.encode(errors="replace").decode(),
        "session": session if row.session else "",
        "inclusion": repr(float(row.inclusion)),
        "row": str(row.row),
        "bfloat16": json.dumps(kept),
    }
    return safetensors.numpy.save(tensors, metadata=text)


def write_privately(path: Path, blob: bytes) -> None:
    """Write a file of mode 0600 that is either complete under its name or not there.

    Raises:
        OSError: It could not be written; nothing is left behind.
    """
    _make_privately(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(temporary, flags, 0o600)
        try:
            view = memoryview(blob)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _make_privately(folder: Path) -> None:
    """Make a folder and those above it; `mkdir(parents=True)` leaves the latter to the umask."""
    if not folder.is_dir():
        _make_privately(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def decode_capture(blob: bytes) -> Capture:
    """Read what `encode_capture` made; `inclusion` is that of the observation alone.

    Raises:
        CaptureError: Damaged, cut short, foreign, or written by a newer version.
    """
    text = _metadata(blob)
    if text.get("format") != _FORMAT:
        raise CaptureError("not a calidrift capture (a safetensors file of another kind)")
    try:
        version = int(text["version"])
        if version < 1:
            raise CaptureError(f"damaged: its format is {version}, but formats count from 1")
        if version > _VERSION:
            raise CaptureError(
                f"written by a newer calidrift (format {version}, this one reads up to "
                f"{_VERSION}); update the reader"
            )
        tensors = safetensors.numpy.load(blob)
        capture = Capture(
            id=text["id"],
            model=text["model"],
            profile=text["profile"],
            points=tuple(map(str, json.loads(text["points"]))),
            inputs={
                name.removeprefix(_INPUT): array
                for name, array in tensors.items()
                if name.startswith(_INPUT)
            },
            maxima=tensors[_MAXIMA],
            time_ns=int(text["time_ns"]),
            segment=text["segment"],
            session=text["session"],
            kind=CaptureKind(text["kind"]),
            inclusion=float(text["inclusion"]),
            row=int(text["row"]),
            bfloat16=tuple(map(str, json.loads(text["bfloat16"]))),
        )
    except (
        safetensors.SafetensorError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        if isinstance(error, CaptureError):
            raise
        raise CaptureError(f"damaged or cut short ({error})") from error
    _require_consistent(capture, text)
    return capture


def read_bytes(path: Path) -> bytes:
    """The bytes of a capture file.

    Raises:
        CaptureError: It cannot be read, or is larger than any capture.
    """
    try:
        # O_NONBLOCK: somebody's pipe among the captures must not hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CaptureError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CaptureError(f"cannot be read ({error})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CaptureError("not a file")
        if status.st_size > _MAX_FILE_BYTES:
            raise CaptureError(f"larger than any capture ({_MAX_FILE_BYTES} bytes)")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise CaptureError(f"cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def _metadata(blob: bytes) -> dict[str, str]:
    try:
        (length,) = _LENGTH.unpack_from(blob)
        if not 2 <= length <= len(blob) - _LENGTH.size:
            raise CaptureError("not a safetensors file, or cut short")
        header: Any = json.loads(blob[_LENGTH.size : _LENGTH.size + length])
        text = header.get("__metadata__", {})
    except (struct.error, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, CaptureError):
            raise
        raise CaptureError(f"not a safetensors file, or damaged ({error})") from error
    if not isinstance(text, dict):
        raise CaptureError("not a calidrift capture (its text is not a mapping)")
    return text


def _require_consistent(capture: Capture, text: Mapping[str, str]) -> None:
    points = len(capture.points)
    if capture.maxima.dtype != np.float32 or capture.maxima.shape != (points,):
        raise CaptureError(
            f"damaged: it names {points} points but holds maxima of shape {capture.maxima.shape}"
        )
    if text.get("points_digest") != points_digest(capture.points):
        raise CaptureError("damaged: the names of its points do not fit their digest")
    if not (math.isfinite(capture.inclusion) and 0.0 < capture.inclusion <= 1.0):
        raise CaptureError(f"damaged: inclusion {capture.inclusion} is not a probability")
    if not capture.inputs:
        raise CaptureError("damaged: it holds no inputs")
    if not _ID.fullmatch(capture.id):
        raise CaptureError(f"damaged: its id {capture.id!r} is not one of ours")
    if not (0 <= capture.row < 2**31 and abs(capture.time_ns) < 2**63):
        raise CaptureError(f"damaged: row {capture.row} at {capture.time_ns} ns is impossible")
    for name in capture.bfloat16:
        if name not in capture.inputs or capture.inputs[name].dtype != np.uint16:
            raise CaptureError(f"damaged: its input {name!r} holds no bfloat16 patterns")
