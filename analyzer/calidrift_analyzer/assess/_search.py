"""Search for the first number that satisfies a condition."""

from collections.abc import Callable
from typing import Final

__all__ = ["first_number"]

_LONGEST: Final = 2**40
"""Numbers beyond which an event counts as never."""


def first_number(reached: Callable[[int], bool]) -> int | None:
    """Smallest number from 1 on that satisfies a condition which, once true, stays true.

    Args:
        reached: The condition; asked about 80 times at most.

    Returns:
        The number, or `None` where it lies beyond 2^40.

    Example:
        >>> first_number(lambda number: number * number > 50)
        8
    """
    high = 1
    while not reached(high):
        high *= 2
        if high > _LONGEST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
