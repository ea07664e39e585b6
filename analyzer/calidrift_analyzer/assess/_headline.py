"""The first sentence about a model: what, where, how bad, since when. And what to do.

What was measured beside FP32 is told before what is predicted, and both are told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from calidrift_analyzer.assess._level_words import (
    broken_levels,
    confined,
    step_of_levels,
    step_of_unjudged,
    unjudged_segments,
)
from calidrift_analyzer.assess._words import NEXT, moment, moved, percent
from calidrift_analyzer.records import (
    Alarm,
    HarmLoss,
    Interval,
    MeasuredHarm,
    PointAssessment,
    ServiceLevel,
    Verdict,
)

__all__ = ["Headline"]

_ERRORS: Final = (
    "find out from the service's log why the agent fails: it did not see all that it sampled"
)
_DRIFTED: Final = (Verdict.DRIFTED_HARMFUL, Verdict.DRIFTED_HARMLESS)
_CALM: Final = (Verdict.NOT_DRIFTED, Verdict.LEARNING)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What the first sentence is made of.

    Attributes:
        verdict: Verdict about the model.
        points: Its points, worst first.
        alarm: The earliest alarm of a point.
        levels: Service levels: all traffic, then segments, the worst first.
        harm: What was measured beside FP32.
        why_not: Why there is no reference, in words.
        uncollected: Digest of the profile that the service uses, where it was not collected.
        errors: Whether the agents counted errors, so that calm figures may not be the whole truth.
    """

    verdict: Verdict
    points: tuple[PointAssessment, ...]
    alarm: Alarm | None
    levels: tuple[ServiceLevel, ...]
    harm: MeasuredHarm | None
    why_not: str
    uncollected: str
    errors: bool

    @property
    def sentence(self) -> str:
        """What was found."""
        parts = [self._drift()] if self._drifted else [*self._beside_the_points(), self._calm()]
        blind = sum(point.verdict is Verdict.BLIND for point in self.points)
        if blind:
            parts.append(f"{self._of(blind)} never fired and cannot be judged")
        suspected = [point for point in self.points if point.suspected]
        if suspected and not self._drifted:
            parts.append(self._suspicion(suspected))
        if not self._drifted:
            parts.extend((unjudged_segments(self.levels), self._unpromised()))
        without = sum(point.verdict is Verdict.NO_REFERENCE for point in self.points)
        if without and self.verdict is not Verdict.NO_REFERENCE:
            parts.append(f"{_points(without)} without a reference")
        broken = sum(_not_finite(point) for point in self.points)
        if broken:
            cost = any(_not_finite(point) for point in self._drifted)
            said = ", and what that costs cannot be predicted" if cost else ""
            parts.append(f"NaN or Inf at {self._of(broken)}{said}")
        return "; ".join(part for part in parts if part)

    @property
    def next_step(self) -> str:
        """What to do: what the worst point needs, where that says more."""
        if self.errors and self.verdict in (Verdict.NOT_DRIFTED, Verdict.NO_DATA):
            return _ERRORS
        if self.uncollected:
            return (
                f"check that profiles/{self.uncollected}.json in the state_dir of the service is "
                "there and readable: the service writes it when it starts"
            )
        worst = self.points[0] if self.points else None
        broken = any(_not_finite(point) for point in self.points)
        if self.verdict in _CALM and not broken:
            step = (
                step_of_levels(self.levels) or self._step_of_harm() or step_of_unjudged(self.levels)
            )
            if step:
                return step
        if worst is not None and worst.verdict is self.verdict:
            if self.verdict is Verdict.DRIFTED_HARMFUL and self._only_predicted:
                return f"without haste, for answers still agree with FP32: {worst.next_step}"
            return worst.next_step
        loud = worst is not None and (worst.suspected or _not_finite(worst))
        if worst is not None and loud:
            return f"{worst.name}: {worst.next_step}"
        return NEXT[self.verdict]

    @property
    def _drifted(self) -> list[PointAssessment]:
        return [point for point in self.points if point.verdict in _DRIFTED]

    @property
    def _only_predicted(self) -> bool:
        """Harm is predicted, and answers since the drift began are known not to show it.

        Not where there is NaN or Inf, about which nothing is predicted.
        """
        broken = any(_not_finite(point) for point in self._drifted)
        return self.harm is not None and not broken and _is_kept(self.harm, self.harm.recent)

    @property
    def _breached(self) -> list[ServiceLevel]:
        return [level for level in self.levels if level.breach is not None]

    def _of(self, count: int) -> str:
        return f"{_points(count)} of {len(self.points)}"

    def _calm(self) -> str:
        if self.verdict is Verdict.NO_DATA:
            return "nothing was observed"
        if self.verdict is Verdict.NO_REFERENCE:
            return f"traffic was observed, but {self.why_not}"
        learning = sum(point.verdict is Verdict.LEARNING for point in self.points)
        if self.verdict is Verdict.LEARNING:
            return f"the reference is too small to judge {self._of(learning)}"
        if self.verdict is Verdict.NOT_DRIFTED:
            suspected = any(point.suspected for point in self.points)
            if self._breached or suspected or unjudged_segments(self.levels):
                return "no alarm at any point yet"
            return "traffic stays inside the calibrated ranges as far as chance allows"
        blind = any(point.verdict is Verdict.BLIND for point in self.points)
        return "" if blind else "requests were sampled, but no point fired in any of them"

    def _drift(self) -> str:
        drifted = self._drifted
        harmful = [point for point in drifted if point.verdict is Verdict.DRIFTED_HARMFUL]
        kind = f"{len(harmful)} of them with harm" if harmful else "none of them with harm"
        if len(drifted) == 1:
            kind = "with harm" if harmful else "without harm"
        if harmful and self._only_predicted:
            kind += " by prediction, but not in the answers"
        who = confined(self.levels) or "traffic"
        said = f"{who} left the calibrated range at {self._of(len(drifted))}, {kind}"
        begun = _begun(self.alarm) if self.alarm else ""
        ends = [point.ended_ns for point in drifted if point.ended_ns is not None]
        if len(ends) == len(drifted):
            begun += f"; inside the range again since about {moment(max(ends))}"
        measured = _since_drift(self.harm)
        return "; ".join([f"{said}{begun}", *measured, *_predicted(harmful or drifted)])

    def _suspicion(self, suspected: Sequence[PointAssessment]) -> str:
        said = f"suspected: {self._of(len(suspected))}"
        known = [one for one in suspected if one.sqnr_change_db is not None]
        if not known:
            return said
        worst = min(known, key=lambda one: one.sqnr_change_db or 0.0)
        return f"{said}, worst {worst.name} (predicted {moved(worst.sqnr_change_db or 0.0)})"

    def _unpromised(self) -> str:
        """Say that no service level can break, because so small a reference promises none."""
        whole = next((level for level in self.levels if level.segment is None), None)
        if whole is None or whole.tolerance < 1.0 or whole.reference_units is None:
            return ""
        ranks = [point.reference_rank for point in self.points if point.reference_rank is not None]
        units = f"{whole.reference_units:,} unit{'' if whole.reference_units == 1 else 's'}"
        return (
            f"no service level is in force: a reference of {units} promises none over "
            f"{_points(len(ranks))}; more than {sum(ranks):,} are needed, better ten times that "
            "(`calidrift reference learn --units`)"
        )

    def _beside_the_points(self) -> list[str]:
        """Say what is broken although no point alarms: service levels, and measured harm."""
        said = [one for one in (broken_levels(self.levels),) if one]
        if self.harm is not None and self.harm.breach is not None:
            said.append(_overall(self.harm))
        return said

    def _step_of_harm(self) -> str:
        if self.harm is None or self.harm.breach is None:
            return ""
        if self.harm.mean.estimate <= self.harm.tolerance:
            return (
                "the ranges fit, and INT8 answers differ from FP32 no more than is tolerated by "
                f"now: find out what was served until {moment(self.harm.breach.end_ns)}; if it "
                "may come again, run `calidrift recalibrate`, which compares finer quantization"
            )
        return (
            "the ranges fit, yet INT8 answers differ from FP32: run `calidrift recalibrate`, which "
            "compares finer quantization, and check that the served model is the validated one"
        )


def _since_drift(harm: MeasuredHarm | None) -> list[str]:
    """Say what served outputs suffered since the drift began: calm traffic before says nothing."""
    if harm is None:
        return []
    found = harm.recent
    if found is None:
        said = "no answer was compared with FP32 since the drift began"
        return [f"{_broke(harm)}; {said}" if harm.breach is not None else said]
    if harm.breach is not None and found.estimate <= harm.tolerance:
        return [f"{_broke(harm)}; {percent(found.estimate)} since the drift began"]
    said = f"{_loss(harm.loss, found.estimate)} since then (measured; "
    if harm.breach is not None:
        return [f"{said}{percent(harm.tolerance)} tolerated)"]
    if _is_kept(harm, found):
        return [f"{said}the tolerated {percent(harm.tolerance)} are kept)"]
    return [f"{said}too few to tell whether the tolerated {percent(harm.tolerance)} are kept)"]


def _overall(harm: MeasuredHarm) -> str:
    """Say that the tolerance of measured harm was broken, where no drift has begun."""
    if harm.mean.estimate <= harm.tolerance:
        return f"{_broke(harm)}; {percent(harm.mean.estimate)} overall"
    return f"{_loss(harm.loss, harm.mean.estimate)} (measured; {percent(harm.tolerance)} tolerated)"


def _broke(harm: MeasuredHarm) -> str:
    """Say when the tolerance was broken, and by what: a breach stays although calm came after."""
    breach = harm.breach
    if breach is None:
        return ""
    what = "noise in the outputs"
    if harm.loss is HarmLoss.DISAGREEMENT:
        what = "answers that differ from FP32"
    then = f"{breach.total:.3g} of {breach.units:,} then, measured"
    return (
        f"the tolerated {percent(harm.tolerance)} of {what} broke on {moment(breach.end_ns)} "
        f"({then})"
    )


def _is_kept(harm: MeasuredHarm, found: Interval | None) -> bool:
    return harm.breach is None and found is not None and found.high <= harm.tolerance


def _loss(loss: HarmLoss, mean: float) -> str:
    """Write a mean loss.

    >>> _loss(HarmLoss.DISAGREEMENT, 0.12)
    '12 % of the answers differ from FP32'
    """
    if loss is HarmLoss.DISAGREEMENT:
        return f"{percent(mean)} of the answers differ from FP32"
    return f"outputs carry {percent(mean)} noise against FP32"


def _predicted(points: Sequence[PointAssessment]) -> list[str]:
    """Say what the worst of some points is predicted to suffer."""
    known = [one for one in points if one.sqnr_change_db is not None]
    if not known:
        return ["what that costs cannot be predicted"]
    worst = min(known, key=lambda one: one.sqnr_change_db or 0.0)
    where = f"{worst.name} (finite values only)" if _not_finite(worst) else worst.name
    return [f"predicted at {where}: {moved(worst.sqnr_change_db or 0.0)}"]


def _begun(alarm: Alarm) -> str:
    if not alarm.since_ns:
        return ", since the first window"
    return f", since about {moment(alarm.since_ns)}"


def _points(count: int) -> str:
    return f"{count} point" if count == 1 else f"{count} points"


def _not_finite(point: PointAssessment) -> bool:
    return bool(point.nan_elements or point.infinite_elements)
