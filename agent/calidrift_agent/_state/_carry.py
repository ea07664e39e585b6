"""The carry-over file: what processes counted whose state files are gone, one per model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, final

from calidrift_agent._sketch import CELLS
from calidrift_agent._state._codec import (
    COLUMNS,
    READABLE,
    Columns,
    WindowEncoder,
    decode_window,
)
from calidrift_agent._state._layout import checksum
from calidrift_agent._state._meta import StateMeta
from calidrift_agent._state._window import Window
from calidrift_agent.errors import StateError, StateFormatError

CARRY_SUFFIX: Final = ".carried"
_MAGIC: Final = b"CALICARR"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sIIIIIQQQ")
"""mark, version, columns of requests, counts and values, cells, generation, two lengths."""
_CHECK: Final = struct.Struct("<I")
_NAME_BYTES: Final = 120


@final
@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """What dead processes of one model counted.

    Attributes:
        generation: Grows by one with each rewrite.
        meta: The process among them that started last, with the points of all of them.
        total: Sum of all that they counted, numbered `NO_WINDOW`.
        absorbed: Processes that are in the sum although their state files may still be there: a
            sweeper may have been killed between writing this and unlinking those. Their files
            do not count any more.
    """

    generation: int
    meta: StateMeta
    total: Window
    absorbed: frozenset[str]


def carry_path(directory: Path, model: str) -> Path:
    """Path of the carry-over file of a model; no two models share one."""
    name = urllib.parse.quote(model, safe="")[:_NAME_BYTES]
    digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return directory / f"{name}-{digest}{CARRY_SUFFIX}"


def carry_paths(directory: Path) -> list[Path]:
    """All carry-over files of a directory; none where it does not exist."""
    return sorted(directory.glob(f"[!.]*{CARRY_SUFFIX}"))


def read_generation(path: Path) -> int | None:
    """Generation of a carry-over file, None where there is no file, or one that says none.

    Raises:
        StateError: It cannot be read now (too many open files): whatever is added up without it
            would be too low, and a counter that goes down counts anew.
    """
    try:
        with path.open("rb") as file:
            return _unpack(file.read(_HEAD.size)).generation
    except (FileNotFoundError, StateFormatError):
        return None
    except OSError as error:
        raise StateError(f"carry-over file {path} cannot be read ({error.strerror})") from error


def read_carried(path: Path) -> Carried | None:
    """Read a carry-over file.

    Returns:
        Its content; None where there is none.

    Raises:
        StateFormatError: It is damaged, or was written by another version of Calidrift.
        StateError: It cannot be read.
    """
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"carry-over file {path} cannot be read ({error.strerror})") from error
    try:
        head = _unpack(blob)
        body, check = blob[_HEAD.size : -_CHECK.size], blob[-_CHECK.size :]
        whole = len(body) == head.described + head.payload
        if not whole or _CHECK.pack(checksum(blob[: -_CHECK.size])) != check:
            raise StateFormatError("it is damaged (its checksum does not fit)")
        fields = json.loads(body[: head.described])
        meta = StateMeta.from_json(fields["meta"])
        total = decode_window(body[head.described :], len(meta.points), head.columns)
        return Carried(head.generation, meta, total, frozenset(map(str, fields["absorbed"])))
    except (KeyError, TypeError, ValueError, RecursionError, StateFormatError) as error:
        raise StateFormatError(f"carry-over file {path}: {error}") from error


def write_carried(path: Path, carried: Carried) -> None:
    """Replace a carry-over file in one step; a reader sees the old one or the new one.

    It is on the disk when this returns. Only one process may write at a time.

    Raises:
        StateError: It could not be written; the old one is untouched.
    """
    absorbed = sorted(carried.absorbed)
    described = json.dumps({"meta": carried.meta.to_json(), "absorbed": absorbed}).encode()
    payload = bytes(WindowEncoder(carried.total.points).encode(carried.total))
    sizes = (carried.generation, len(described), len(payload))
    blob = _HEAD.pack(_MAGIC, _VERSION, *COLUMNS, CELLS, *sizes) + described + payload
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob + _CHECK.pack(checksum(blob)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StateError(f"carry-over file {path} cannot be written ({error.strerror})") from error


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk.

    Raises:
        OSError: The directory cannot be opened.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Head(NamedTuple):
    generation: int
    described: int
    payload: int
    columns: Columns


def _unpack(blob: bytes) -> _Head:
    if len(blob) < _HEAD.size or blob[: len(_MAGIC)] != _MAGIC:
        raise StateFormatError("it is not a carry-over file, or was cut short")
    fields = _HEAD.unpack_from(blob)
    columns = Columns(*fields[2:5])
    if fields[1] != _VERSION or columns not in READABLE or fields[5] != CELLS:
        raise StateFormatError(
            "its format or its columns are those of another calidrift version; the sums of dead "
            "processes begin anew"
        )
    return _Head(fields[6], fields[7], fields[8], columns)
