"""Which captures to keep when there is no room for all: two bounded choices, no files."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray


@final
class UniformReservoir:
    """A uniform sample of bounded size of the rows that were offered and have not expired.

    Algorithm R (Vitter 1985); once rows expire, random pairing (Gemulla, Lehner and Haas 2006): an
    expired row gives its place, in the sample or outside of it, to a later one. Whatever the
    traffic did, every row of the population is here with probability `inclusion`, and all subsets
    of that size are equally likely.

    Attributes:
        seen: Rows of the population, those outside of the sample included.
        period: Number of the current period; rows expire by the period in which they came.
    """

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        self._capacity = capacity
        self._rng = rng
        self._kept: list[str] = []
        self._born: dict[str, int] = {}
        self._arrivals: deque[list[int]] = deque()
        self._gaps = self._outside = 0
        self.seen = 0
        self.period = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def capacity(self) -> int:
        """Most rows kept; `freeze` may have lowered it."""
        return self._capacity

    @property
    def inclusion(self) -> float:
        """Probability that a row of the population is in the sample; 1 without a population."""
        return len(self._kept) / self.seen if self.seen else 1.0

    def choose(self) -> int | None:
        """Count one more row; returns the place it takes (`len` for a new one), None for none."""
        self.seen += 1
        if not self._arrivals or self._arrivals[-1][0] != self.period:
            self._arrivals.append([self.period, 0])
        self._arrivals[-1][1] += 1
        if unpaired := self._gaps + self._outside:
            if int(self._rng.integers(unpaired)) < self._gaps:
                self._gaps -= 1
                return len(self._kept)
            self._outside -= 1
            return None
        if len(self._kept) < self._capacity:
            return len(self._kept)
        place = int(self._rng.integers(self.seen))
        return place if place < self._capacity else None

    def put(self, place: int, key: str) -> str | None:
        """Keep `key` at a place that `choose` gave; returns the key that was there."""
        self._born[key] = self.period
        if place == len(self._kept):
            self._kept.append(key)
            return None
        replaced, self._kept[place] = self._kept[place], key
        del self._born[replaced]
        return replaced

    def at(self, place: int) -> str | None:
        """The key at a place, None for a new place."""
        return self._kept[place] if place < len(self._kept) else None

    def freeze(self) -> int | None:
        """Stay at the present size (no room for more), and draw again for the row without room.

        Returns:
            The place of another row that it may take instead; the sample stays uniform if it
            does. None for none.
        """
        self._capacity = len(self._kept)
        self._gaps = self._outside = 0
        place = int(self._rng.integers(self.seen))
        return place if place < self._capacity else None

    def expire(self, oldest: int) -> list[str]:
        """Forget the rows of all periods before `oldest`; returns the keys that were kept."""
        rows = 0
        while self._arrivals and self._arrivals[0][0] < oldest:
            rows += self._arrivals.popleft()[1]
        gone = [key for key in self._kept if self._born[key] < oldest]
        for key in gone:
            self._kept.remove(key)
            del self._born[key]
        self.seen -= rows
        if self._capacity:
            self._gaps += len(gone)
            self._outside += rows - len(gone)
        return gone


@final
class ExtremesAndRest:
    """Keeps the rows with the largest maxima of every point, and a random share of the others.

    Source: the pool of Sieve-Streaming style selectors. It contains the row of the largest
    maximum of every point ever offered, hence a selector that only sees this pool attains full
    range coverage. Every row gets one random priority; among the rows that are nobody's extreme,
    those of the lowest priority leave first.

    Which rows are extremes does not depend on chance: their inclusion is 1. Any other row is here
    because its priority lies above all those that left while it could have left itself. With `f`
    the largest of these its inclusion is 1 - f, given the other rows (Cohen and Kaplan 2007, rank
    conditioning): sums of y / inclusion are unbiased.

    Cost of `admit`: one comparison over P maxima, plus log2(per_point) for each point whose
    extremes change (logarithmically few of a stationary stream). Of `evict`: one pass over all.
    """

    def __init__(self, points: int, per_point: int, rng: np.random.Generator) -> None:
        self._per_point = per_point
        self._rng = rng
        self._heaps: list[list[tuple[float, str]]] = [[] for _ in range(points)]
        self._floors: NDArray[np.float64] = np.full(points, -np.inf)
        self._held: dict[str, int] = {}
        self._priority: dict[str, float] = {}
        self._passed: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._held)

    def inclusion(self, key: str) -> float:
        """Probability with which a row that is here is here.

        An upper bound where there was so little room that an extreme had to leave.
        """
        return 1.0 if self._held[key] else 1.0 - self._passed[key]

    def chances(self) -> dict[str, float]:
        """The inclusion of all rows that are here by chance."""
        return {key: 1.0 - passed for key, passed in self._passed.items() if not self._held[key]}

    def admit(self, key: str, maxima: NDArray[np.float32]) -> None:
        """Add a row. Maxima that are not a number are nobody's extreme.

        Args:
            key: Name of the row.
            maxima: float32 (P,), largest magnitude per point.
        """
        self._held[key] = 0
        self._priority[key] = float(self._rng.random())
        self._passed[key] = 0.0
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
        if not self._held[weakest]:
            passed = self._priority[weakest]
            for key, held in self._held.items():
                if not held:
                    self._passed[key] = max(self._passed[key], passed)
        self.remove(weakest)
        return weakest

    def remove(self, *keys: str) -> None:
        """Forget rows; unknown ones are ignored."""
        self._forget(key for key in keys if key in self._held)

    def _forget(self, keys: Iterable[str]) -> None:
        extremes = set()
        for key in keys:
            del self._priority[key], self._passed[key]
            if self._held.pop(key):
                extremes.add(key)
        if not extremes:
            return
        for point, heap in enumerate(self._heaps):
            left = [entry for entry in heap if entry[1] not in extremes]
            if len(left) < len(heap):
                heapq.heapify(left)
                self._heaps[point] = left
                self._floors[point] = -np.inf
