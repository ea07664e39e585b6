"""What lies captured beside the sidecar: names and times, never a tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

from calidrift_agent._capture import list_captures, read_capture
from calidrift_agent._state import MAX_PUSH_CAPTURES, PushedCapture
from calidrift_agent.errors import CaptureError

_CAPTURES: Final = "captures"
_MOST_NAME: Final = 512


@final
class CaptureListings:
    """Lists captures per process; a file never changes, so each is opened once.

    Those that cannot be read here (encrypted without a key, damaged) are left out.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, PushedCapture | None]] = {}

    def of(self, folder: Path, process: str) -> tuple[PushedCapture, ...]:
        """All captures of a process.

        Args:
            folder: The state directory.
            process: Identity of the process.
        """
        root = folder / _CAPTURES / process
        try:
            paths = list_captures(root)
        except CaptureError:
            paths = []
        found: dict[Path, tuple[int, PushedCapture | None]] = {}
        for path in paths[-MAX_PUSH_CAPTURES:]:
            try:
                size = path.stat().st_size
            except OSError:
                continue  # replaced since it was listed
            known = self._known.get(path)
            if known is None or known[0] != size:
                known = size, _entry(path, size)
            found[path] = known
        for path in [one for one in self._known if one.is_relative_to(root)]:
            del self._known[path]
        self._known.update(found)
        return tuple(entry for _, entry in found.values() if entry is not None)

    def forget(self, process: str) -> None:
        """Drop what is known of a process that is gone."""
        for path in [one for one in self._known if one.parent.name == process]:
            del self._known[path]


def _entry(path: Path, size: int) -> PushedCapture | None:
    try:
        capture = read_capture(path)
    except (CaptureError, OSError):
        return None
    if len(path.name) > _MOST_NAME or len(capture.segment) > _MOST_NAME:
        return None
    return PushedCapture(path.name, capture.kind, capture.time_ns, capture.segment or None, size)


__all__ = ["CaptureListings"]
