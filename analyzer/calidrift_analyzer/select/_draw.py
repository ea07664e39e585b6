"""A weighted random order that depends on the seed and the names only."""

from collections.abc import Sequence
from hashlib import blake2b
from math import log

__all__ = ["random_order"]


def random_order(ids: Sequence[str], inclusion: Sequence[float], seed: int) -> list[int]:
    """Order requests at random so that any prefix stands for the traffic, not for the captures.

    Requests that were captured with probability p count 1 / p times (Efraimidis and Spirakis 2006:
    sort by an exponential variable of that rate). The variable comes from a hash of seed and id, so
    the order does not depend on the order of the rows, and a new request does not reshuffle others.

    Args:
        ids: Names.
        inclusion: Inclusion probability of each, in (0, 1].
        seed: Any integer.

    Returns:
        Row numbers.
    """
    keys = [
        (-log(_uniform(seed, name)) * probability, name, row)
        for row, (name, probability) in enumerate(zip(ids, inclusion, strict=True))
    ]
    return [row for _, _, row in sorted(keys)]


def _uniform(seed: int, name: str) -> float:
    digest = blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2.0**64
