"""Single captures that the analyzer asked for: only those, and only where that is allowed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Protocol, final

from calidrift_agent._capture import list_captures
from calidrift_agent._sidecar._ship_client import BatchRefusedError
from calidrift_agent._sidecar._ship_figures import ShipFigures
from calidrift_agent._sidecar._ship_ledger import Standing
from calidrift_agent.errors import CaptureError

MOST_CAPTURE_BYTES: Final = 64 * 1024 * 1024
_MOST_REFUSED: Final = 4_096
_CAPTURES: Final = "captures"
_log = logging.getLogger("calidrift_agent")


class TakesCaptures(Protocol):
    """Takes the files of captures."""

    def capture(self, process: str, name: str, blob: bytes) -> None:
        """Send one capture; the same one any number of times."""


@final
class Requested:
    """Sends what an answer of the analyzer named, once per answer.

    Whatever it names, nothing but a capture of that very process is read. One that is gone was
    replaced since it was listed; the next listing says so.

    Args:
        taker: Where to.
        figures: Where captures are counted.
    """

    def __init__(self, taker: TakesCaptures, figures: ShipFigures) -> None:
        self._taker = taker
        self._figures = figures
        self._refused: set[tuple[str, str]] = set()

    def send(self, folder: Path, process: str, standing: Standing) -> None:
        """Send what is asked for of a process.

        Args:
            folder: The state directory.
            process: The process.
            standing: Its standing; what was sent is no longer wanted.

        Raises:
            ShipError: It may be tried again; what was not sent is wanted still.
        """
        here = _listed(folder / _CAPTURES / process)
        while standing.wanted:
            name = standing.wanted[0]
            path = here.get(name)
            if path is not None and (process, name) not in self._refused:
                self._send(process, name, path)
            standing.wanted = standing.wanted[1:]

    def _send(self, process: str, name: str, path: Path) -> None:
        try:
            if path.stat().st_size > MOST_CAPTURE_BYTES:
                return
            blob = path.read_bytes()
        except OSError:
            return
        try:
            self._taker.capture(process, name, blob)
        except BatchRefusedError as error:
            if len(self._refused) < _MOST_REFUSED:
                self._refused.add((process, name))
            _log.warning("the analyzer asked for capture %s and will not take it (%s)", path, error)
        else:
            self._figures.captures += 1
            self._figures.capture_bytes += len(blob)


def _listed(root: Path) -> dict[str, Path]:
    try:
        return {path.name: path for path in list_captures(root) if path.parent == root}
    except CaptureError:
        return {}


__all__ = ["MOST_CAPTURE_BYTES", "Requested", "TakesCaptures"]
