"""Which modules are fed by one tensor, where that cannot be read off the tensor itself."""

from random import Random
from typing import Final, final

_CONFIRMATIONS: Final = 3
"""Times that two points must have held equal values before one of them is no longer cloned."""
_AUDIT: Final = 1 / 16
"""Share of the calls in which a trusted pair is cloned and compared all the same."""


@final
class Sharing:
    """Learns which points are fed by the same, unchanged tensor (query, key and value layers).

    Tensors of inference mode do not count writes, so the same object may hold other values at
    the next layer (an in-place activation between them). Whether code does that is a property of
    the model: pairs are compared a few times, then trusted, and compared again now and then; one
    difference and a pair is never trusted again.

    Threads share one instance; a lost update costs one comparison.

    Example:
        >>> sharing = Sharing()
        >>> for _ in range(3):
        ...     sharing.compared(0, 1, equal=True)
        >>> any(sharing.trusts(0, 1) for _ in range(100))
        True
        >>> sharing.compared(0, 1, equal=False)
        >>> any(sharing.trusts(0, 1) for _ in range(100))
        False
    """

    __slots__ = ("_confirmed", "_random")

    def __init__(self) -> None:
        self._confirmed: dict[tuple[int, int], int] = {}
        self._random = Random()

    def trusts(self, first: int, second: int) -> bool:
        """Whether `second` may be taken to hold what `first` just held."""
        confirmed = self._confirmed.get((first, second), 0)
        return confirmed >= _CONFIRMATIONS and self._random.random() >= _AUDIT

    def compared(self, first: int, second: int, *, equal: bool) -> None:
        """Take in a comparison of the values of two points."""
        confirmed = self._confirmed.get((first, second), 0)
        if not equal or confirmed < 0:
            self._confirmed[first, second] = -1
        else:
            self._confirmed[first, second] = confirmed + 1
