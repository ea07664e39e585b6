"""Which captures to keep when there is no room for all: two bounded choices, no files."""

from __future__ import annotations

import heapq
from typing import final

import numpy as np
from numpy.typing import NDArray


@final
class UniformReservoir:
    """A uniform sample of fixed size of all rows offered so far (Algorithm R, Vitter 1985).

    After n rows each of them is here with probability `min(1, capacity / n)`.
    """

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        self._capacity = capacity
        self._rng = rng
        self._kept: list[str] = []
        self.seen = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def capacity(self) -> int:
        """Most rows kept; `freeze` may have lowered it."""
        return self._capacity

    def choose(self) -> int | None:
        """Count one more row; returns the place it takes (`len` for a new one), None for none."""
        self.seen += 1
        if len(self._kept) < self._capacity:
            return len(self._kept)
        place = int(self._rng.integers(self.seen))
        return place if place < self._capacity else None

    def put(self, place: int, key: str) -> str | None:
        """Keep `key` at a place that `choose` gave; returns the key that was there."""
        if place == len(self._kept):
            self._kept.append(key)
            return None
        replaced, self._kept[place] = self._kept[place], key
        return replaced

    def at(self, place: int) -> str | None:
        """The key at a place, None for a new place."""
        return self._kept[place] if place < len(self._kept) else None

    def freeze(self) -> None:
        """Stay at the present size (no room for more); the sample stays uniform.

        Call it in place of `put` for the row that found no room.
        """
        self._capacity = len(self._kept)


@final
class ExtremesAndRest:
    """Keeps the rows with the largest maxima of every point, and a random share of the others.

    Source: the pool of Sieve-Streaming style selectors. It contains the row of the largest
    maximum of every point ever offered, hence a selector that only sees this pool attains full
    range coverage. Every row gets one random priority; among the rows that are nobody's extreme,
    those of the lowest priority leave first.

    Cost of `admit`: one comparison over P maxima, plus log2(per_point) for each point whose
    extremes change (logarithmically few of a stationary stream).
    """

    def __init__(self, points: int, per_point: int, rng: np.random.Generator) -> None:
        self._per_point = per_point
        self._rng = rng
        self._heaps: list[list[tuple[float, str]]] = [[] for _ in range(points)]
        self._floors: NDArray[np.float64] = np.full(points, -np.inf)
        self._held: dict[str, int] = {}
        self._priority: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, key: str, maxima: NDArray[np.float32]) -> None:
        """Add a row. Maxima that are not a number are nobody's extreme.

        Args:
            key: Name of the row.
            maxima: float32 (P,), largest magnitude per point.
        """
        self._held[key] = 0
        self._priority[key] = float(self._rng.random())
        with np.errstate(invalid="ignore"):
            rising = np.flatnonzero(maxima > self._floors)
        for point in rising.tolist():
            heap = self._heaps[point]
            entry = (float(maxima[point]), key)
            if len(heap) < self._per_point:
                heapq.heappush(heap, entry)
            else:
                _, loser = heapq.heapreplace(heap, entry)
                self._held[loser] -= 1
            self._held[key] += 1
            if len(heap) == self._per_point:
                self._floors[point] = heap[0][0]

    def evict(self) -> str:
        """Remove the row that is the extreme of the fewest points, lowest priority first.

        Raises:
            ValueError: There are no rows.
        """
        weakest = min(self._held, key=lambda key: (self._held[key], self._priority[key]))
        self.remove(weakest)
        return weakest

    def remove(self, key: str) -> None:
        """Forget a row; unknown rows are ignored."""
        holds = self._held.pop(key, 0)
        self._priority.pop(key, None)
        if not holds:
            return
        for point, heap in enumerate(self._heaps):
            left = [entry for entry in heap if entry[1] != key]
            if len(left) < len(heap):
                heapq.heapify(left)
                self._heaps[point] = left
                self._floors[point] = -np.inf
