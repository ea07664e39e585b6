"""The parts of a watch that observes, and what they have to say."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._attach import Attachment
from calidrift_agent._observe import Gate, View
from calidrift_agent._vocabulary import DropReason, RequestColumn
from calidrift_agent._watch._engine import Engine
from calidrift_agent._watch._storage import Storage
from calidrift_agent._watch._taken_in import TAKEN_IN

_ENOUGH_CALLS: Final = 20
"""Observed calls after which a point that never fired is worth a sentence."""
_LONG_SECONDS: Final = 60.0
"""How long a watch may be without any call before that is worth a sentence."""
_SHOWN: Final = 4
"""Points that it names."""
_LOST: Final = {
    DropReason.QUEUE_FULL: "too many were waiting to be counted",
    DropReason.UNSUITABLE_INPUT: (
        "their inputs cannot be copied or read: no dense tensors on the CPU, no rows, or a type "
        "that is not looked into"
    ),
    DropReason.STATEFUL_CALL: (
        "an input is neither a tensor nor plain data (a cache, an object), and a second run might "
        "change what the host goes on with"
    ),
}
"""Why calls were dropped that would have been observed."""


def silence_of(fired: Mapping[str, bool], calls: int) -> tuple[str, ...]:
    """A sentence about points that never fired, once enough calls were observed.

    Args:
        fired: Point to whether it fired.
        calls: Observed calls.

    Example:
        >>> silence_of({"a:input": True, "b:input": False}, 19)
        ()
        >>> silence_of({"a:input": True, "b:input": False}, 20)[0][:50]
        '1 of 2 points (b:input) never fired in 20 observed'
    """
    silent = [name for name, seen in fired.items() if not seen]
    if not silent or calls < _ENOUGH_CALLS:
        return ()
    more = f" and {len(silent) - _SHOWN} more" if len(silent) > _SHOWN else ""
    return (
        f"{len(silent)} of {len(fired)} points ({', '.join(silent[:_SHOWN])}{more}) never fired in "
        f"{calls} observed calls: either no call reaches these layers, or they are called past the "
        "model's own forward (as `generate` calls an encoder), and such calls are not seen; "
        "nothing is known of their ranges",
    )


def absence_of(calls: int, seconds: float, way: str) -> tuple[str, ...]:
    """A sentence about calls that do not come, once they could have.

    Args:
        calls: Calls that were seen, observed or not.
        seconds: How long they could have come.
        way: How they come, where they are seen.

    Example:
        >>> absence_of(0, 59.9, "its forward"), absence_of(1, 60.0, "its forward")
        ((), ())
        >>> absence_of(0, 60.0, "its forward")[0][:50]
        'no call came through its forward in 60 s: either t'
    """
    if calls or seconds < _LONG_SECONDS:
        return ()
    return (
        f"no call came through {way} in {seconds:.0f} s: either there are no requests, or they "
        "call something else of it (another method, a part of it), and such calls are not seen; "
        "watch what they call",
    )


def losses_of(requests: NDArray[np.int64]) -> tuple[str, ...]:
    """A sentence for each reason why sampled calls were dropped, where none was observed at all.

    Args:
        requests: Counters of all windows, one for each `RequestColumn`.

    Example:
        >>> requests = np.zeros(40, np.int64)
        >>> losses_of(requests)
        ()
    """
    if requests[RequestColumn.OBSERVED] or not requests[RequestColumn.SAMPLED]:
        return ()
    sampled = int(requests[RequestColumn.SAMPLED])
    drops = requests[RequestColumn.DROP_FIRST : RequestColumn.DROP_FIRST + len(DropReason)]
    return tuple(
        f"none of {sampled} sampled calls was observed: {count} were dropped because {_LOST[why]}"
        for why, count in zip(DropReason, drops.tolist(), strict=True)
        if count and why in _LOST
    )


@final
@dataclass(frozen=True, slots=True, eq=False)
class Active:
    """The parts of a watch that observes."""

    engine: Engine
    attachment: Attachment
    storage: Storage
    gate: Gate

    @property
    def view(self) -> View:
        """How the model is observed at present."""
        attachment = self.attachment
        if attachment.outlook is None:
            return View(attachment.strategy, None, attachment.discovery.skipped, attachment.notes)
        view = attachment.outlook.view
        return replace(
            view,
            skipped=MappingProxyType({**attachment.discovery.skipped, **view.skipped}),
            notes=(*attachment.notes, *view.notes),
        )

    def skipped(self, view: View) -> Mapping[str, str]:
        """What is not observed, the layers included that the model did not have at first."""
        look = self.attachment.unobserved
        try:
            found = {} if look is None else look()
        except Exception:  # a model that is being changed at this moment
            found = {}
        return MappingProxyType({**found, **view.skipped})

    def absence(self, calls: int, seconds: float) -> tuple[str, ...]:
        """A sentence where no call was seen; see `absence_of`."""
        if self.engine.stopped is not None or self.gate.passed_by or self.engine.taken_in.happened:
            return ()  # which says it all
        attribute = self.attachment.seat.attribute
        way = "the watch, which has to be called" if attribute is None else f"its {attribute}"
        return absence_of(calls, seconds, way)

    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        notes = list(self.view.notes)
        if self.attachment.reference is not None:
            notes.extend(self.attachment.reference.notes())
        notes.extend(self.engine.books.remarks)
        later = self.attachment.compiled_outlook
        if later is not None:
            notes.extend(f"of calls from compiled code, {note}" for note in later.view.notes)
        if self.engine.taken_in.happened:
            notes.append(TAKEN_IN)
        if self.engine.stopped is not None:
            notes.append(f"no longer observed: {self.engine.stopped}")
        elif not self.gate.attached:
            notes.append(
                "the model's forward was replaced after watch: calls are observed only where the "
                "new one passes them on to the old one"
            )
        elif self.gate.passed_by:
            notes.append(
                f"calls are not seen: the class of the model answers "
                f"{self.attachment.seat.attribute!r} itself (a property, `__getattribute__`), so "
                "that nothing can be put in their way; call the watch, or watch what it calls"
            )
        return tuple(notes)
