"""Keeps rows of production traffic as files, within fixed limits."""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import numpy as np

from calidrift_agent._capture._choice import ExtremesAndRest, UniformReservoir
from calidrift_agent._capture._file import (
    CAPTURE_SUFFIX,
    CaptureRow,
    encode_capture,
    is_suitable,
    points_digest,
    write_privately,
)
from calidrift_agent._capture._index import INDEX_NAME, CaptureIndex
from calidrift_agent._capture._options import CaptureOptions, Inputs
from calidrift_agent._vocabulary import CaptureKind, DropReason
from calidrift_agent.errors import ConfigurationError

_INDEX_GROWTH: Final = 1.05
"""Rows seen may outgrow the index by this factor before it is written again."""
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@final
class CaptureWriter:
    """Writes captures of one watched model; one thread offers, never the request thread.

    Two stores share the limits: rows with a maximum above an observed bound (the largest maxima
    of every point are never given up for others, the rest is a random choice), and a uniform
    reservoir over all offered rows.

    Args:
        directory: `<state_dir>/captures/<process>/`; made with mode 0700 at the first capture.
        model: Name given to `watch`.
        profile_digest: Digest of the profile in force, "" without one.
        points: Names of the points, in the order of `CaptureRow.maxima`.
        options: Limits.

    Cost: a row that is not kept costs a comparison over P maxima; one that is kept a file and an
    fsync. A stationary stream of n rows writes the reservoir about `k (1 + ln(n / k))` times.
    """

    def __init__(
        self,
        directory: Path | str,
        model: str,
        profile_digest: str,
        points: tuple[str, ...],
        options: CaptureOptions | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._options = options or CaptureOptions()
        self._points = points
        self._digest = points_digest(points)
        self._model = model
        self._profile = profile_digest
        rng = np.random.default_rng(self._options.seed)
        room = self._options.max_count - self._options.reservoir
        per_point = max(1, min(self._options.per_point, room // (2 * max(len(points), 1))))
        self._uncovered_room = room
        self._uncovered = ExtremesAndRest(len(points), per_point, rng)
        self._uniform = UniformReservoir(self._options.reservoir, rng)
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._seen_uncovered = 0
        self._dropped = 0
        self._index_is_stale = False
        self._indexed = 0

    @property
    def directory(self) -> Path:
        """Where the captures are."""
        return self._directory

    @property
    def count(self) -> int:
        """Number of files kept now."""
        return len(self._sizes)

    @property
    def size_bytes(self) -> int:
        """Size of all files kept now."""
        return self._bytes

    def offer(self, row: CaptureRow) -> DropReason | None:
        """Show one observed row to both stores.

        Returns:
            Why something that should have been kept was lost (this row, or an older one that
            made room for it), None when nothing was.

        Raises:
            ConfigurationError: `row.maxima` does not have one figure per point, or
                `row.inclusion` is not in (0, 1].
            OSError: A file could not be written for another reason than lack of space.
        """
        if row.maxima.shape != (len(self._points),):
            raise ConfigurationError(
                f"maxima of shape {row.maxima.shape} were offered for {len(self._points)} points"
            )
        if not 0.0 < row.inclusion <= 1.0:
            raise ConfigurationError(
                f"the inclusion of an observed row is a probability in (0, 1], got {row.inclusion}"
            )
        inputs = self._permitted(row.inputs)
        if inputs is None:
            return DropReason.UNSUITABLE_INPUT
        if sum(array.nbytes for array in inputs.values()) > self._options.max_sample_bytes:
            return DropReason.CAPTURE_LIMIT
        # Rows that can never be kept are no part of what the reservoir is a sample of.
        self._index_is_stale = True
        place = self._uniform.choose()
        self._seen_uncovered += row.uncovered
        wanted = row.uncovered and self._uncovered_room > 0
        if place is None and not wanted:
            if self._uniform.seen > _INDEX_GROWTH * self._indexed:
                self.flush()
            return None
        reasons = [
            self._keep_uncovered(row, inputs) if wanted else None,
            self._keep_uniform(row, inputs, place) if place is not None else None,
        ]
        self.flush()
        return next((reason for reason in reasons if reason is not None), None)

    def flush(self) -> None:
        """Bring `index.json` up to date; a full disk leaves the older one.

        `offer` does so by itself whenever a file changes and whenever 5 % more rows were seen, so
        that inclusions are at most 5 % too high; call this at the end of a watch.

        Raises:
            OSError: It could not be written for another reason than lack of space.
        """
        self._indexed = self._uniform.seen
        if not self._index_is_stale or not self._directory.exists():
            return
        index = CaptureIndex(
            model=self._model,
            profile=self._profile,
            points_digest=self._digest,
            seen=self._uniform.seen,
            seen_uncovered=self._seen_uncovered,
            reservoir=self._uniform.capacity,
            dropped=self._dropped,
        )
        self._index_is_stale = not self._written(
            self._directory / INDEX_NAME, index.to_json().encode()
        )

    def _permitted(self, inputs: Inputs) -> Inputs | None:
        """What of the inputs may be kept; None for nothing."""
        if self._options.inputs is not None:
            inputs = {name: inputs[name] for name in self._options.inputs if name in inputs}
        if self._options.redact is not None:
            try:
                redacted = self._options.redact(inputs)
            except Exception:  # the host's own function: without its word nothing is kept
                return None
            if not isinstance(redacted, Mapping):
                return None
            inputs = redacted
        return inputs if is_suitable(inputs) else None

    def _keep_uncovered(self, row: CaptureRow, inputs: Inputs) -> DropReason | None:
        key = uuid.uuid4().hex
        self._uncovered.admit(key, row.maxima)
        before = self._dropped
        if len(self._uncovered) > self._uncovered_room and self._evict() == key:
            return DropReason.CAPTURE_LIMIT  # not even encoded: the common case of a full store
        blob = self._encode(key, row, inputs, CaptureKind.UNCOVERED)
        while self._bytes + len(blob) > self._options.max_bytes:
            # Alone with a full reservoir, the row itself is the last one to go.
            if self._evict() == key:
                return DropReason.CAPTURE_LIMIT
        written = False
        try:
            written = self._write(key, blob)
        finally:
            if not written:
                self._uncovered.remove(key)
                self._dropped += 1
        if not written:
            return DropReason.DISK_FULL
        return DropReason.CAPTURE_LIMIT if self._dropped > before else None

    def _keep_uniform(self, row: CaptureRow, inputs: Inputs, place: int) -> DropReason | None:
        key = uuid.uuid4().hex
        blob = self._encode(key, row, inputs, CaptureKind.UNIFORM)
        older = self._uniform.at(place)
        freed = 0 if older is None else self._sizes[older]
        lost: DropReason | None = None
        while self._bytes - freed + len(blob) > self._options.max_bytes and len(self._uncovered):
            lost = DropReason.CAPTURE_LIMIT
            self._evict()
        if self._bytes - freed + len(blob) > self._options.max_bytes:
            if older is None:
                self._uniform.freeze()
            return DropReason.CAPTURE_LIMIT
        if not self._write(key, blob):
            if older is None:
                self._uniform.freeze()
            return DropReason.DISK_FULL
        self._uniform.put(place, key)
        if older is not None:
            self._unlink(older)
        return lost

    def _evict(self) -> str:
        """Give up the least wanted uncovered row; returns its key."""
        victim = self._uncovered.evict()
        self._dropped += 1
        self._unlink(victim)
        return victim

    def _encode(self, key: str, row: CaptureRow, inputs: Inputs, kind: CaptureKind) -> bytes:
        header = {
            "id": key,
            "kind": kind.value,
            "model": self._model,
            "profile": self._profile,
            "points": json.dumps(self._points, ensure_ascii=False),
            "points_digest": self._digest,
        }
        return encode_capture(row, inputs, header)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}{CAPTURE_SUFFIX}"

    def _write(self, key: str, blob: bytes) -> bool:
        if not self._written(self._path(key), blob):
            return False
        self._sizes[key] = len(blob)
        self._bytes += len(blob)
        return True

    def _written(self, path: Path, blob: bytes) -> bool:
        try:
            write_privately(path, blob)
        except OSError as error:
            if error.errno in _NO_SPACE:
                return False
            raise
        return True

    def _unlink(self, key: str) -> None:
        size = self._sizes.pop(key, None)
        if size is not None:
            self._bytes -= size
            self._path(key).unlink(missing_ok=True)
