"""The sampling decision: drawn ahead for thousands of calls, looked up by each of them."""

from random import Random
from typing import Final, final

import numpy as np

DECISIONS: Final = 1 << 13
"""Calls that one table decides; a power of two."""
MASK: Final = DECISIONS - 1
SAMPLED: Final = 1
"""Bit of a decision: observe this call."""
RENEW: Final = 2
"""Bit of a decision: draw the next table."""
NO_DECISIONS: Final = bytes(DECISIONS)
"""Observe nothing, for ever."""


@final
class Sampler:
    """Draws tables of independent decisions: each call is observed with the same probability.

    A call takes the next number of a counter and looks up its decision, so that every decision
    is used by exactly one call whatever the number of threads. Nothing is periodic: the last
    entry of a table asks for a new one.

    Args:
        ratio: Probability with which a call is observed, 0 to 1.
        seed: Seed of the generator; None for entropy of the system.

    Example:
        >>> table = Sampler(1.0, seed=0).draw()
        >>> len(table), table[0], table[-1]
        (8192, 1, 3)
    """

    __slots__ = ("_generator", "_random", "_seed", "ratio")

    def __init__(self, ratio: float, seed: int | None = None) -> None:
        self.ratio = ratio
        self._seed = seed
        self._generator = np.random.default_rng(seed)
        self._random = Random(seed).random

    def reseed(self, salt: int) -> None:
        """Decide otherwise than the process that this one was forked from."""
        self._generator = np.random.default_rng(None if self._seed is None else (self._seed, salt))
        self._random = Random(None if self._seed is None else self._seed ^ salt).random

    def draw(self) -> bytes:
        """Return decisions for the next `DECISIONS` calls (30 us)."""
        decisions = self._generator.random(DECISIONS, dtype=np.float32) < self.ratio
        table = decisions.astype(np.uint8)
        table[-1] |= RENEW
        return table.tobytes()

    def row(self, rows: int) -> int:
        """Return a random row of a request."""
        return int(self._random() * rows) if rows > 1 else 0
