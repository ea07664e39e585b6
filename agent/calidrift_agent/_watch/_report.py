"""What a watch is attached to, and what it has seen of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import final

from calidrift_agent._vocabulary import Instrument, Strategy


class Reference(StrEnum):
    """What exceedances are counted against."""

    OBSERVED = "observed"
    """Observed bounds of a calibration profile."""
    NONE = "no_reference"
    """Nothing: coverage and exceedance are not counted."""


@final
@dataclass(frozen=True, slots=True)
class AttachReport:
    """State of a watch at one moment.

    Attributes:
        model: Name given to `watch`.
        points: Names of all points that are expected to fire.
        observed: Those that fired so far.
        skipped: Module name to the reason why it is not observed.
        strategy: How sampled requests are observed.
        instrument: What the figures are measured on (ranges; a quantized graph is observed with
            both instruments, its clip columns with the clip instrument).
        reference: What exceedances are counted against.
        active: Whether requests are being observed now.
        sampling_ratio: Probability with which a request is observed.
        observed_calls: Calls observed so far.
        state_file: Where the windows go; None for in memory.
        notes: Sentences about anything that a reader of the figures should know.
    """

    model: str
    points: tuple[str, ...]
    observed: tuple[str, ...]
    skipped: Mapping[str, str]
    strategy: Strategy
    instrument: Instrument
    reference: Reference
    active: bool
    sampling_ratio: float
    observed_calls: int
    state_file: Path | None
    notes: tuple[str, ...]

    @property
    def never_fired(self) -> tuple[str, ...]:
        """Points that did not fire although calls were observed; empty before the first one."""
        if not self.observed_calls:
            return ()
        fired = set(self.observed)
        return tuple(name for name in self.points if name not in fired)
