"""Putting the gate of a watch into its model and taking it out, so that the rest stays the same."""

from calidrift_agent import Watch
from calidrift_agent._observe import Gate


def gate_of(one: Watch) -> Gate:
    """Gives the gate of a watch."""
    assert one._active is not None
    return one._active.engine._parts.gate


def take_out(gate: Gate) -> None:
    """Leaves the model as it was before `watch`; `gate.attach` undoes it."""
    if gate._attribute is None:
        return
    if gate._found is None:
        del gate.owner.__dict__[gate._attribute]
    else:
        gate.owner.__dict__[gate._attribute] = gate._found
