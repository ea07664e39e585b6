"""Where pushing stands, per process: in memory, and in a small file for after a restart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from calidrift_agent._sidecar._ship_files import replace_file
from calidrift_agent._state import NO_WINDOW

_NAME: Final = "ledger.json"
_VERSION: Final = 1
_MOST_BYTES: Final = 64 * 1024 * 1024


@final
@dataclass(slots=True)
class Standing:
    """How far one process has been pushed.

    Attributes:
        last: Number of the last window that need not be sent any more.
        refused: Number of the last window that the analyzer will never take.
        final: Whether the process is dead and everything of it was pushed.
        seen: Number of the last window known to exist; in memory only.
        met: Whether the analyzer has told this sidecar where the process stands.
        profile_known: Whether the analyzer has its profile, or will never get it from here.
        listing: What was last told of its captures; None: nothing yet.
        wanted: Names of captures that the analyzer asked for last; in memory only.
    """

    last: int = NO_WINDOW
    refused: int = NO_WINDOW
    final: bool = False
    seen: int = NO_WINDOW
    met: bool = False
    profile_known: bool = False
    listing: object = None
    wanted: tuple[str, ...] = ()

    def advance(self, number: int) -> None:
        """Take note that windows up to `number` need not be sent any more."""
        self.last = max(self.last, number)
        self.seen = max(self.seen, self.last)


@final
class Ledger:
    """The standings of all processes.

    A ledger that was lost, or is older than what was pushed, does no harm: the analyzer says how
    far it has got before anything is sent. It spares the questions about processes that are done,
    and tells what to keep while the analyzer cannot be asked.

    Args:
        folder: Where the file is; made when it is first written.
        url: The analyzer. What another one took counts for nothing.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._path = folder / _NAME
        self._url = url
        self._standings = self._read()
        self._written = self._document()

    def of(self, process: str) -> Standing:
        """The standing of a process; a new one where nothing is known."""
        return self._standings.setdefault(process, Standing())

    def processes(self) -> tuple[str, ...]:
        """All that are known."""
        return tuple(self._standings)

    def forget(self, process: str) -> None:
        """Drop a process of which nothing is left."""
        self._standings.pop(process, None)

    def save(self) -> None:
        """Write what has changed.

        Raises:
            OSError: It could not be written; the next call tries again.
        """
        document = self._document()
        if document == self._written:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, json.dumps(document, separators=(",", ":")).encode())
        self._written = document

    def _document(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "url": self._url,
            "processes": {
                process: [one.last, one.refused, int(one.final)]
                for process, one in self._standings.items()
            },
        }

    def _read(self) -> dict[str, Standing]:
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_MOST_BYTES))
            if found["version"] != _VERSION or found["url"] != self._url:
                return {}
            return {
                str(process): Standing(int(last), int(refused), bool(done), seen=int(last))
                for process, (last, refused, done) in found["processes"].items()
            }
        except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
            return {}


__all__ = ["Ledger", "Standing"]
