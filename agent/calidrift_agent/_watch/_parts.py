"""What the engine of a watch is made of."""

from dataclasses import dataclass
from typing import final

from calidrift_agent._attach import WatchOptions
from calidrift_agent._observe import Decider, Gate, Sampler
from calidrift_agent._state import StateMeta
from calidrift_agent._taps import Ledger, PointTable
from calidrift_agent._watch._allowed import AllowedInputs
from calidrift_agent._watch._storage import Storage


@final
@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What an engine is made of.

    Attributes:
        gate: The gate in the model.
        table: Points and bounds.
        sampler: Draws decisions and rows.
        decider: Puts decisions into the gate.
        ledger: Errors and drops.
        meta: Identity of the first process; a forked child gets one of its own.
        storage: Files.
        options: As given to `watch`.
        sample_rate: Upper limit of the sampling ratio.
        allowed: Which inputs captures may hold; None for all of them.
    """

    gate: Gate
    table: PointTable
    sampler: Sampler
    decider: Decider
    ledger: Ledger
    meta: StateMeta
    storage: Storage
    options: WatchOptions
    sample_rate: float
    allowed: AllowedInputs | None = None
