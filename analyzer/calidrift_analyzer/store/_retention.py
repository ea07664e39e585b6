"""Retention: fold windows into ever coarser rollups, without losing a count or spent evidence.

A record moves: windows -> one a minute -> one an hour -> one a day -> one for the life of the
process, each in one transaction with its ledger, so it is always in exactly one place.
Counts, cells and extremes of a rollup are those of its windows; totals and sums of a process stay
the same integers. No window is ever deleted outright: the one row that a process keeps for life is
what a cumulative state file is compared with, and what makes ingest exactly once. Recorded
assessments that repeat the verdict before them are deleted, once older than `minutes`.

The looks of sequential tests are joined by the hour of arrival when their windows move. They are
not joined across landmarks (where some evidence was largest, crossed its threshold, or was lowest
before that), so cumulated counts and losses at these looks, and hence every alarm and the largest
evidence, are what they were. The looks kept are a part of the looks made: a test that is valid at
all of them is valid at these. What does change: a renewable alarm counts looks, so its alarms in
the joined part may be fewer and stand at other moments, and seasons count a joined look for the
hour and the day of its last window. Assessments that were recorded before keep the older lists.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import Instrument
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import ModelHistory
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._reading import read_history
from calidrift_analyzer.store._sql import query

__all__ = ["FindLandmarks", "Folded", "Landmarks", "Retention", "RetentionReport", "fold"]

_SECOND: Final = 1_000_000_000
_HOUR: Final = 3_600 * _SECOND
_DAY: Final = 24 * _HOUR
_PORTION: Final = 1_000
"""Records that move in one transaction; 1,000 of 200 points hold 12 million cells, 0.3 GB."""


@final
@dataclass(frozen=True, slots=True)
class Landmarks:
    """What must stay as it is when looks and windows of one model are joined.

    Attributes:
        looks: Rows of the history at which evidence was spent.
        moments_ns: Moments that somebody sums from, UTC nanoseconds; no rollup reaches across.
    """

    looks: Sequence[int] = ()
    moments_ns: Sequence[int] = ()


class FindLandmarks(Protocol):
    """Names the landmarks of a model; `assess.landmarks` is the one that belongs to its alarms."""

    def __call__(self, history: ModelHistory, profile: CalibrationProfile | None) -> Landmarks:
        """Look at the history of one model."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long records stay fine. Age counts from arrival in the store, on the analyzer's clock.

    Attributes:
        windows: How long single windows stay. At least as long as a drift may go unnoticed: what
            an alarm sums from is exact to the window inside this span, and to the rollup before.
        minutes: How long minutes stay.
        hours: How long hours stay.
        days: How long days stay; then one row for the life of the process.
        max_bytes: Size that the file should stay under; `None` for no limit. Spans are quartered
            until it fits, down to one hour.
    """

    windows: timedelta = timedelta(days=7)
    minutes: timedelta = timedelta(days=30)
    hours: timedelta = timedelta(days=365)
    days: timedelta = timedelta(days=3650)
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        spans = (timedelta(0), self.windows, self.minutes, self.hours, self.days)
        if list(spans) != sorted(spans):
            raise ConfigurationError(
                f"retention keeps windows {self.windows}, minutes {self.minutes}, hours "
                f"{self.hours} and days {self.days}, but each must be kept at least as long as "
                "what is finer: give spans that grow"
            )
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise ConfigurationError(
                f"max_bytes is {self.max_bytes}, but must be a number of bytes above 0, or None"
            )

    def shortened(self, factor: float) -> "Retention":
        """The same with all spans times `factor`, each at least one hour where it was."""
        floor = timedelta(hours=1)
        spans = {
            name: max(min(floor, span), span * factor)
            for name in ("windows", "minutes", "hours", "days")
            for span in (getattr(self, name),)
        }
        return Retention(**spans, max_bytes=self.max_bytes)


@final
@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What a retention run did.

    Attributes:
        folded: Records that moved into a coarser one.
        rollups: Records that they moved into.
        bytes_before: Size of the file before.
        bytes_after: Size of the file after.
        compacted: Whether the file was written anew.
        fits: Whether it is under `max_bytes` now; True without a limit.
    """

    folded: int
    rollups: int
    bytes_before: int
    bytes_after: int
    compacted: bool
    fits: bool


@final
@dataclass(frozen=True, slots=True)
class _Step:
    """One tier into the next; `span` is the width of a rollup; whole slices of arrival move."""

    source: int
    tier: int
    span: int
    slice: int
    keep: timedelta


@final
@dataclass(slots=True)
class Folded:
    """Counts while they grow."""

    records: int = 0
    rollups: int = 0


def fold(connection: Connection, retention: Retention, find: FindLandmarks, now_ns: int) -> Folded:
    """Move everything that is old enough; repeating or interrupting it changes nothing.

    Args:
        connection: The open database.
        retention: What is old.
        find: Names the landmarks.
        now_ns: The time.

    Returns:
        How much moved.

    Raises:
        StoreLostError: DuckDB died on the way; what was committed stays, so call again.
    """
    folded = Folded()
    steps = (
        _Step(0, 1, 60 * _SECOND, _HOUR, retention.windows),
        _Step(1, 2, _HOUR, _DAY, retention.minutes),
        _Step(2, 3, _DAY, _DAY, retention.hours),
        _Step(3, 4, _DAY, _DAY, retention.days),
    )
    for step in steps:
        until = (now_ns - _nanoseconds(step.keep)) // step.slice * step.slice
        found = connection.rows(
            query("fold_slices"), {"span": step.slice, "source": step.source, "until": until}
        )
        if found and step.source == 0:
            _mark(connection, find)
        for first, last in _portions([(int(row[0]), int(row[1])) for row in found]):
            span = (first * step.slice, (last + 1) * step.slice)
            records, rollups = _fold_portion(connection, step, span)
            folded.records += records
            folded.rollups += rollups
    connection.rows(query("assessments_thin"), {"until": now_ns - _nanoseconds(retention.minutes)})
    return folded


def _portions(slices: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join slices into one transaction each, up to a size that fits into memory."""
    first = last = size = 0
    for number, records in slices:
        if size and size + records > _PORTION:
            yield first, last
            size = 0
        first = first if size else number
        last, size = number, size + records
    if size:
        yield first, last


def _fold_portion(connection: Connection, step: _Step, span_ns: tuple[int, int]) -> tuple[int, int]:
    """Move what arrived in a span, in one transaction; gives records and rollups."""
    tier = {"tier": step.tier}
    from_ns, until_ns = span_ns
    with connection.transaction():
        connection.rows(
            query("fold_choose"),
            {**tier, "source": step.source, "span": step.span, "from": from_ns, "until": until_ns},
        )
        if step.source == 0:
            connection.rows(query("look_choose"), {"hour": _HOUR})
            for name in ("look_heads", "look_points", "look_segments", "look_losses"):
                connection.rows(query(name))
        for name in ("fold_heads", "fold_points", "fold_segments"):
            connection.rows(query(name), tier)
        connection.rows(query("fold_ledger"), {**tier, "now": time.time_ns()})
        kinds = (
            ("windows", "window_points", "window_segments")
            if step.source == 0
            else ("points", "segments", "heads")
        )
        for name in kinds:
            connection.rows(query(f"fold_drop_{name}"))
        records, rollups = connection.rows(query("fold_size"))[0]
    return int(records), int(rollups)


def _mark(connection: Connection, find: FindLandmarks) -> None:
    """Write down the landmarks of every model; moments stay for ever, landmarks for this run."""
    connection.rows(query("landmarks_create"))
    for model, profile, instrument in connection.rows(query("streams")):
        history = read_history(connection, model, profile, Instrument(instrument))
        known = connection.rows(query("profile_find"), {"digest": profile})
        found = find(history, CalibrationProfile.from_json(known[0][0]) if known else None)
        stream = {"model": model, "profile": profile}
        connection.rows(
            query("landmarks_add"),
            {**stream, "instrument": instrument, "looks": [int(one) for one in found.looks]},
        )
        connection.rows(
            query("moments_add"), {**stream, "moments": [int(one) for one in found.moments_ns]}
        )


def _nanoseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1) * 1_000
