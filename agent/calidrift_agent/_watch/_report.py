"""What a watch is attached to, and what it has seen of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import final

from calidrift_agent._vocabulary import Instrument, Strategy
from calidrift_agent._watch._cost import CostEstimate
from calidrift_agent._watch._detection import (
    ReferenceUnits,
    log_joint_threshold,
    slowest_detection,
    smallest_detectable,
)
from calidrift_agent.errors import ConfigurationError


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
        unread_calls: Calls that were sampled, but in which no point fired; not observed.
        cost: What the watch costs in this process; None where it observes nothing.
        references: What the observed bound of each point rests on, where there is one.
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
    unread_calls: int = 0
    cost: CostEstimate | None = None
    references: tuple[ReferenceUnits, ...] = ()

    @property
    def never_fired(self) -> tuple[str, ...]:
        """Points that did not fire although calls were sampled; empty before the first one."""
        if not self.observed_calls and not self.unread_calls:
            return ()
        fired = set(self.observed)
        return tuple(name for name in self.points if name not in fired)

    @property
    def detectable_exceedance(self) -> float | None:
        """Smallest exceedance that could ever be told from bad luck, at whatever point it comes.

        None without observed bounds, or where a reference is too small to tell anything.
        """
        log_threshold = log_joint_threshold(len(self.references))
        found = [smallest_detectable(one, log_threshold) for one in set(self.references)]
        return None if None in found else max((one for one in found if one), default=None)

    def detection_seconds(
        self, requests_per_second: float, exceedance: float = 0.01
    ) -> float | None:
        """Time until an exceedance that starts now would raise an alarm.

        At one point, the slowest to tell, with the present sampling ratio, one unit of inference
        per observed request and a false alarm probability of 5 % over all points and all time.

        Args:
            requests_per_second: Traffic of all processes together, above 0.
            exceedance: Share of the requests that leave the observed range, in (0, 1].

        Returns:
            Seconds, or None where it never would: nothing is observed, there is no reference, or
            the exceedance is smaller than `detectable_exceedance`.

        Raises:
            ConfigurationError: An argument is out of its range.

        Cost: about 0.1 ms.
        """
        if not 0.0 < requests_per_second < math.inf:
            raise ConfigurationError(
                f"requests_per_second is {requests_per_second!r}, but must be a number above 0"
            )
        units = slowest_detection(self.references, exceedance)
        if units is None or self.sampling_ratio <= 0.0:
            return None
        return units / (requests_per_second * self.sampling_ratio)
