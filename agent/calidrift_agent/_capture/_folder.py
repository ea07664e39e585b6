"""The files of one process: what they are called, how large they are, and whether they fit."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from calidrift_agent._capture._crowd import hold
from calidrift_agent._capture._file import write_privately
from calidrift_agent._capture._index import INDEX_NAME, CaptureIndex

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@final
class CaptureFolder:
    """Writes and removes captures by their keys.

    From the first one on the folder is locked for as long as the process lives: whoever keeps the
    captures of all processes within bounds takes none of a living one.

    Args:
        path: Made at the first capture.
        suffix: Of the files.

    Attributes:
        path: Where the captures are.
        size_bytes: Size of all of them.
        written: Files that were written so far.
        changes: Files that were written or removed so far.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self.path = path
        self.size_bytes = self.written = self.changes = 0
        self._suffix = suffix
        self._sizes: dict[str, int] = {}
        self._held: int | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    def size_of(self, key: str) -> int:
        """Size of a file that is there."""
        return self._sizes[key]

    def write(self, key: str, blob: bytes) -> bool:
        """Write a capture; returns False where there is no room.

        Raises:
            OSError: It could not be written for another reason.
        """
        if not self._write(self.path / f"{key}{self._suffix}", blob):
            return False
        self._sizes[key] = len(blob)
        self.size_bytes += len(blob)
        self.written += 1
        self.changes += 1
        return True

    def write_index(self, index: CaptureIndex) -> bool:
        """Write the index, as `write`."""
        return self._write(self.path / INDEX_NAME, index.to_json().encode())

    def remove(self, key: str) -> None:
        """Delete a capture; unknown ones are ignored, and so are files that somebody deleted.

        Raises:
            OSError: It cannot be deleted.
        """
        size = self._sizes.pop(key, None)
        if size is not None:
            self.size_bytes -= size
            self.changes += 1
            (self.path / f"{key}{self._suffix}").unlink(missing_ok=True)

    def _write(self, path: Path, blob: bytes) -> bool:
        try:
            write_privately(path, blob)
        except OSError as error:
            if error.errno in _NO_SPACE:
                return False
            raise
        if self._held is None:
            self._held = hold(self.path)  # where somebody looks at it just now, the next time
        return True

    def release(self) -> None:
        """Let go of the folder; a forked child does so at once. Safe to repeat."""
        held, self._held = self._held, None
        if held is not None:
            with suppress(OSError):
                os.close(held)

    def __del__(self) -> None:
        self.release()
