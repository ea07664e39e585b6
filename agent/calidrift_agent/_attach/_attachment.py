"""The plan of a watch: what is asked of a kind of model, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from calidrift_agent._attach._options import WatchOptions
from calidrift_agent._observe import CallReader, Outlook, ReferenceModel, Seat, Shadow
from calidrift_agent._points import Discovery, Point
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._taps import Ledger, PointTable
from calidrift_agent._vocabulary import Instrument, Strategy


@final
@dataclass(frozen=True, slots=True, eq=False)
class AttachRequest:
    """What is to be watched.

    Attributes:
        model: What requests call.
        profile: Where the bounds come from; None for no reference.
        options: As given to `watch`.
        reference: An FP32 module to be run beside the model; None for none.
    """

    model: Any
    profile: CalibrationProfile | None
    options: WatchOptions
    reference: nn.Module | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """How a model will be observed.

    Attributes:
        points: Points in row order.
        discovery: The same, with what was left out and why.
        table: Their bounds.
        strategy: How sampled requests are observed.
        make_shadow: Makes the shadow pass; None for strategy *instead*.
        keep_output: Whether the output of a call is needed.
        notes: Sentences for the report.
        seat: Where calls are intercepted.
        reference: Compares outputs, and gives an opaque model points; None for none.
        reader: Reads inputs and outputs that are no torch tensors; None where they are.
        outlook: What running the model has shown about it; None where nothing can change.
        compiled: Makes the shadow pass of calls that come from compiled code, for strategy
            *instead*; None where there is none.
        compiled_outlook: What that has shown; None where there is none.
        unobserved: Returns the layers that the model has by now and that are not observed, and
            why; None where layers have no names.
    """

    points: tuple[Point, ...]
    discovery: Discovery
    table: PointTable
    strategy: Strategy
    make_shadow: Callable[[Ledger], Shadow] | None
    keep_output: bool
    notes: tuple[str, ...]
    seat: Seat
    reference: ReferenceModel | None = None
    reader: CallReader | None = None
    outlook: Outlook | None = None
    compiled: Callable[[Ledger], Shadow] | None = None
    compiled_outlook: Outlook | None = None
    unobserved: Callable[[], Mapping[str, str]] | None = None

    @property
    def measured(self) -> Instrument:
        """What maxima and sketches are measured on: a reference makes up for what is not seen."""
        observed = self.reference is not None and self.reference.observes
        return Instrument.RANGE if observed else self.table.served
