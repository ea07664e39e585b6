"""Mutes and markers for the API and for commands: orders are carried out, rows become views."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, final

from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.jobs import mark, mute, unmute
from calidrift_analyzer.records import Marker, MarkerKind, Mute, MuteState
from calidrift_analyzer.service._payloads import MarkOrder, MuteOrder, UnmuteOrder
from calidrift_analyzer.service._reading import require_model
from calidrift_analyzer.service._views import moment
from calidrift_analyzer.store import Store

__all__ = [
    "EndedView",
    "MarkerView",
    "MuteView",
    "MutedView",
    "end_mutes",
    "set_marker",
    "set_mute",
    "view_markers",
    "view_mutes",
]

_SKEW_SECONDS: Final = 60.0
"""How far ahead of this machine's clock a moment may lie and still count as past."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MuteView:
    """One mute; `point` is a name or a pattern, and `None` for the whole model."""

    model: str
    point: str | None
    created: datetime | None
    until: datetime | None
    reason: str
    author: str
    state: MuteState
    ended: datetime | None
    ended_by: str | None
    ended_because: str | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MutedView:
    """A mute that was set, and the points that it is about; none where none is known yet."""

    mute: MuteView
    points: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EndedView:
    """Mutes that were ended before their time."""

    model: str
    ended: tuple[MuteView, ...]
    author: str
    reason: str | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerView:
    """One moment that may explain a change."""

    model: str
    at: datetime | None
    text: str
    kind: MarkerKind
    author: str | None
    created: datetime | None


def set_mute(store: Store, config: AnalyzerConfig, order: MuteOrder, author: str) -> MutedView:
    """Mute a point, a pattern or a model for a while.

    Raises:
        NoDataError: There is no such model, or points of it are known and it is about none.
    """
    now_ns = time.time_ns()
    wanted = Mute(
        model=require_model(store, config, order.model),
        point=order.point,
        created_ns=now_ns,
        until_ns=now_ns + round(order.seconds * 1e9),
        reason=order.reason,
        author=author,
    )
    kept, points = mute(store, wanted)
    return MutedView(mute=_mute(kept), points=points)


def end_mutes(store: Store, config: AnalyzerConfig, order: UnmuteOrder, author: str) -> EndedView:
    """End mutes before their time.

    Raises:
        NoDataError: There is no such model, or nothing of it is muted by that name.
    """
    model = require_model(store, config, order.model)
    ended = unmute(store, model, order.point, every=order.every, author=author, reason=order.reason)
    return EndedView(
        model=model,
        ended=tuple(_mute(one) for one in ended),
        author=author,
        reason=order.reason or None,
    )


def set_marker(store: Store, config: AnalyzerConfig, order: MarkOrder, author: str) -> MarkerView:
    """Mark a moment, now where none is given.

    Raises:
        NoDataError: There is no such model.
        ConfigurationError: The moment is still to come, or before 1970.
    """
    now_ns = time.time_ns()
    marker = Marker(
        model=require_model(store, config, order.model),
        at_ns=now_ns if order.at is None else _past(order.at, now_ns),
        text=order.text,
        author=author,
        created_ns=now_ns,
    )
    mark(store, marker)
    return _marker(marker)


def view_mutes(store: Store, model: str | None, *, every: bool) -> tuple[MuteView, ...]:
    """List the mutes that hold now, or with `every` all that ever were, the newest first."""
    find = store.annotations.mutes if every else store.annotations.active
    return tuple(_mute(one) for one in find(model))


def view_markers(store: Store, model: str | None) -> tuple[MarkerView, ...]:
    """List the markers, promotions and rollbacks among them, the latest moment first."""
    return tuple(_marker(one) for one in store.annotations.markers(model))


def _past(at: datetime, now_ns: int) -> int:
    moment = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    at_ns = round((moment - _EPOCH) / timedelta(microseconds=1)) * 1_000
    if not 0 <= at_ns <= now_ns + _SKEW_SECONDS * 1e9:
        raise ConfigurationError(
            "a marker is about something that has happened, so `at` must not be a moment to come, "
            "nor one before 1970; mark it then, or leave `at` out for now"
        )
    return at_ns


def _mute(one: Mute) -> MuteView:
    return MuteView(
        model=one.model,
        point=one.point,
        created=moment(one.created_ns),
        until=moment(one.until_ns),
        reason=one.reason,
        author=one.author,
        state=one.state,
        ended=moment(one.ended_ns),
        ended_by=one.ended_by,
        ended_because=one.ended_because,
    )


def _marker(one: Marker) -> MarkerView:
    return MarkerView(
        model=one.model,
        at=moment(one.at_ns),
        text=one.text,
        kind=one.kind,
        author=one.author,
        created=moment(one.created_ns),
    )
