"""The carry-over file: what processes counted whose state files are gone, one per model."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
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
_MAX_BYTES: Final = 1 << 30
_FOREIGN: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
"""What opening says of a link, a socket and a device."""


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
    """Path of the carry-over file of a model; no two models share one.

    A leading dot is written as `%2E`, so that no file is hidden; one that an older version left
    under a hidden name stays the model's.
    """
    name = urllib.parse.quote(model, safe="", errors="surrogatepass")
    digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    ending = f"-{digest}{CARRY_SUFFIX}"
    if not name.startswith("."):
        return directory / f"{name[:_NAME_BYTES]}{ending}"
    path = directory / f"{f'%2E{name[1:]}'[:_NAME_BYTES]}{ending}"
    older = directory / f"{name[:_NAME_BYTES]}{ending}"
    # Used in place: between writing a new one and removing this, both would count.
    return older if os.path.lexists(older) and not os.path.lexists(path) else path


def carry_paths(directory: Path) -> list[Path]:
    """All carry-over files of a directory; none where it does not exist."""
    return sorted(directory.glob(f"*{CARRY_SUFFIX}"))


def read_generation(path: Path) -> int | None:
    """Generation of a carry-over file, None where there is no file, or one that says none.

    Raises:
        StateError: It cannot be read now (too many open files): whatever is added up without it
            would be too low, and a counter that goes down counts anew.
    """
    try:
        return _unpack(_read(path, _HEAD.size)).generation
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
        blob = _read(path, _MAX_BYTES)
    except FileNotFoundError:
        return None
    except StateFormatError as error:
        raise StateFormatError(f"carry-over file {path}: {error}") from error
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


def _read(path: Path, most: int) -> bytes:
    """Up to `most` bytes of a file, of nothing but a file.

    Raises:
        OSError: It cannot be opened or read now.
        StateFormatError: It is a link, a pipe, a folder or larger than any carry-over file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        # O_NONBLOCK: somebody's pipe of this name must not hang the reader.
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in _FOREIGN:
            raise StateFormatError("it is not a file") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StateFormatError("it is not a file")
        if status.st_size > _MAX_BYTES:
            raise StateFormatError(f"it is larger than any ({_MAX_BYTES} bytes)")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


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
