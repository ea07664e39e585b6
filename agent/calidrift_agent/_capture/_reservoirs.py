"""A uniform reservoir per segment."""

from __future__ import annotations

from typing import final

import numpy as np

from calidrift_agent._capture._choice import UniformReservoir
from calidrift_agent._capture._index import SHARED, segment_key


@final
class Reservoirs:
    """The first segments have a reservoir of their own, all further ones share the last.

    Args:
        capacity: Rows of each.
        own: Segments that have their own.
        rng: Random numbers of all of them.
    """

    def __init__(self, capacity: int, own: int, rng: np.random.Generator) -> None:
        self._size = capacity
        self._own = own
        self._rng = rng
        self._period = 0
        self._all: dict[str, UniformReservoir] = {}

    def of(self, segment: str) -> UniformReservoir:
        """The reservoir of a segment; the first row of a segment may open one."""
        key = segment_key(segment)
        if key not in self._all:
            named = len(self._all) - (SHARED in self._all)
            key = key if named < self._own else SHARED
        if key not in self._all:
            self._all[key] = UniformReservoir(self._size, self._rng)
            self._all[key].period = self._period
        return self._all[key]

    @property
    def rooms(self) -> int:
        """Files that the reservoirs have room for now."""
        return self._size * len(self._all)

    @property
    def seen(self) -> int:
        """Rows that they are samples of."""
        return sum(one.seen for one in self._all.values())

    @property
    def rates(self) -> dict[str, float]:
        """Inclusion per reservoir, of those that hold anything."""
        return {key: one.inclusion for key, one in self._all.items() if len(one)}

    def advance(self, period: int, lifetime: int) -> list[str]:
        """Begin a period and forget rows of those that are `lifetime` or more periods back.

        Returns:
            The keys of kept rows that are forgotten.
        """
        self._period = period
        gone = []
        for one in self._all.values():
            one.period = period
            gone.extend(one.expire(period - lifetime + 1))
        return gone
