"""What people say about models: mutes and markers. Rows are added, and never changed or deleted."""

import time
from dataclasses import replace
from typing import Any, Final, final

from calidrift_analyzer.records import (
    Marker,
    MarkerKind,
    ModelAssessment,
    Mute,
    MuteState,
    annotated,
)
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["Annotations"]

_MOVES: Final = {
    MarkerKind.PROMOTED: "version {} was promoted",
    MarkerKind.ROLLED_BACK: "version {} was rolled back to",
}


@final
class Annotations:
    """The tables of what people say; reached as `Store.annotations`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def mute(self, mute: Mute) -> None:
        """Keep a mute; one of the same point, or pattern, that was active is replaced by it."""
        self._add(mute, mute.until_ns)

    def unmute(self, mute: Mute, *, author: str, reason: str = "") -> None:
        """Keep that an active mute was ended now.

        Args:
            mute: The mute.
            author: Who ends it.
            reason: Why, where that was said.
        """
        ending = replace(mute, created_ns=time.time_ns(), author=author, reason=reason)
        self._add(ending, None)

    def _add(self, mute: Mute, until_ns: int | None) -> None:
        self._connection.rows(
            query("mute_add"),
            {
                "model": mute.model,
                "point": mute.point,
                "created": mute.created_ns,
                "until": until_ns,
                "reason": mute.reason,
                "author": mute.author,
            },
        )

    def mutes(self, model: str | None = None, *, now_ns: int | None = None) -> tuple[Mute, ...]:
        """List every mute that ever was, with what became of it; the newest first.

        Args:
            model: Only of this model; of all where left out.
            now_ns: The time, UTC nanoseconds; the clock where left out.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        found: list[Mute] = []
        latest: dict[tuple[str, str | None], int] = {}
        for row in self._connection.rows(query("mutes"), {"model": model}):
            key = (row[0], row[1])
            before = latest.pop(key, None)
            if before is not None:
                found[before] = _ended(found[before], row)
            if row[3] is not None:
                latest[key] = len(found)
                found.append(_mute(row))
        return tuple(_now(one, now_ns) for one in reversed(found))

    def active(self, model: str | None = None, *, now_ns: int | None = None) -> tuple[Mute, ...]:
        """List the mutes that hold now; arguments as for `mutes`."""
        every = self.mutes(model, now_ns=now_ns)
        return tuple(one for one in every if one.state is MuteState.ACTIVE)

    def mark(self, marker: Marker) -> None:
        """Keep a marker that a person set; promotions and rollbacks mark themselves."""
        self._connection.rows(
            query("marker_add"),
            {
                "model": marker.model,
                "happened": marker.at_ns,
                "created": marker.created_ns or time.time_ns(),
                "text": marker.text,
                "author": marker.author or "",
            },
        )

    def markers(self, model: str | None = None) -> tuple[Marker, ...]:
        """List the markers, promotions and rollbacks among them; the latest moment first."""
        rows = self._connection.rows(query("markers"), {"model": model})
        return tuple(_marker(row) for row in rows)

    def annotate(
        self, assessment: ModelAssessment, *, now_ns: int | None = None
    ) -> ModelAssessment:
        """Put active mutes and near markers beside an assessment; nothing else changes."""
        model = assessment.model
        return annotated(assessment, self.active(model, now_ns=now_ns), self.markers(model))


def _mute(row: tuple[Any, ...]) -> Mute:
    return Mute(
        model=row[0], point=row[1], created_ns=row[2], until_ns=row[3], reason=row[4], author=row[5]
    )


def _ended(mute: Mute, row: tuple[Any, ...]) -> Mute:
    """Give a mute after the next row about the same point."""
    created_ns, until_ns, reason, author = row[2:]
    if created_ns >= mute.until_ns:
        return mute  # it had run out by itself
    if until_ns is not None:
        return replace(mute, state=MuteState.REPLACED, ended_ns=created_ns, ended_by=author)
    return replace(
        mute,
        state=MuteState.UNMUTED,
        ended_ns=created_ns,
        ended_by=author,
        ended_because=reason or None,
    )


def _now(mute: Mute, now_ns: int) -> Mute:
    if mute.state is MuteState.ACTIVE and mute.until_ns <= now_ns:
        return replace(mute, state=MuteState.EXPIRED, ended_ns=mute.until_ns)
    return mute


def _marker(row: tuple[Any, ...]) -> Marker:
    model, at_ns, text, word, author, created_ns = row
    kind = MarkerKind(word)
    return Marker(
        model=model,
        at_ns=at_ns,
        text=_MOVES[kind].format(text) if kind in _MOVES else text,
        kind=kind,
        author=author,
        created_ns=created_ns,
    )
