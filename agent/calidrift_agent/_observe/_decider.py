"""Who decides whether a call is observed: chance, or the key of its request."""

from typing import Final, final

from calidrift_agent._observe._context import current_context, listen, unlisten
from calidrift_agent._observe._gate import Gate
from calidrift_agent._observe._sampling import LOOK, NO_DECISIONS, RENEW, SAMPLED, Sampler

_LOOKED: Final = bytes(entry | LOOK for entry in range(256))
"""Turns a table of decisions into one that asks for a look at each call."""


@final
class Decider:
    """Fills the gate with decisions, and says which of the calls that it lets through are observed.

    An unsampled call must not pay for asking after a key. So entering a keyed block pays: where
    its key is selected, all decisions of the gate ask for a look until the block is left; where it
    is not, nothing changes but that a call drawn by chance is passed over.

    Args:
        gate: The gate in the model.
        sampler: Draws decisions.
        every: Whether to look at each call anyway (models whose calls may be decode steps).
    """

    __slots__ = (
        "__weakref__",
        "_changed",
        "_every",
        "_gate",
        "_looking",
        "_open",
        "_plain",
        "_sampler",
    )

    def __init__(self, gate: Gate, sampler: Sampler, *, every: bool = False) -> None:
        self._gate = gate
        self._sampler = sampler
        self._every = every
        self._plain = self._looking = NO_DECISIONS
        self.reset()

    def reset(self) -> None:
        """Forget the open blocks: a fork brought along only those of its own thread."""
        self._open: set[object] = set()
        self._changed = object()

    def start(self) -> None:
        """Begin to decide, and to listen for keys, those of open blocks included.

        Again after `reset`, in the child of a fork.
        """
        self.renew(ask_first=True)
        listen(self)

    def stop(self) -> None:
        """Listen no longer; safe to repeat."""
        unlisten(self)

    def renew(self, *, ask_first: bool = False) -> None:
        """Draw new decisions, at the sampler's present ratio (40 us).

        Args:
            ask_first: Whether the gate asks about the first call of a process in any case.
        """
        plain = self._sampler.draw(ask_first=ask_first)
        self._looking = plain.translate(_LOOKED)
        self._plain = plain
        self._publish()

    def observes(self, decision: int) -> bool:
        """Whether a call of this thread is observed, given the decision that it met at the gate.

        Cost: 0.3 us; 1.5 us for a keyed request.
        """
        if decision & RENEW:
            self.renew()
        key = current_context().key
        if key is not None:
            return self._sampler.selects(key)
        return bool(decision & SAMPLED)

    def row(self, rows: int) -> int:
        """Return a random row of a request."""
        return self._sampler.row(rows)

    def opened(self, key: str, ticket: object) -> bool:
        """See `KeyListener`. Cost: 1.2 us."""
        if not self._sampler.selects(key):
            return False
        self._open.add(ticket)
        self._changed = object()
        self._publish()
        return True

    def closed(self, ticket: object) -> None:
        """See `KeyListener`."""
        self._open.discard(ticket)
        self._changed = object()
        if not self._open:
            self._publish()

    def _publish(self) -> None:
        """Give the gate its table, again if another thread changed what it should hold."""
        gate = self._gate
        while True:
            plain, changed = self._plain, self._changed
            gate.decisions = self._looking if self._every or self._open else plain
            if gate.observe is None:  # the watch was closed meanwhile
                gate.decisions = NO_DECISIONS
            if plain is self._plain and changed is self._changed:
                return
