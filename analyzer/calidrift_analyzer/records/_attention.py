"""What mutes and markers do to an assessment: they stand beside it, and decide what it leads to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from calidrift_analyzer.records._annotations import Marker, Mute
from calidrift_analyzer.records._assessment import ModelAssessment, Verdict
from calidrift_analyzer.records._evidence import Alarm

__all__ = ["NEAR_SECONDS", "alarm_in_force", "annotated", "needs_action"]

NEAR_SECONDS: Final = 86_400.0
"""Longest time between a marker and the beginning of a drift that is still told, seconds."""


def annotated(
    assessment: ModelAssessment, mutes: Sequence[Mute], markers: Sequence[Marker]
) -> ModelAssessment:
    """Put what people said beside the figures; no figure, verdict or alarm changes.

    Args:
        assessment: The assessment.
        mutes: Mutes of this model that are active now. Of several about one point the one that
            ends last stands beside it.
        markers: Markers of this model; those near the beginning of the drift are kept, the
            nearest first.
    """
    lasting = sorted(mutes, key=lambda one: one.until_ns, reverse=True)
    points = tuple(
        replace(point, muted=next((one for one in lasting if one.covers(point.name)), None))
        for point in assessment.points
    )
    whole = next((one for one in lasting if one.point is None), None)
    return replace(assessment, points=points, muted=whole, markers=_near(assessment, markers))


def needs_action(assessment: ModelAssessment) -> bool:
    """Whether the verdict asks for a repair: harmful drift at a point that nobody has muted."""
    if assessment.verdict is not Verdict.DRIFTED_HARMFUL:
        return False
    harmful = [one for one in assessment.points if one.verdict is Verdict.DRIFTED_HARMFUL]
    if not harmful:
        return assessment.muted is None
    return any(point.muted is None for point in harmful)


def alarm_in_force(assessment: ModelAssessment) -> Alarm | None:
    """Give the earliest alarm of a point that nobody has muted: the one that is exported."""
    alarms = [
        point.alarm
        for point in assessment.points
        if point.alarm is not None and point.muted is None
    ]
    return min(alarms, key=lambda one: one.observed) if alarms else None


def _near(assessment: ModelAssessment, markers: Sequence[Marker]) -> tuple[Marker, ...]:
    alarm = assessment.alarm
    if alarm is None:
        return ()
    # An evidence that rises from the first window on began with it, or before.
    begun_ns = alarm.since_ns or assessment.first_ns
    near = [
        replace(one, drift_after_seconds=(begun_ns - one.at_ns) / 1e9)
        for one in markers
        if begun_ns - NEAR_SECONDS * 1e9 <= one.at_ns <= alarm.end_ns
    ]
    return tuple(sorted(near, key=lambda one: abs(one.drift_after_seconds or 0.0)))
