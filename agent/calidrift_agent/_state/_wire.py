"""Windows on their way to an analyzer: the body of `POST /api/v1/ingest`.

    "CALIPUSH" · version (u32) · header bytes (u32) · header (JSON, UTF-8) · windows

Numbers are little-endian. The header has `meta` (the description of a state file), `columns` (how
many columns of each kind a window has), `windows` (how many follow), `profile` (a calibration
profile's document as text, or null) and `captures` (a list, or null where nothing is said about
them). Each window is its length (u32), the CRC32 of its bytes (u32), and the bytes as they stand in
a state file. numpy and the standard library alone, for the side that sends and the one that takes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from calidrift_agent._state._codec import (
    COLUMNS,
    READABLE,
    Columns,
    WindowEncoder,
    decode_window,
)
from calidrift_agent._state._meta import StateMeta
from calidrift_agent._state._window import Window
from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import StateFormatError

PUSH_MEDIA_TYPE: Final = "application/vnd.calidrift.push"
MAX_PUSH_ROWS: Final = 4_096
"""Most points times windows of one body: decoded, a row takes up to 11 KB."""
MAX_PUSH_CAPTURES: Final = 20_000

_MAGIC: Final = b"CALIPUSH"
_VERSION: Final = 1
_START: Final = struct.Struct("<8sII")
_PART: Final = struct.Struct("<II")
_CAPTURE_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "name": (str,),
    "kind": (str,),
    "captured_ns": (int,),
    "segment": (str, type(None)),
    "size": (int,),
}


@final
@dataclass(frozen=True, slots=True)
class PushedCapture:
    """One captured request that lies beside the sender; its tensors stay there.

    Attributes:
        name: Name of its file.
        kind: Which capture store it belongs to.
        captured_ns: When the request ran, UTC nanoseconds.
        segment: Segment of the request; None without one.
        size: Bytes of the file.
    """

    name: str
    kind: CaptureKind
    captured_ns: int
    segment: str | None
    size: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """What one body says about one watched model of one process.

    Attributes:
        meta: The process and its points.
        windows: Windows of it, in the order of their numbers.
        profile: Document of the profile that it was started with; None where that is not sent.
        captures: Everything that lies captured beside the sender; None where nothing is said.
    """

    meta: StateMeta
    windows: tuple[Window, ...] = ()
    profile: str | None = None
    captures: tuple[PushedCapture, ...] | None = None


def encode_push(push: Push) -> bytes:
    """Write a body.

    Raises:
        ValueError: It holds more than `MAX_PUSH_ROWS` or `MAX_PUSH_CAPTURES`; see `push_parts`.

    Cost: about 0.1 ms per window of 40 points.
    """
    rows = len(push.windows) * len(push.meta.points)
    if rows > MAX_PUSH_ROWS and len(push.windows) > 1:
        raise ValueError(f"{rows} rows in one body, at most {MAX_PUSH_ROWS}; use push_parts")
    if len(push.captures or ()) > MAX_PUSH_CAPTURES:
        raise ValueError(f"{len(push.captures or ())} captures, at most {MAX_PUSH_CAPTURES}")
    header = json.dumps(
        {
            "meta": json.loads(push.meta.to_json()),
            "columns": list(COLUMNS),
            "windows": len(push.windows),
            "profile": push.profile,
            "captures": None
            if push.captures is None
            else [asdict(capture) for capture in push.captures],
        },
        ensure_ascii=True,
        separators=(",", ":"),
    ).encode()
    parts = [_START.pack(_MAGIC, _VERSION, len(header)), header]
    encoder = WindowEncoder(len(push.meta.points))
    for window in push.windows:
        blob = bytes(encoder.encode(window))
        parts += (_PART.pack(len(blob), zlib.crc32(blob)), blob)
    return b"".join(parts)


def push_parts(
    meta: StateMeta, windows: Iterable[Window], *, profile: str | None = None
) -> Iterator[bytes]:
    """Write windows as bodies of bounded size, the first one with the profile.

    Args:
        meta: The process and its points.
        windows: Its windows in the order of their numbers.
        profile: Document of its profile, where it is to be sent.

    Yields:
        Bodies, to be sent in this order; at least one where there is a window or a profile.
    """
    most = max(1, MAX_PUSH_ROWS // max(1, len(meta.points)))
    taken: list[Window] = []
    for window in windows:
        taken.append(window)
        if len(taken) == most:
            yield encode_push(Push(meta, tuple(taken), profile))
            taken, profile = [], None
    if taken or profile is not None:
        yield encode_push(Push(meta, tuple(taken), profile))


def decode_push(body: bytes) -> Push:
    """Read a body.

    Raises:
        StateFormatError: It is damaged, cut short, or of another version; nothing of it is used.
    """
    if len(body) < _START.size:
        raise StateFormatError(f"a push has at least {_START.size} bytes, got {len(body)}")
    magic, version, length = _START.unpack_from(body)
    if magic != _MAGIC or version != _VERSION:
        raise StateFormatError(
            f"this is no push of version {_VERSION}; send what encode_push writes"
        )
    header = _header(body[_START.size : _START.size + length])
    meta = StateMeta.from_json(json.dumps(header.get("meta")))
    columns = _columns(header.get("columns"))
    count = header.get("windows")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise StateFormatError("the header of a push does not say how many windows follow")
    if count > 1 and count * len(meta.points) > MAX_PUSH_ROWS:
        raise StateFormatError(
            f"a push has {count} windows of {len(meta.points)} points; send at most "
            f"{MAX_PUSH_ROWS} rows at once"
        )
    profile = header.get("profile")
    if not isinstance(profile, str | None):
        raise StateFormatError("the profile of a push must be a text or null")
    windows = _windows(body, _START.size + length, count, (len(meta.points), columns))
    return Push(meta, windows, profile, _captures(header.get("captures")))


def _header(blob: bytes) -> dict[str, Any]:
    try:
        header = json.loads(blob)
    except (RecursionError, UnicodeDecodeError, ValueError) as error:
        raise StateFormatError(f"the header of a push is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise StateFormatError("the header of a push must be an object")
    return header


def _columns(given: object) -> Columns:
    whole = isinstance(given, list) and len(given) == 3 and all(type(one) is int for one in given)
    columns = Columns(*given) if whole and isinstance(given, list) else None
    if columns not in READABLE:
        raise StateFormatError(
            "the windows of a push have the columns of another calidrift version; update the "
            "analyzer"
        )
    assert columns is not None
    return columns


def _windows(
    body: bytes, offset: int, count: int, shape: tuple[int, Columns]
) -> tuple[Window, ...]:
    found: list[Window] = []
    for _ in range(count):
        if offset + _PART.size > len(body):
            raise StateFormatError(f"a push ends after {len(found)} of {count} windows")
        length, check = _PART.unpack_from(body, offset)
        offset += _PART.size
        blob = body[offset : offset + length]
        offset += length
        if len(blob) != length or zlib.crc32(blob) != check:
            raise StateFormatError(f"window {len(found)} of a push is damaged; send it again")
        found.append(decode_window(blob, *shape))
    if offset != len(body):
        raise StateFormatError(f"a push has {len(body) - offset} bytes too many")
    return tuple(found)


def _captures(given: object) -> tuple[PushedCapture, ...] | None:
    if given is None:
        return None
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise StateFormatError("the captures of a push must be a list or null")
    if len(given) > MAX_PUSH_CAPTURES:
        raise StateFormatError(f"a push lists {len(given)} captures, at most {MAX_PUSH_CAPTURES}")
    return tuple(_capture(one) for one in given)


def _capture(given: object) -> PushedCapture:
    if not isinstance(given, dict) or set(given) != set(_CAPTURE_TYPES):
        raise StateFormatError(f"a capture of a push must have {', '.join(_CAPTURE_TYPES)}")
    for name, kinds in _CAPTURE_TYPES.items():
        value = given[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise StateFormatError(f"{name} of a capture of a push is {value!r}")
        if isinstance(value, int) and not 0 <= value < 2**63:
            raise StateFormatError(f"{name} of a capture of a push is {value}")
    try:
        for text in (given["name"], given["segment"] or ""):
            text.encode()  # half a character fits no column
        return PushedCapture(**{**given, "kind": CaptureKind(given["kind"])})
    except ValueError as error:
        raise StateFormatError(f"a capture of a push cannot be read ({error})") from error


__all__ = [
    "MAX_PUSH_CAPTURES",
    "MAX_PUSH_ROWS",
    "PUSH_MEDIA_TYPE",
    "Push",
    "PushedCapture",
    "decode_push",
    "encode_push",
    "push_parts",
]
