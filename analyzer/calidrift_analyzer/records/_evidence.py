"""Evidence on the way to a verdict: proportions, alarms, service levels, measured harm."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

__all__ = [
    "Alarm",
    "Breach",
    "HarmBreach",
    "HarmLoss",
    "Interval",
    "MeasuredHarm",
    "SegmentCoverage",
    "ServiceLevel",
]


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """A proportion with its bounds.

    Attributes:
        estimate: The observed proportion, in [0, 1].
        low: Lower bound; with `high` a two-sided 95 % Clopper-Pearson interval at a fixed look.
        high: Upper bound.
    """

    estimate: float
    low: float
    high: float


@final
@dataclass(frozen=True, slots=True)
class Alarm:
    """The first look at which the evidence of a point crossed the joint threshold.

    Attributes:
        end_ns: End of that window, UTC nanoseconds.
        since_ns: When the drift began, as far as the evidence tells: the windows that ended after
            this moment are those in which it rose from its lowest to the threshold, and all later.
        units: Units observed at the point up to then.
        exceedances: Those of them above the observed bound.
        observed: Units observed by the model up to then, whether or not the point fired.
        served: Requests served up to then, sampled or not.
    """

    end_ns: int
    since_ns: int
    units: int
    exceedances: int
    observed: int
    served: int


@final
@dataclass(frozen=True, slots=True)
class Breach:
    """The first look at which more units had left the ranges than is tolerated.

    Attributes:
        end_ns: End of that window, UTC nanoseconds.
        units: Units observed up to then.
        outside: Those of them outside the observed bound of some point.
    """

    end_ns: int
    units: int
    outside: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevel:
    """How many units leave the ranges, of all traffic or of one segment, and whether too many.

    Attributes:
        segment: The segment; None for all traffic.
        units: Units observed.
        outside: Units outside the observed bound of some point.
        share: Their share, with bounds that hold at all looks together (95 %).
        declared: The share that the configuration tolerates.
        tolerance: The tolerated share in force: the declared one, or more where the reference is
            too small to promise it; 1 where it promises nothing, so that nothing can be a breach.
        log10_evidence: Largest log10 e-value so far (latched).
        log10_threshold: Where it becomes a breach.
        breach: The first crossing.
        changes_ns: Ends of the windows at which the renewable alarm was raised, UTC nanoseconds;
            after each it started anew.
        units_to_breach: Units until twice the tolerance is expected to be a breach.
        reference_units: Units of the random reference that the tolerance rests on: all of them, or
            those of the segment; None where there are none, nobody counted them by segment, or too
            few of them are of this one, so that it is held against what all traffic is promised.
    """

    segment: str | None
    units: int
    outside: int
    share: Interval | None
    declared: float
    tolerance: float
    log10_evidence: float
    log10_threshold: float
    breach: Breach | None
    changes_ns: tuple[int, ...]
    units_to_breach: int | None
    reference_units: int | None = None


@final
@dataclass(frozen=True, slots=True)
class SegmentCoverage:
    """How much of one segment of the traffic stays inside every observed bound."""

    name: str
    units: int
    coverage: Interval | None


class HarmLoss(StrEnum):
    """Which bounded loss of a unit is counted, from 0 (none) to 1."""

    DISAGREEMENT = "disagreement"
    """1 where the served model and FP32 give different most likely classes, else 0."""
    NOISE = "noise"
    """min(1, noise energy ÷ signal energy) of the output, where outputs have no classes."""


@final
@dataclass(frozen=True, slots=True)
class HarmBreach:
    """The first look at which measured harm was more than is tolerated.

    Attributes:
        end_ns: End of that window, UTC nanoseconds.
        units: Units compared up to then.
        total: Sum of their losses.
    """

    end_ns: int
    units: int
    total: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredHarm:
    """Mean loss of served outputs beside those of the FP32 reference, and whether it is too much.

    Attributes:
        loss: What is counted; where outputs have classes in some windows only, of most units.
        units: Units compared.
        total: Sum of their losses.
        mean: Mean loss, with bounds that hold at all looks together (95 %).
        recent: The same since the drift began (`Alarm.since_ns`); the bounds are for a beginning
            that was fixed beforehand, so they describe. None without an alarm, and where nothing
            was compared since.
        tolerance: Mean loss that is tolerated.
        log10_evidence: Largest log10 e-value so far.
        log10_threshold: Where it becomes a breach.
        breach: The first crossing.
        units_to_breach: Units until twice the tolerance is expected to be a breach.
    """

    loss: HarmLoss
    units: int
    total: float
    mean: Interval
    recent: Interval | None
    tolerance: float
    log10_evidence: float
    log10_threshold: float
    breach: HarmBreach | None
    units_to_breach: int | None

    @property
    def within(self) -> bool:
        """Whether the mean loss is known to be tolerable, at every look so far."""
        return self.breach is None and self.mean.high <= self.tolerance
