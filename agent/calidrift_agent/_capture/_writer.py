"""Keeps rows of production traffic as files, within fixed limits."""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import numpy as np

from calidrift_agent._capture._choice import ExtremesAndRest, UniformReservoir
from calidrift_agent._capture._expiry import Leftovers
from calidrift_agent._capture._file import (
    CAPTURE_SUFFIX,
    CaptureRow,
    encode_capture,
    is_suitable,
    points_digest,
)
from calidrift_agent._capture._folder import CaptureFolder
from calidrift_agent._capture._index import CaptureIndex
from calidrift_agent._capture._limits import HourLimit, disk_use
from calidrift_agent._capture._options import CaptureOptions, Inputs
from calidrift_agent._capture._reservoirs import Reservoirs
from calidrift_agent._capture._sealing import SEALED_SUFFIX, KeyRing
from calidrift_agent._vocabulary import CaptureKind, DropReason
from calidrift_agent.errors import ConfigurationError

_INDEX_GROWTH: Final = 1.05
"""Rows seen may outgrow the index by this factor before it is written again."""
_PERIODS: Final = 24
"""Parts of the time to live; a capture is deleted within the last one."""
_BITE: Final = 64
"""Files that one call of `tidy` looks at or deletes."""
_SWEEP_SECONDS: Final = 600.0
"""Pause between two rounds over what other processes have left."""


@final
class CaptureWriter:
    """Writes captures of one watched model; one thread offers, never the request thread.

    Two stores share the limits: rows with a maximum above an observed bound (the largest maxima
    of every point are never given up for others, the rest is a random choice), and a uniform
    reservoir per segment over all offered rows.

    Args:
        directory: `<state_dir>/captures/<process>/`; made with mode 0700 at the first capture.
        model: Name given to `watch`.
        profile_digest: Digest of the profile in force, "" without one.
        points: Names of the points, in the order of `CaptureRow.maxima`.
        options: Limits.

    Cost: a row that is not kept costs a comparison over P maxima; one that is kept a file and an
    fsync. A stationary stream of n rows writes a reservoir about `k (1 + ln(n / k))` times.
    """

    def __init__(
        self,
        directory: Path | str,
        model: str,
        profile_digest: str,
        points: tuple[str, ...],
        options: CaptureOptions | None = None,
    ) -> None:
        self._options = options = options or CaptureOptions()
        self._points = points
        self._digest = points_digest(points)
        self._model = model
        self._profile = profile_digest
        rng = np.random.default_rng(options.seed)
        size = options.reservoir
        most = options.max_count // (2 * size) if size else 1
        reservoirs = max(1, min(options.segments + 1, most))
        least_room = options.max_count - size * reservoirs
        per_point = max(1, min(options.per_point, least_room // (2 * max(len(points), 1))))
        self._uncovered = ExtremesAndRest(len(points), per_point, rng)
        self._uniform = Reservoirs(size, reservoirs - 1, rng)
        self._hour = HourLimit(options.max_per_hour)
        self._ring = KeyRing() if options.encrypt else None
        suffix = SEALED_SUFFIX if options.encrypt else CAPTURE_SUFFIX
        self._folder = CaptureFolder(Path(directory), suffix)
        self._seen_uncovered = self._dropped = self._refused = 0
        self._indexed = (0, 0, 0)
        self._index_is_stale = False
        self._born: dict[str, int] = {}
        self._condemned: deque[str] = deque()
        ttl = options.ttl_hours
        self._width = None if ttl is None else ttl * 3600.0 / _PERIODS
        self._period = self._now()
        self._uniform.advance(self._period, _PERIODS)
        self._leftovers = None if ttl is None else Leftovers(self._folder.path, model, ttl * 3600.0)
        self._next_sweep = 0.0

    @property
    def directory(self) -> Path:
        """Where the captures are."""
        return self._folder.path

    @property
    def count(self) -> int:
        """Number of files kept now."""
        return len(self._folder)

    @property
    def size_bytes(self) -> int:
        """Size of all files kept now."""
        return self._folder.size_bytes

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
        if isinstance(inputs, DropReason):
            return inputs
        if sum(array.nbytes for array in inputs.values()) > self._options.max_sample_bytes:
            return DropReason.CAPTURE_LIMIT
        # Rows that can never be kept are no part of what a reservoir is a sample of, nor are those
        # that come while nothing is written: it must stay uniform over the rows that it counts.
        reservoir = self._uniform.of(row.segment)
        wanted = row.uncovered and self._uncovered_room > 0
        self._index_is_stale = True
        refusal = self._refusal()
        if refusal is not None:
            self._refused += 1
            return refusal if wanted or len(reservoir) < reservoir.capacity else None
        place = reservoir.choose()
        self._seen_uncovered += row.uncovered
        before = self._folder.written
        reasons = [
            self._make_room(),
            self._keep_uncovered(row, inputs) if wanted else None,
            self._keep_uniform(row, inputs, reservoir, place) if place is not None else None,
        ]
        if self._folder.written != before:
            self._hour.count()
        if self._index_is_due:
            self.flush()
        return next((reason for reason in reasons if reason is not None), None)

    def tidy(self) -> None:
        """Delete what has reached its time to live, a bounded number of files per call.

        Captures of this process count by the time of their request; those that other processes of
        the same model have left beside them, by the time of their file.

        Raises:
            OSError: A file cannot be deleted.
        """
        period = self._now()
        if period != self._period:
            self._period = period
            self._index_is_stale = True
            old = [key for key, born in self._born.items() if born <= period - _PERIODS]
            self._uncovered.remove(*old)
            for key in old:
                del self._born[key]
            self._condemned.extend((*old, *self._uniform.advance(period, _PERIODS)))
        if self._condemned:
            for _ in range(min(_BITE, len(self._condemned))):
                self._folder.remove(self._condemned.popleft())
            self.flush()
        elif (
            self._leftovers is not None
            and time.monotonic() >= self._next_sweep
            and self._leftovers.sweep(_BITE)
        ):
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS

    def flush(self) -> None:
        """Bring `index.json` up to date; a full disk leaves the older one.

        `offer` does so by itself whenever a file changes and whenever 5 % more rows were seen, so
        that inclusions are at most 5 % too high; call this at the end of a watch.

        Raises:
            OSError: It could not be written for another reason than lack of space.
        """
        self._indexed = (self._uniform.seen, self._seen_uncovered, self._folder.changes)
        if not self._index_is_stale or not self._folder.path.exists():
            return
        index = CaptureIndex(
            model=self._model,
            profile=self._profile,
            points_digest=self._digest,
            seen=self._uniform.seen,
            seen_uncovered=self._seen_uncovered,
            dropped=self._dropped,
            refused=self._refused,
            reservoirs=self._uniform.rates,
            chances={key: p for key, p in self._uncovered.chances().items() if p < 1.0},
        )
        self._index_is_stale = not self._folder.write_index(index)

    def release(self) -> None:
        """Let go of the folder: from now on it is that of a dead process. Safe to repeat.

        In a forked child this leaves the lock with the parent. Call `flush` before, not after.
        """
        self._folder.release()

    @property
    def _uncovered_room(self) -> int:
        return self._options.max_count - self._uniform.rooms

    @property
    def _index_is_due(self) -> bool:
        seen, uncovered, changes = self._indexed
        return (
            self._folder.changes != changes
            or self._uniform.seen > _INDEX_GROWTH * seen
            or self._seen_uncovered > _INDEX_GROWTH * uncovered
        )

    def _now(self) -> int:
        """Number of the present period."""
        return 0 if self._width is None else int(time.monotonic() / self._width)

    def _refusal(self) -> DropReason | None:
        """Why nothing is written at all at present; must not depend on the row."""
        if self._hour.reached:
            return DropReason.RATE_LIMIT
        if self._ring is not None and not self._ring.usable:
            return DropReason.NO_KEY
        use = disk_use(self._folder.path)
        if use is not None and use > self._options.max_disk_use:
            return DropReason.DISK_FULL
        return None

    def _permitted(self, inputs: Inputs) -> Inputs | DropReason:
        """What of the inputs may be kept, or why nothing."""
        if self._options.inputs is not None:
            inputs = {name: inputs[name] for name in self._options.inputs if name in inputs}
        if self._options.redact is not None:
            try:
                # Copies: rows share the inputs that have no batch dimension.
                redacted = self._options.redact({name: x.copy() for name, x in inputs.items()})
            except (Exception, SystemExit, GeneratorExit):
                # The host's own function: without its word nothing is kept.
                return DropReason.REDACTED
            if not isinstance(redacted, Mapping) or not redacted:
                return DropReason.REDACTED
            inputs = redacted
        return inputs if is_suitable(inputs) else DropReason.UNSUITABLE_INPUT

    def _make_room(self) -> DropReason | None:
        """Shrink the store of uncovered rows to what the reservoirs have left it."""
        lost = None
        while len(self._uncovered) > self._uncovered_room:
            self._evict()
            lost = DropReason.CAPTURE_LIMIT
        return lost

    def _keep_uncovered(self, row: CaptureRow, inputs: Inputs) -> DropReason | None:
        key = uuid.uuid4().hex
        self._uncovered.admit(key, row.maxima)
        self._born[key] = self._period
        before = self._dropped
        if len(self._uncovered) > self._uncovered_room and self._evict() == key:
            return DropReason.CAPTURE_LIMIT  # not even encoded: the common case of a full store
        blob = self._encode(key, row, inputs, CaptureKind.UNCOVERED)
        while self._folder.size_bytes + len(blob) > self._options.max_bytes:
            # Alone with a full reservoir, the row itself is the last one to go.
            if self._evict() == key:
                return DropReason.CAPTURE_LIMIT
        written = False
        try:
            written = self._folder.write(key, blob)
        finally:
            if not written:
                self._uncovered.remove(key)
                del self._born[key]
                self._dropped += 1
        if not written:
            return DropReason.DISK_FULL
        return DropReason.CAPTURE_LIMIT if self._dropped > before else None

    def _keep_uniform(
        self, row: CaptureRow, inputs: Inputs, reservoir: UniformReservoir, place: int
    ) -> DropReason | None:
        key = uuid.uuid4().hex
        blob = self._encode(key, row, inputs, CaptureKind.UNIFORM)
        lost: DropReason | None = None
        while self._excess(blob, reservoir.at(place)) > 0 and len(self._uncovered):
            lost = DropReason.CAPTURE_LIMIT
            self._evict()
        if self._excess(blob, reservoir.at(place)) > 0:
            lost = DropReason.CAPTURE_LIMIT
            again = reservoir.freeze() if reservoir.at(place) is None else None
            if again is None or self._excess(blob, reservoir.at(again)) > 0:
                return lost
            place = again
        older = reservoir.at(place)
        if not self._folder.write(key, blob):
            if older is None:
                reservoir.freeze()
            return DropReason.DISK_FULL
        reservoir.put(place, key)
        if older is not None:
            self._folder.remove(older)
        return lost

    def _excess(self, blob: bytes, older: str | None) -> int:
        """Bytes over the limit if `blob` took the place of an older capture."""
        freed = 0 if older is None else self._folder.size_of(older)
        return self._folder.size_bytes - freed + len(blob) - self._options.max_bytes

    def _evict(self) -> str:
        """Give up the least wanted uncovered row; returns its key."""
        victim = self._uncovered.evict()
        del self._born[victim]
        self._dropped += 1
        self._folder.remove(victim)
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
        blob = encode_capture(row, inputs, header)
        return blob if self._ring is None else self._ring.seal(blob)
