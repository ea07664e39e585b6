"""What an assessment says: figures, verdicts, and the words that go with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import final

from calidrift_agent._state import ReferenceFigures
from calidrift_agent._vocabulary import Instrument
from calidrift_analyzer.ranges import Distances
from calidrift_analyzer.records._annotations import Marker, Mute
from calidrift_analyzer.records._described import ReturnLevel, Seasons
from calidrift_analyzer.records._evidence import (
    Alarm,
    Interval,
    MeasuredHarm,
    SegmentCoverage,
    ServiceLevel,
)
from calidrift_analyzer.records._references import BurnIn

__all__ = ["ModelAssessment", "PointAssessment", "Verdict"]


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
            `ModelAssessment.log10_threshold`. While bounds are provisional there is none, until a
            service level breaks: then it is that of the service level.
        log10_evidence_now: The log10 e-value at the last look, which may have fallen since.
        alarm: The first crossing.
        ended_ns: Since when units stay inside the range again, as far as the looks since tell, UTC
            nanoseconds; the alarm stays all the same. None without an alarm, while the drift goes
            on, and where its end cannot be told yet.
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
        lowest: Exact minimum of the values of sampled requests in production.
        highest: Their exact maximum; of all requests it is larger where not all are sampled.
        nan_elements: NaN seen in production, elements; a unit that holds one exceeds its bound.
        infinite_elements: The same of infinities.
        over_range_octaves: log2 of the clip range over what holds all but 1e-4 of the production
            values on either side: octaves wasted; negative where the range is too narrow.
        tail_shift_octaves: log2 of the 99.9 % quantile of |x| in production over calibration.
        far_tail_shift_octaves: The same of the 99.99 % quantile.
        return_level: Advisory: the absmax of one request in a million, from 512 units on.
        explanatory: Distances between the two sketches. They explain how traffic moved and decide
            nothing.
        muted: The mute that its alarm is under; the figures and the alarm are what they would be
            without it.
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
    ended_ns: int | None = None
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
    over_range_octaves: float | None = None
    tail_shift_octaves: float | None = None
    far_tail_shift_octaves: float | None = None
    return_level: ReturnLevel | None = None
    explanatory: Distances | None = None
    muted: Mute | None = None


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
        harm: What that comparison says about harm; None without one.
        seasons: When units leave the ranges, descriptively; None before a day of data.
        muted: The mute of the whole model.
        markers: Moments near the beginning of the drift that may explain it, the nearest first.
        burn_in: How far production has come on its way to a reference of its own; None where there
            is a reference of random units.
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
    harm: MeasuredHarm | None = None
    seasons: Seasons | None = None
    muted: Mute | None = None
    markers: tuple[Marker, ...] = ()
    burn_in: BurnIn | None = None

    def point(self, name: str) -> PointAssessment:
        """Give one point by name.

        Raises:
            KeyError: There is no such point.
        """
        for point in self.points:
            if point.name == name:
                return point
        raise KeyError(name)
