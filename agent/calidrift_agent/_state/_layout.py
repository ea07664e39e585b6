"""Where things lie in a state file, and how one record proves that it is whole.

    header (80 bytes, CRC) · description (JSON, CRC) · 2 live · 2 cumulative · N ring slots

A slot holds one record: a 32-byte head and a payload. The head carries a sequence number that
only grows, the length of the payload and its CRC32, and a CRC32 of itself. A writer clears the
head, writes the payload, then writes the new head; a reader takes the payload only if its CRC
fits and the head did not change meanwhile. Live and cumulative records are written alternately
into two slots, so that a writer killed in the middle leaves the other one whole.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from calidrift_agent._sketch import CELLS
from calidrift_agent._state._codec import COLUMNS, READABLE, Columns, encoded_bytes
from calidrift_agent.errors import StateFormatError

MAGIC: Final = b"CALIDRFT"
VERSION: Final = 3
MIN_SLOTS: Final = 4
MAX_SLOTS: Final = 64
RING_CELLS: Final = 640
"""Non-zero cells per point for which a ring slot has room in one record (eight bytes each)."""

_HEADER: Final = struct.Struct("<8sIIIIIIIIIIIQQQ")
_CHECK: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CHECK.size
_PAGE: Final = 4096

RECORD: Final = struct.Struct("<QqIHHI")
RECORD_BYTES: Final = RECORD.size + _CHECK.size
BLANK: Final = bytes(RECORD_BYTES)


def checksum(data: bytes | bytearray | memoryview) -> int:
    """CRC32 of `data` (about 4 GB/s)."""
    return zlib.crc32(data)


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


class RecordHead(NamedTuple):
    """Head of a record; `sequence` is never 0 (an unwritten or half-written slot is all zero)."""

    sequence: int
    number: int
    length: int
    part: int
    parts: int
    check: int

    def pack(self) -> bytes:
        """The 32 bytes on disk."""
        head = RECORD.pack(*self)
        return head + _CHECK.pack(checksum(head))


def unpack_head(blob: bytes) -> RecordHead | None:
    """Read a record's head; None for a blank one.

    Raises:
        StateFormatError: The head's checksum does not fit.
    """
    if blob == BLANK:
        return None
    head = blob[: RECORD.size]
    if _CHECK.unpack_from(blob, RECORD.size)[0] != checksum(head):
        raise StateFormatError("the head of the record is damaged")
    return RecordHead(*RECORD.unpack(head))


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes and offsets of one state file, fixed when it is created.

    Attributes:
        points: Number of points P.
        slots: Ring slots N.
        live_bytes: Size of a live or cumulative slot (room for dense sketches).
        ring_bytes: Size of a ring slot.
        meta_bytes: Length of the description.
        columns: Columns of its windows; those of this version in a file that it writes.
    """

    points: int
    slots: int
    live_bytes: int
    ring_bytes: int
    meta_bytes: int
    columns: Columns = COLUMNS

    @classmethod
    def plan(cls, points: int, meta_bytes: int, slots: int | None, ring_limit: int) -> Layout:
        """Sizes for `points` points: `slots` ring slots, or as many as fit into `ring_limit`."""
        live_bytes = _pages(RECORD_BYTES + encoded_bytes(points, points * CELLS))
        ring_bytes = _pages(RECORD_BYTES + encoded_bytes(points, points * RING_CELLS))
        if slots is None:
            slots = min(max(ring_limit // ring_bytes, MIN_SLOTS), MAX_SLOTS)
        return cls(points, slots, live_bytes, ring_bytes, meta_bytes)

    @property
    def live(self) -> tuple[int, int]:
        """Offsets of the two slots of the open window."""
        first = _pages(HEADER_BYTES + self.meta_bytes)
        return first, first + self.live_bytes

    @property
    def cumulative(self) -> tuple[int, int]:
        """Offsets of the two slots of the sum of closed windows."""
        first = self.live[1] + self.live_bytes
        return first, first + self.live_bytes

    def ring(self, slot: int) -> int:
        """Offset of ring slot `slot`."""
        return self.cumulative[1] + self.live_bytes + slot * self.ring_bytes

    @property
    def total_bytes(self) -> int:
        """Size of the file."""
        return self.ring(self.slots)

    def pack(self, meta: bytes) -> bytes:
        """Header and description as they stand at the beginning of the file."""
        head = _HEADER.pack(
            MAGIC,
            VERSION,
            HEADER_BYTES,
            self.points,
            CELLS,
            *COLUMNS,
            self.slots,
            self.meta_bytes,
            checksum(meta),
            0,
            self.live_bytes,
            self.ring_bytes,
            self.total_bytes,
        )
        return head + _CHECK.pack(checksum(head)) + meta


def read_layout(blob: bytes, size: int) -> tuple[Layout, int]:
    """Read a file's header.

    Args:
        blob: The first `HEADER_BYTES` bytes, or fewer where the file is shorter.
        size: Size of the file in bytes.

    Returns:
        The layout, and the checksum that the description must have.

    Raises:
        StateFormatError: Not a state file, of a newer version, damaged or cut short.
    """
    if blob[: len(MAGIC)] != MAGIC:
        raise StateFormatError("not a calidrift state file (it does not begin with its mark)")
    if len(blob) < HEADER_BYTES:
        raise StateFormatError(f"cut short: {size} bytes, the header alone has {HEADER_BYTES}")
    fields = _HEADER.unpack_from(blob)
    version = fields[1]
    if version > VERSION:
        raise StateFormatError(
            f"written by a newer calidrift (format {version}, this one reads up to {VERSION}); "
            "update the reader"
        )
    if _CHECK.unpack_from(blob, _HEADER.size)[0] != checksum(blob[: _HEADER.size]):
        raise StateFormatError("its header is damaged (checksum does not fit)")
    points, cells, requests, counts, values, slots, meta_bytes, meta_check = fields[3:11]
    columns = Columns(requests, counts, values)
    if cells != CELLS or columns not in READABLE:
        raise StateFormatError(
            "its columns are those of another calidrift version; read it with the version that "
            "wrote it"
        )
    if slots > MAX_SLOTS:
        raise StateFormatError(f"its header names {slots} slots, at most {MAX_SLOTS} are allowed")
    layout = Layout(points, slots, fields[12], fields[13], meta_bytes, columns)
    if size < fields[14] or fields[14] != layout.total_bytes:
        raise StateFormatError(f"cut short: {size} bytes of {fields[14]}")
    return layout, meta_check
