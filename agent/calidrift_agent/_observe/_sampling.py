"""The sampling decision: drawn ahead for thousands of calls, looked up by each of them."""

from hashlib import blake2b
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
LOOK: Final = 4
"""Bit of a decision: look at the call itself (its key, or whether it is a decode step)."""
NO_DECISIONS: Final = bytes(DECISIONS)
"""Observe nothing, for ever."""
SALT_BYTES: Final = 64
"""Longest salt of the digest that decides keyed requests."""
_PERSON: Final = b"calidrift.key"


@final
class Sampler:
    """Draws tables of independent decisions: each call is observed with the same probability.

    A call takes the next number of a counter and looks up its decision, so that every decision
    is used by exactly one call whatever the number of threads. Nothing is periodic: the last
    entry of a table asks for a new one.

    Requests with a key are not drawn: a digest of the key is compared with the ratio.

    Args:
        ratio: Probability with which a call is observed, 0 to 1.
        seed: Seed of the generator; None for entropy of the system.
        salt: Makes the digests of keys another sequence, at most 64 bytes. The same in all
            processes that are to decide alike.

    Example:
        >>> table = Sampler(1.0, seed=0).draw()
        >>> len(table), table[0], table[-1]
        (8192, 1, 3)
    """

    __slots__ = ("_generator", "_random", "_salt", "_seed", "ratio")

    def __init__(self, ratio: float, seed: int | None = None, salt: bytes = b"") -> None:
        self.ratio = ratio
        self._seed = seed
        self._salt = salt
        self._generator = np.random.default_rng(seed)
        self._random = Random(seed).random

    def reseed(self, salt: int) -> None:
        """Decide otherwise than the process that this one was forked from."""
        self._generator = np.random.default_rng(None if self._seed is None else (self._seed, salt))
        self._random = Random(None if self._seed is None else self._seed ^ salt).random

    def draw(self, *, ask_first: bool = False) -> bytes:
        """Return decisions for the next `DECISIONS` calls (30 us).

        Args:
            ask_first: Whether the first call asks for the next table, too.
        """
        decisions = self._generator.random(DECISIONS, dtype=np.float32) < self.ratio
        table = decisions.astype(np.uint8)
        table[-1] |= RENEW
        if ask_first:
            table[0] |= RENEW
        return table.tobytes()

    def row(self, rows: int) -> int:
        """Return a random row of a request."""
        return int(self._random() * rows) if rows > 1 else 0

    def selects(self, key: str) -> bool:
        """Whether calls with this key are observed, at the present ratio.

        A digest of 64 bits, read as a number in [0, 1), is below the ratio. So the keys that are
        selected at a ratio are among those of any higher ratio, whichever process asks.

        Cost: 1.2 us.

        Example:
            >>> Sampler(0.0).selects("a"), Sampler(1.0).selects("a")
            (False, True)
        """
        data = key.encode(errors="surrogatepass")
        digest = blake2b(data, digest_size=8, key=self._salt, person=_PERSON).digest()
        return int.from_bytes(digest, "big") < self.ratio * 2.0**64
