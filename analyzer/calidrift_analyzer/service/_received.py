"""Single captures from machines that this one cannot read: which are asked for, and kept.

A recalibration needs requests that left the ranges. Of those that a sidecar lists, some are asked
for in the answer to a push; a sidecar that may send captures does so, and they are used like those
of a state directory.
"""

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, final

from calidrift_agent._capture import (
    SEALED_SUFFIX,
    Capture,
    KeyRing,
    decode_capture,
    list_captures,
    write_privately,
)
from calidrift_agent._state import StateMeta
from calidrift_agent._vocabulary import CaptureKind
from calidrift_agent.errors import CaptureError, StateFormatError
from calidrift_analyzer.collect import collect
from calidrift_analyzer.errors import NoDataError, StoreUnavailableError
from calidrift_analyzer.store import RemoteCapture, Store

__all__ = ["MOST_HELD", "Received"]

MOST_HELD: Final = 64
"""Captures of one profile that are asked for."""
_AT_ONCE: Final = 16
_MOST_BYTES: Final = 512 * 2**20
_CAPTURES: Final = "captures"
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}\.safetensors(\.fernet)?")
_writing: Final = threading.Lock()
_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Received:
    """The captures that were sent here, in a folder beside the database.

    Args:
        database: The database file.
        most_bytes: Most bytes of one of them.
    """

    database: Path
    most_bytes: int

    @property
    def folder(self) -> Path:
        """Where they are; looks like a state directory."""
        return self.database.with_name(f"{self.database.name}.received").resolve()

    def wanted(self, store: Store, meta: StateMeta) -> tuple[str, ...]:
        """Name captures of a process to ask for: such that left the ranges, of every segment.

        At most `MOST_HELD` of one profile are held, whoever captured them: enough to select from,
        and an end to what is sent. On the owner's thread.
        """
        held = [one for one in store.captures(meta.model) if one.profile == meta.profile]
        room = min(_AT_ONCE, MOST_HELD - len(held))
        if room <= 0 or not meta.profile:
            return ()
        here = {Path(one.path).name for one in held if one.process == meta.process}
        listed = store.views.remote_captures(meta.process)
        open_ = [one for one in listed if self._usable(one, meta) and one.name not in here]
        return tuple(one.name for one in _by_turns(open_))[:room]

    def expected(self, store: Store, process: str, name: str) -> RemoteCapture:
        """Give what a sidecar has said of a capture; on the owner's thread.

        Raises:
            NoDataError: It was never listed, so it cannot have been asked for.
        """
        listed = store.views.remote_captures(process)
        found = next((one for one in listed if one.name == name), None)
        if found is None or not _NAME.fullmatch(name):
            raise NoDataError(f"no capture {name!r} of process {process} was asked for")
        return found

    def keep(self, row: RemoteCapture, blob: bytes) -> bool:
        """Keep the file of a capture, whole or not at all; not on the event loop.

        Returns:
            Whether it is new.

        Raises:
            StateFormatError: It is not the capture that was listed, or cannot be read here.
            StoreUnavailableError: There is no room.
        """
        path = self.folder / _CAPTURES / row.process / row.name
        if len(blob) != row.size:
            raise StateFormatError(
                f"capture {row.name} was listed with {row.size} bytes, but {len(blob)} came"
            )
        capture = _decode(row.name, blob)
        if (capture.model, capture.profile) != (row.model, row.profile):
            raise StateFormatError(
                f"capture {row.name} is of model {capture.model!r}, not of {row.model!r} under the "
                "profile of its process"
            )
        try:
            with _writing:
                if path.is_file() and path.stat().st_size == row.size:
                    return False
                self._make_room(len(blob))
                write_privately(path, blob)
        except OSError as error:
            raise StoreUnavailableError(
                f"capture {row.name} cannot be written to {self.folder} "
                f"({error.strerror or error}); free space there, it is asked for again"
            ) from error
        return True

    def list_all(self, store: Store) -> None:
        """Bring the listing of the database up to date; on the owner's thread."""
        for one in collect((self.folder,), store).skipped:
            _log.warning("%s: %s", one.path, one.reason)

    def _usable(self, one: RemoteCapture, meta: StateMeta) -> bool:
        return (
            (one.model, one.profile) == (meta.model, meta.profile)
            and one.kind is CaptureKind.UNCOVERED
            and 0 < one.size <= self.most_bytes
            and _NAME.fullmatch(one.name) is not None
        )

    def _make_room(self, size: int) -> None:
        """Let the oldest go where all of them would be too large."""
        paths = [path for path in list_captures(self.folder / _CAPTURES) if path.is_file()]
        paths.sort(key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in paths) + size
        for path in paths:
            if total <= _MOST_BYTES:
                return
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


def _decode(name: str, blob: bytes) -> Capture:
    try:
        return decode_capture(KeyRing().open(blob) if name.endswith(SEALED_SUFFIX) else blob)
    except CaptureError as error:
        raise StateFormatError(f"capture {name} cannot be used ({error})") from error


def _by_turns(captures: Iterable[RemoteCapture]) -> list[RemoteCapture]:
    """Order captures: the newest of each segment, then the next one of each, and so on."""
    segments: dict[str | None, list[RemoteCapture]] = defaultdict(list)
    for one in sorted(captures, key=lambda one: (-one.captured_ns, one.name)):
        segments[one.segment].append(one)
    turns = zip_longest(*(segments[name] for name in sorted(segments, key=str)))
    return [one for turn in turns for one in turn if one is not None]
