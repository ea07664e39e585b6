"""What an assessment says: figures, verdicts, and the words that go with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import final

from calidrift_agent._state import ReferenceFigures
from calidrift_agent._vocabulary import Instrument

__all__ = [
    "Alarm",
    "Breach",
    "Interval",
    "ModelAssessment",
    "PointAssessment",
    "SegmentCoverage",
    "ServiceLevel",
    "Verdict",
]


class Verdict(StrEnum):
    """The closed list of verdicts; none of them is another one with a figure missing."""

    DRIFTED_HARMFUL = "drifted_harmful"
    """The evidence crossed its threshold, and quantization at the frozen range got worse."""
    DRIFTED_HARMLESS = "drifted_harmless"
    """The evidence crossed its threshold, but the frozen range still serves."""
    NOT_DRIFTED = "not_drifted"
    """Enough reference, enough data to look at, no alarm."""
    LEARNING = "learning"
    """The reference is too small to tell even a large exceedance from bad luck."""
    NO_REFERENCE = "no_reference"
    """Data, but no observed bound to compare with."""
    NO_DATA = "no_data"
    """No unit was observed."""
    BLIND = "blind"
    """The calibration saw this point, production traffic runs, but the point never fired."""


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
@dataclass(frozen=True, slots=True, kw_only=True)
class PointAssessment:
    """One point of the model. `None` always means "cannot be said", never zero.

    Units, exceedance and coverage are of all traffic under the profile. What concerns the clip
    range in production (SQNR, clipped energy, overload, mass coverage, extremes) is of the traffic
    since the drift began where the point has alarmed, else of all of it: months of calm traffic
    must not hide what the drifted traffic suffers.

    Attributes:
        name: Name of the point.
        verdict: What it comes to.
        sentence: The verdict in words, with the figures that decided it.
        next_step: What to do about it.
        units: Units observed.
        exceedances: Units above the observed bound.
        exceedance: Their proportion.
        coverage: 1 minus exceedance.
        observed_bound: The k-th largest absmax of n reference units.
        reference_rank: k.
        reference_units: n.
        log10_evidence: Largest log10 e-value so far (latched); the alarm stands at
            `ModelAssessment.log10_threshold`.
        log10_evidence_now: The log10 e-value at the last look, which may have fallen since.
        alarm: The first crossing.
        suspected: No alarm, yet no calm either: the evidence is at least halfway (in powers of ten)
            to the alarm; or more energy is clipped and predicted SQNR has fallen by 6 dB (1 dB
            where there is no bound to judge by).
        exceedances_to_alarm: Further units, all above the bound, that would raise the alarm from
            where it stands now; where it is raised already, or never can be, `None`.
        detectable_exceedance: Smallest exceedance that could ever raise the alarm.
        sqnr_calibration_db: Predicted SQNR of the calibration sketch at the frozen clip range, dB.
        sqnr_production_db: The same for the production sketch.
        sqnr_change_db: Production minus calibration; negative is worse.
        clipped_energy: Measured squared distance to the clip range ÷ measured energy.
        overload_calibration: Predicted clipped energy ÷ energy, from the calibration sketch.
        overload_production: The same from the production sketch.
        mass_coverage: Share of finite elements inside the clip range, from the production sketch.
        clip_assumed: The profile has no clip range, so the one that an absmax quantizer (uint8,
            affine) would take from the calibration sketch stands in for it.
        lowest: Exact minimum of the production values.
        highest: Exact maximum of the production values.
        nan_elements: NaN seen in production, elements; a unit that holds one exceeds its bound.
        infinite_elements: The same of infinities.
    """

    name: str
    verdict: Verdict
    sentence: str
    next_step: str
    units: int
    exceedances: int
    exceedance: Interval | None = None
    coverage: Interval | None = None
    observed_bound: float | None = None
    reference_rank: int | None = None
    reference_units: int | None = None
    log10_evidence: float | None = None
    log10_evidence_now: float | None = None
    alarm: Alarm | None = None
    suspected: bool = False
    exceedances_to_alarm: int | None = None
    detectable_exceedance: float | None = None
    sqnr_calibration_db: float | None = None
    sqnr_production_db: float | None = None
    sqnr_change_db: float | None = None
    clipped_energy: float | None = None
    overload_calibration: float | None = None
    overload_production: float | None = None
    mass_coverage: float | None = None
    clip_assumed: bool = False
    lowest: float | None = None
    highest: float | None = None
    nan_elements: int = 0
    infinite_elements: int = 0


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
            too small to promise it.
        log10_evidence: Largest log10 e-value so far (latched).
        log10_threshold: Where it becomes a breach.
        breach: The first crossing.
        changes_ns: Ends of the windows at which the renewable alarm was raised, UTC nanoseconds;
            after each it started anew.
        units_to_breach: Units until twice the tolerance is expected to be a breach.
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


@final
@dataclass(frozen=True, slots=True)
class SegmentCoverage:
    """How much of one segment of the traffic stays inside every observed bound."""

    name: str
    units: int
    coverage: Interval | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAssessment:
    """The model as a whole.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile; empty without one.
        instrument: What the figures were measured on.
        verdict: What it comes to.
        sentence: The verdict in words.
        next_step: What to do about it.
        points: Worst first: by verdict, suspected and non-finite ones before calm ones; then by
            ΔSQNR, then by evidence.
        alpha: False alarm probability over the whole life of the watch, all points together.
        log10_threshold: log10 of points tested ÷ alpha.
        units: Units that were compared with an observed bound.
        served: Requests served, sampled or not.
        sampling_ratio: Observed requests ÷ served requests.
        request_coverage: Proportion of units inside the observed bound of every point.
        request_coverage_low: Its one-sided lower 95 % bound (Clopper-Pearson, fixed look).
        segments: Coverage by segment of the traffic, the least covered first.
        alarm: The earliest alarm of any point.
        worst_point: Name of the first of `points`.
        detectable_exceedance: Smallest exceedance that every tested point could alarm on.
        units_to_detect: Units until an exceedance of twice that is expected to alarm.
        seconds_to_detect: The same in seconds at the traffic and sampling ratio recorded so far.
        first_ns: Start of the earliest window, UTC nanoseconds; 0 without data.
        last_ns: End of the latest window, UTC nanoseconds; 0 without data.
        observed: Requests in which at least one point was read.
        errors: Errors of the agents by stage; only those that happened.
        dropped: What the agents dropped by reason; only what happened.
        service_levels: All traffic, then segments, the worst first; empty without observed bounds.
        standing_out: Points that stand out now, of which at most `alpha` are expected to be wrong.
        reference: Served outputs beside those of the agents' FP32 reference; None without one.
    """

    model: str
    profile: str
    instrument: Instrument | None
    verdict: Verdict
    sentence: str
    next_step: str
    points: tuple[PointAssessment, ...]
    alpha: float
    log10_threshold: float
    units: int
    served: int
    sampling_ratio: float | None = None
    request_coverage: Interval | None = None
    request_coverage_low: float | None = None
    segments: tuple[SegmentCoverage, ...] = ()
    alarm: Alarm | None = None
    worst_point: str | None = None
    detectable_exceedance: float | None = None
    units_to_detect: int | None = None
    seconds_to_detect: float | None = None
    first_ns: int = 0
    last_ns: int = 0
    observed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    service_levels: tuple[ServiceLevel, ...] = ()
    standing_out: tuple[str, ...] = ()
    reference: ReferenceFigures | None = None

    def point(self, name: str) -> PointAssessment:
        """Give one point by name.

        Raises:
            KeyError: There is no such point.
        """
        for point in self.points:
            if point.name == name:
                return point
        raise KeyError(name)
