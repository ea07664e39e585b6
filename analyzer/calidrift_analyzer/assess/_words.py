"""Verdicts in words: what was found, with the figures that decided it, and what to do next."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, final

from calidrift_agent._profile import ObservedBound
from calidrift_agent._vocabulary import CountColumn
from calidrift_analyzer.assess._harm import Harm
from calidrift_analyzer.assess._sequential import Ended, Evidence
from calidrift_analyzer.records import Alarm, PointTotals, Verdict

__all__ = [
    "NEXT",
    "NON_FINITE",
    "Findings",
    "moment",
    "moved",
    "percent",
    "point_next_step",
    "point_sentence",
]

NEXT: Final = {
    Verdict.DRIFTED_HARMFUL: (
        "run `calidrift select`, then `calidrift recalibrate`: the calibration set lacks this "
        "traffic"
    ),
    Verdict.DRIFTED_HARMLESS: (
        "nothing to repair; calibrate again on recent traffic when convenient, so that the alarm "
        "is about new drift only"
    ),
    Verdict.NOT_DRIFTED: "nothing to do",
    Verdict.LEARNING: "calibrate on more random units of traffic",
    Verdict.NO_REFERENCE: (
        "run `calidrift calibrate` on random units of representative traffic and give its profile "
        "to watch(..., profile=...)"
    ),
    Verdict.NO_DATA: (
        "check that the service runs under watch(...), that its state_dir is listed under "
        "state_dirs, and that requests arrive"
    ),
    Verdict.BLIND: (
        "check that the served model still runs these modules, and that the profile belongs to it; "
        "layers behind a generator, or made anew at each call, cannot be observed"
    ),
}
NON_FINITE: Final = "find out where NaN and Inf come from; new ranges cannot repair them"
_HALFWAY = 0.5
"""Share of the way to the alarm, in powers of ten, from which a point is suspected."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the sentence about one point is made of.

    Attributes:
        verdict: What it comes to.
        totals: Sums over all traffic.
        bound: The observed bound, where there is one.
        harm: Figures of the clip range.
        detectable: Smallest exceedance that could ever alarm.
        evidence: Along the history; `None` without a bound or without units.
        log10_threshold: Where the alarm stands.
        provisional: The bound is of no random units, so that nothing is concluded from it.
        harmful: Predicted SQNR has fallen far, and more energy is clipped.
        only_non_finite: It alarmed, and nothing but NaN or Inf is known to do harm.
    """

    verdict: Verdict
    totals: PointTotals
    bound: ObservedBound | None
    harm: Harm
    detectable: float | None
    evidence: Evidence | None
    log10_threshold: float
    provisional: bool
    harmful: bool
    only_non_finite: bool = False

    @property
    def nearly(self) -> bool:
        """No alarm, but the evidence is at least halfway to it."""
        evidence = self.evidence
        return (
            evidence is not None
            and evidence.alarm is None
            and evidence.log10_latest >= _HALFWAY * self.log10_threshold
        )

    @property
    def suspected(self) -> bool:
        """No alarm, but no calm either."""
        if self.evidence is not None and self.evidence.alarm is not None:
            return False
        return self.totals.rows > 0 and (self.nearly or self.harmful)

    @property
    def non_finite(self) -> str:
        """NaN and infinities in words; empty where there are none."""
        counts = self.totals.counts
        found = ((int(counts[CountColumn.NAN]), "NaN"), (int(counts[CountColumn.INF]), "Inf"))
        named = " and ".join(f"{count:,} {name}" for count, name in found if count)
        return f"{named} among its values" if named else ""


def point_next_step(found: Findings) -> str:
    """Say what to do about one point."""
    step = NEXT[found.verdict]
    if found.suspected and found.verdict is not Verdict.NO_REFERENCE:
        step = "look again with `calidrift status` when more requests were observed"
        if found.verdict is Verdict.LEARNING:
            step += f"; {NEXT[Verdict.LEARNING]}, because this reference is too small"
        elif found.nearly:
            step += "; if these are no accident, the alarm comes then"
        else:
            step += "; if SQNR stays low, calibrate again on recent traffic"
    ended = found.evidence is not None and found.evidence.ended is not None
    if ended and found.verdict is Verdict.DRIFTED_HARMFUL:
        step = f"it is over for now; where such traffic may come again, {step}"
    if not found.non_finite:
        return step
    alone = found.verdict is Verdict.NOT_DRIFTED or found.only_non_finite
    return NON_FINITE if alone else f"{NON_FINITE}; then {step}"


def moment(time_ns: int) -> str:
    """Write a moment.

    >>> moment(1_800_000_000_000_000_000)
    '2027-01-15 08:00:00 UTC'
    """
    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def percent(value: float) -> str:
    """Write a proportion.

    >>> percent(0.0179), percent(0.0), percent(3e-6), percent(1.0), percent(0.99999)
    ('1.8 %', '0 %', '0.0003 %', '100 %', '>99.9 %')
    """
    if 0.9995 <= value < 1.0:
        return ">99.9 %"
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.3g} %"


def _units(count: int) -> str:
    return f"{count:,} unit" if count == 1 else f"{count:,} units"


def _exceeded(totals: PointTotals) -> str:
    return f"{totals.exceedances:,} of {_units(totals.units)} left the calibrated range"


def _cost(harm: Harm) -> str:
    if harm.change_db is None or harm.production is None:
        return "what that costs cannot be predicted, because a sketch or a range is missing"
    clipped = percent(harm.production.clipped_energy_share)
    where = "the range an absmax quantizer would have" if harm.assumed else "the frozen range"
    if harm.non_finite:
        where += " (finite values only)"
    return f"predicted at {where}: {moved(harm.change_db)}, {clipped} of the energy clipped"


def moved(change_db: float) -> str:
    """Write how SQNR changed.

    >>> moved(-12.34), moved(0.01)
    ('SQNR fell by 12.3 dB', 'SQNR stayed the same')
    """
    if abs(change_db) < 0.05:
        return "SQNR stayed the same"
    way = "fell" if change_db < 0 else "rose"
    return f"SQNR {way} by {abs(change_db):.1f} dB"


def point_sentence(found: Findings) -> str:
    """Say what was found at one point."""
    sentence = _sentence(found)
    if not found.non_finite:
        return sentence
    alarmed = found.evidence is not None and found.evidence.alarm is not None
    cost = ", and what they cost cannot be predicted" if alarmed else ""
    return f"{sentence}; {found.non_finite}{cost}"


def _sentence(found: Findings) -> str:
    if found.verdict is Verdict.NO_DATA:
        return "no unit was observed here"
    if found.verdict is Verdict.BLIND:
        return "it fired in calibration, but never in production, although requests were sampled"
    bound, totals = found.bound, found.totals
    if bound is None:
        rows = f"{totals.rows:,} row" if totals.rows == 1 else f"{totals.rows:,} rows"
        seen = f"{rows} observed, but there is no bound to compare them with"
        seen = f"{seen}{_clipped(totals)}"
        return f"{seen}; yet {_cost(found.harm)}" if found.harmful else seen
    if found.evidence is not None and found.evidence.alarm is not None:
        little = "" if found.verdict is Verdict.DRIFTED_HARMFUL else ", but it does little harm"
        return (
            f"{_exceeded(totals)}, more than bad luck explains{little}; it began "
            f"{_since(found.evidence.alarm)}{_until(found.evidence.ended)}; {_cost(found.harm)}"
        )
    return _without_alarm(found, bound)


def _clipped(totals: PointTotals) -> str:
    """Say how much was clipped where that was measured; with nothing clipped, nothing."""
    counts = totals.counts
    clipped = int(counts[CountColumn.CLIP_LOW] + counts[CountColumn.CLIP_HIGH])
    if not clipped:
        return ""
    share = clipped / int(counts[CountColumn.CLIP_ELEMENTS])
    return f"; {percent(share)} of the values that its quantizer saw were clipped"


def _without_alarm(found: Findings, bound: ObservedBound) -> str:
    parts = [_exceeded(found.totals)]
    evidence, reference = found.evidence, f"{_units(bound.units)} of reference"
    if found.nearly and evidence is not None:
        parts[0] += f", more than {reference} explain"
        more = evidence.to_alarm
        short = (
            f"the evidence is {'just' if more == 1 else 'still'} short of the alarm "
            f"(10^{evidence.log10_latest:.1f} of 10^{found.log10_threshold:.1f})"
        )
        if more is not None:
            row = "unit" if more == 1 else "units in a row"
            short += f", {more:,} more such {row} would raise it"
        parts.append(short)
    elif found.provisional:
        parts[0] = parts[0].replace("calibrated", "provisional")
    elif found.verdict is Verdict.LEARNING:
        floor = "at any rate" if found.detectable is None else f"below {percent(found.detectable)}"
        parts.append(
            f"the reference has only {_units(bound.units)}, so exceedances {floor} can never be "
            "told from bad luck"
        )
    else:
        parts[0] += f", as chance has it with {reference}"
        if found.detectable is not None:
            parts.append(f"less than {percent(found.detectable)} could never be told from chance")
    if found.suspected:
        parts.append(f"{'' if found.nearly else 'yet '}{_cost(found.harm)}")
    return "; ".join(parts)


def _since(alarm: Alarm) -> str:
    if not alarm.since_ns:
        return "with the first window"
    return f"about {moment(alarm.since_ns)}"


def _until(ended: Ended | None) -> str:
    if ended is None:
        return ""
    counts = f"{ended.exceedances:,} of {_units(ended.units)}"
    return f"; inside the range again since about {moment(ended.since_ns)} ({counts} left it)"
