"""Reading single records out of a state file while its writer may be at work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, final

from calidrift_agent._state._codec import decode_window
from calidrift_agent._state._layout import (
    RECORD_BYTES,
    Layout,
    RecordHead,
    checksum,
    unpack_head,
)
from calidrift_agent._state._window import Window
from calidrift_agent.errors import StateFormatError

_ATTEMPTS: Final = 200
_HEAD_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.0005


@final
class SlotReader:
    """Takes whole, checked records out of the slots of one open file.

    A record that its writer replaced while it was being read is not an error: it is read again
    (two slots) or counts as gone (ring). A record whose checksum does not fit although nobody
    touched it is damage, and is named.
    """

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self._descriptor = descriptor
        self._layout = layout

    @property
    def layout(self) -> Layout:
        """Where the slots lie."""
        return self._layout

    def newest(
        self, offsets: tuple[int, int], what: str, alive: Callable[[], bool]
    ) -> tuple[Window | None, tuple[str, ...]]:
        """The newer whole record of two alternating slots, and what was found damaged.

        Returns:
            The window, None where none was written yet; and one sentence per damaged slot.

        Raises:
            StateFormatError: No slot holds a whole record although one was written.
        """
        for attempt in range(_ATTEMPTS):
            complaints: list[str] = []
            heads: list[tuple[RecordHead, int]] = []
            for letter, offset in zip("AB", offsets, strict=True):
                try:
                    head = self._head(offset)
                except StateFormatError as error:
                    complaints.append(f"{what} slot {letter}: {error}")
                    continue
                if head is not None:
                    heads.append((head, offset))
            for head, offset in sorted(heads, reverse=True):
                try:
                    payload = self._payload(offset, head, self._layout.live_bytes)
                    if payload is not None:
                        return self._window(payload, head), tuple(complaints)
                except StateFormatError as error:
                    letter = "AB"[offsets.index(offset)]
                    complaints.append(f"{what} slot {letter}: {error}")
            if not heads and not complaints:
                # A reader that is interrupted between the slots can find both of them cleared,
                # one after the other, although there always is a whole one.
                if attempt + 1 >= _HEAD_ATTEMPTS:
                    return None, ()
                continue
            if complaints and not alive():
                break
            if attempt >= _HEAD_ATTEMPTS:
                time.sleep(_PAUSE_SECONDS)
        raise StateFormatError(f"no {what} slot holds a whole record ({'; '.join(complaints)})")

    def ring(self, after: int) -> tuple[dict[int, Window], tuple[str, ...]]:
        """All whole windows of the ring with a number above `after`, and what was damaged."""
        complaints: list[str] = []
        found: dict[int, dict[int, tuple[RecordHead, int]]] = {}
        for slot in range(self._layout.slots):
            try:
                head = self._head(self._layout.ring(slot))
            except StateFormatError as error:
                complaints.append(f"ring slot {slot}: {error}")
                continue
            if head is not None and head.number > after:
                found.setdefault(head.number, {})[head.part] = (head, slot)
        windows: dict[int, Window] = {}
        for number in sorted(found):
            window = self._assemble(found[number], complaints)
            if window is not None:
                windows[number] = window
        return windows, tuple(complaints)

    def _assemble(
        self, parts: dict[int, tuple[RecordHead, int]], complaints: list[str]
    ) -> Window | None:
        head, _ = next(iter(parts.values()))
        wanted = head.parts
        pieces: list[bytes] = []
        for part in range(wanted):
            if part not in parts:
                return None
            head, slot = parts[part]
            try:
                piece = self._payload(self._layout.ring(slot), head, self._layout.ring_bytes)
            except StateFormatError as error:
                complaints.append(f"ring slot {slot}: {error}")
                return None
            if piece is None:
                return None
            pieces.append(piece)
        try:
            return self._window(b"".join(pieces), head)
        except StateFormatError as error:
            complaints.append(f"ring slot {parts[0][1]}: {error}")
            return None

    def _window(self, payload: bytes, head: RecordHead) -> Window:
        window = decode_window(payload, self._layout.points, self._layout.columns)
        if window.number != head.number:
            raise StateFormatError(f"it holds window {window.number}, not {head.number}")
        return window

    def _head(self, offset: int) -> RecordHead | None:
        for _ in range(_HEAD_ATTEMPTS):
            try:
                return unpack_head(self.pread(RECORD_BYTES, offset))
            except StateFormatError as caught:
                error = caught
        raise error

    def _payload(self, offset: int, head: RecordHead, slot_bytes: int) -> bytes | None:
        """The payload of a record; None where its writer replaced it meanwhile."""
        if head.length > slot_bytes - RECORD_BYTES:
            raise StateFormatError(f"its length {head.length} is larger than the slot")
        payload = self.pread(head.length, offset + RECORD_BYTES)
        whole = checksum(payload) == head.check
        if self.pread(RECORD_BYTES, offset) != head.pack():
            return None
        if not whole:
            raise StateFormatError("its checksum does not fit")
        return payload

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes at `offset`.

        Raises:
            StateFormatError: The file ends before.
        """
        blob = os.pread(self._descriptor, length, offset)
        while len(blob) < length:
            more = os.pread(self._descriptor, length - len(blob), offset + len(blob))
            if not more:
                raise StateFormatError(
                    f"the file ends at byte {offset + len(blob)}, {length - len(blob)} bytes too "
                    "early; somebody cut it short"
                )
            blob += more
        return blob
