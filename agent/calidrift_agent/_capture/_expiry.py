"""Removes what processes that are gone have left, once it is old."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from calidrift_agent._capture._file import CAPTURE_SUFFIX
from calidrift_agent._capture._index import INDEX_NAME, read_index
from calidrift_agent._capture._sealing import SEALED_SUFFIX
from calidrift_agent.errors import CaptureError

_TMP: Final = ".tmp"


@final
class Leftovers:
    """Deletes old captures of the same model beside the folder of this process, bit by bit.

    A folder belongs to a model by its index; folders without one, and foreign files, stay. Of a
    living process nothing is found here: it removes its own captures before they are that old.

    Args:
        own: Folder of this process, left alone.
        model: Name given to `watch`.
        max_age_seconds: By the time of the last write of a file.
    """

    def __init__(self, own: Path, model: str, max_age_seconds: float) -> None:
        self._own = own
        self._model = model
        self._max_age = max_age_seconds
        self._walk: Iterator[Path] | None = None

    def sweep(self, most: int) -> bool:
        """Look at up to `most` files.

        Returns:
            Whether that was the end of a round; the next call begins another one.
        """
        if self._walk is None:
            self._walk = self._files()
        for _ in range(most):
            path = next(self._walk, None)
            if path is None:
                self._walk = None
                return True
            with suppress(OSError):  # it went meanwhile, or is not ours to remove
                if time.time() - path.stat(follow_symlinks=False).st_mtime >= self._max_age:
                    path.unlink()
        return False

    def _files(self) -> Iterator[Path]:
        for folder in self._folders():
            names = _listed(folder)
            yield from (folder / name for name in names if _is_ours(name))
            # Without its index a folder belongs to nobody, so that goes last, and only when empty.
            if not any(_is_ours(name) for name in _listed(folder)):
                yield folder / INDEX_NAME
                with suppress(OSError):
                    folder.rmdir()

    def _folders(self) -> Iterator[Path]:
        for name in _listed(self._own.parent):
            folder = self._own.parent / name
            if folder == self._own or folder.is_symlink() or not folder.is_dir():
                continue
            try:
                index = read_index(folder)
            except CaptureError:
                continue
            if index is not None and index.model == self._model:
                yield folder


def _is_ours(name: str) -> bool:
    return name.removesuffix(_TMP).endswith((CAPTURE_SUFFIX, SEALED_SUFFIX))


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
