"""What the commands about mutes and markers have in common, and their lines beside an alarm."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.records import (
    Marker,
    MarkerKind,
    ModelAssessment,
    Mute,
    MuteState,
    Verdict,
    needs_action,
)
from calidrift_analyzer.service import Desk

__all__ = [
    "annotation_lines",
    "marker_of",
    "mute_of",
    "one_line",
    "read_moment",
    "read_span",
    "require_known",
]

_SPAN: Final = re.compile(r"([0-9]{1,6})([mhdw])")
_SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST_DAYS: Final = 366
_LONGEST_TEXT: Final = 500
_SKEW_SECONDS: Final = 60.0
"""How far ahead of this machine's clock a moment may lie and still count as past."""
_TOLD: Final = 3


def read_span(text: str) -> float:
    """Read how long something lasts, in seconds.

    Raises:
        ConfigurationError: Not a whole number and one unit, nothing, or longer than a year.

    >>> read_span("7d"), read_span("90m")
    (604800.0, 5400.0)
    """
    found = _SPAN.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_DAYS * 86_400:
        raise ConfigurationError(
            f"--for is {text!r}, but must be a whole number and a unit (m minutes, h hours, d "
            f"days, w weeks) up to {_LONGEST_DAYS}d, e.g. --for 7d; a mute always ends, and can "
            "be set again"
        )
    return float(seconds)


def read_moment(text: str, now_ns: int) -> int:
    """Read a moment that has passed, in UTC nanoseconds; without an offset it is UTC.

    Raises:
        ConfigurationError: Not a moment, or one to come.

    >>> read_moment("2027-01-15 08:00:00 UTC", 1_900_000_000 * 10**9)
    1800000000000000000
    >>> read_moment("2027-01-15T09:00+01:00", 1_900_000_000 * 10**9)
    1800000000000000000
    """
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
    except ValueError as error:
        raise ConfigurationError(
            f"--at is {text!r}, but must be a moment like '2026-11-21 14:30', "
            "'2026-11-21T14:30:00+01:00' or '2026-11-21 14:30:00 UTC' (without an offset: UTC)"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    at_ns = _since_epoch(moment)
    if not 0 <= at_ns <= now_ns + _SKEW_SECONDS * 1e9:
        raise ConfigurationError(
            f"--at is {text!r}, but a marker is about something that has happened (now it is "
            f"{datetime.fromtimestamp(now_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC); mark it then, or "
            "give the offset of your time zone, e.g. +01:00"
        )
    return at_ns


def one_line(text: str | None, name: str, example: str) -> str:
    """Require a text that stands on one line of a report.

    Args:
        text: What was given.
        name: What it is called on the command line.
        example: What a good one looks like.

    Raises:
        ConfigurationError: There is none, or it is too long or not printable.
    """
    told = (text or "").strip()
    if not told or len(told) > _LONGEST_TEXT or not told.isprintable():
        given = "is missing" if not told else f"has {len(told)} characters"
        given = given if told.isprintable() else "holds characters that cannot be printed"
        raise ConfigurationError(
            f"{name} {given}, but must be one line of 1 to {_LONGEST_TEXT} printable characters, "
            f"e.g. {example}: it stands wherever the alarm is shown"
        )
    return told


def require_known(desk: Desk, model: str | None, usage: str) -> str:
    """Require a model that is declared or was recorded.

    Args:
        desk: Where models are known.
        model: What was given.
        usage: What to type.

    Raises:
        ConfigurationError: None was given.
        NoDataError: No such model is known.
    """
    known = [str(one["model"]) for one in desk.read("models")["items"]]
    listed = f"known: {', '.join(known) or 'none'}"
    if model is None:
        raise ConfigurationError(f"no model is named; type: {usage} ({listed})")
    if model not in known:
        raise NoDataError(
            f"no model {model!r} is declared or was recorded ({listed}); name one of these: {usage}"
        )
    return model


def mute_of(view: Mapping[str, Any]) -> Mute:
    """Read a mute from the document of a desk."""
    return Mute(
        model=view["model"],
        point=view["point"],
        created_ns=_ns(view["created"]) or 0,
        until_ns=_ns(view["until"]) or 0,
        reason=view["reason"],
        author=view["author"],
        state=MuteState(view["state"]),
        ended_ns=_ns(view["ended"]),
        ended_by=view["ended_by"],
        ended_because=view["ended_because"],
    )


def marker_of(view: Mapping[str, Any]) -> Marker:
    """Read a marker from the document of a desk."""
    return Marker(
        model=view["model"],
        at_ns=_ns(view["at"]) or 0,
        text=view["text"],
        kind=MarkerKind(view["kind"]),
        author=view["author"],
        created_ns=_ns(view["created"]) or 0,
    )


def annotation_lines(assessment: ModelAssessment) -> Iterator[str]:
    """Write what people said about a model, to stand beside its alarm.

    Every mute that covers a point, whether the alarm under it would count, and what happened
    shortly before the drift began.
    """
    mutes = dict.fromkeys(
        one for one in (assessment.muted, *(p.muted for p in assessment.points)) if one is not None
    )
    for mute in mutes:
        alarmed = [p.name for p in assessment.points if p.muted == mute and p.alarm is not None]
        under = f"; alarms under it: {_some(alarmed)}" if alarmed else "; no alarm under it"
        yield f"{mute.what}: {mute.sentence}{under}"
    if assessment.verdict is Verdict.DRIFTED_HARMFUL and not needs_action(assessment):
        yield (
            "every point that drifted with harm is muted: no repair starts by itself, and the "
            "exported alarm is off"
        )
    for marker in assessment.markers[:_TOLD]:
        yield _beside(marker)


def _ns(text: str | None) -> int | None:
    return None if text is None else _since_epoch(datetime.fromisoformat(text))


def _since_epoch(moment: datetime) -> int:
    """Whole microseconds since 1970, in nanoseconds."""
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1_000


def _beside(marker: Marker) -> str:
    seconds = marker.drift_after_seconds or 0.0
    at = f"{datetime.fromtimestamp(marker.at_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if seconds < 0.0:
        return f"while the drift began: {marker.text} ({at})"
    return f"the drift began {_span(seconds)} after: {marker.text} ({at})"


def _span(seconds: float) -> str:
    """Write a span of time.

    >>> _span(0.4), _span(180.0), _span(5_400.0), _span(86_400.0)
    ('less than 1 s', '3 min', '90 min', '24 h')
    """
    if seconds < 1.0:
        return "less than 1 s"
    for unit, length in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _some(names: Sequence[str], limit: int = _TOLD) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
