"""Merging another archive into this one: every window once, whatever either has rolled up.

What comes over from the other archive arrives like windows that are late: in one batch of its own,
which sequential tests look at last, so nothing that was looked at changes. Each portion is one
transaction, and its windows are the ledger of what is here: after a kill the next merge continues.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import pyarrow as pa

from calidrift_agent._state import PointMeta, StateMeta, Window
from calidrift_agent._vocabulary import Instrument, Strategy
from calidrift_agent.errors import StateFormatError
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._coverage import Plan, Record, plan
from calidrift_analyzer.store._incoming import INCOMING, incoming
from calidrift_analyzer.store._merging_lists import merge_lists
from calidrift_analyzer.store._reading import read_sums
from calidrift_analyzer.store._rows import WindowRows
from calidrift_analyzer.store._sql import query

__all__ = ["MergeReport", "merge_archive"]

_PORTION: Final = 1_000
"""Records that come over in one transaction; 1,000 of 200 points hold 12 million cells, 0.3 GB."""


@final
@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge brought.

    Attributes:
        processes: Processes that were not known here.
        records: Windows and rollups that came over as they are.
        differences: Processes of which a record of the other archive reached across the end of
            what is here, so that one coarse window came with what it has more.
        rows: Profiles, captures, moments, decisions and other rows that were not here.
        unclear: What stayed in the other archive, one sentence each: it cannot be told apart from
            what is here, because one of the two has lost windows.
    """

    processes: int = 0
    records: int = 0
    differences: int = 0
    rows: int = 0
    unclear: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class _Pair:
    """One process, by its keys in the other archive and in this one."""

    source: int
    target: int
    process: str
    model: str
    profile: str
    same: bool

    def words(self) -> str:
        return f"process {self.process} of model {self.model!r}"


@final
@dataclass(slots=True)
class _Tally:
    """The report while it grows."""

    records: int
    differences: int
    unclear: list[str]


def merge_archive(connection: Connection, other: Path) -> MergeReport:
    """Take over what another archive has and this one has not; the other one stays as it is.

    May be repeated, and killed at any moment.

    Args:
        connection: The open database.
        other: File of the other archive.

    Raises:
        StoreLostError: DuckDB died on the way; what was committed stays, so call again.
        StoreError: The other archive cannot be read; see `incoming`.
    """
    with incoming(connection, other):
        with connection.transaction():
            before = _count(connection, "processes")
            connection.rows(query("merge_processes"))
            connection.rows(query("merge_process_points"))
            processes = _count(connection, "processes") - before
        # Before windows: no rollup may reach across a moment that the other one sums from.
        rows = merge_lists(connection)
        tally = _Tally(0, 0, [])
        batch = int(connection.rows(query("next_batch"))[0][0])
        found = connection.rows(query("merge_pairs"))
        pairs = list(_with_news(connection, [_Pair(*row) for row in found]))
        _merge_windows(connection, pairs, batch, tally)
    return MergeReport(processes, tally.records, tally.differences, rows, tuple(tally.unclear))


def _with_news(connection: Connection, pairs: Sequence[_Pair]) -> Iterator[_Pair]:
    """Leave out processes of which everything is here at first sight: most of them, mostly."""
    ours = {row[0]: row[1:] for row in connection.rows(query("merge_heads"))}
    with connection.using(INCOMING):
        theirs = {row[0]: int(row[1]) for row in connection.rows(query("merge_heads"))}
    for pair in pairs:
        last, whole = ours.get(pair.target, (-1, True))
        if theirs.get(pair.source, -1) > last or not whole:
            yield pair


def _merge_windows(
    connection: Connection, pairs: Sequence[_Pair], batch: int, tally: _Tally
) -> None:
    portion: list[tuple[int, int, int]] = []
    for pair in pairs:
        if not pair.same:
            tally.unclear.append(
                f"{pair.words()} has other points or another instrument there than here"
            )
            continue
        chosen = _plan(connection, pair)
        if chosen.rest_through is not None:
            problem = _add_rest(connection, pair, chosen.rest_through, batch)
            if problem is not None:
                tally.unclear.append(f"{pair.words()}: {problem}")
                continue
            tally.differences += 1
        if chosen.unclear:
            first, last = chosen.unclear[0], chosen.unclear[-1]
            tally.unclear.append(
                f"{pair.words()}: {len(chosen.unclear)} records ending in window {first} to {last} "
                "overlap with what is here, and one of the two archives has lost windows"
            )
        for start in range(0, len(chosen.numbers), _PORTION):
            numbers = chosen.numbers[start : start + _PORTION]
            portion += [(pair.source, pair.target, number) for number in numbers]
            if len(portion) >= _PORTION:
                _add(connection, portion, batch)
                portion = []
        tally.records += len(chosen.numbers)
    if portion:
        _add(connection, portion, batch)


def _plan(connection: Connection, pair: _Pair) -> Plan:
    with connection.using(INCOMING):
        there = _records(connection, pair.source)
    return plan(_records(connection, pair.target), there)


def _records(connection: Connection, process_id: int) -> list[Record]:
    found = connection.rows(query("merge_records"), {"process_id": process_id})
    return [Record(int(number), int(first), int(w), int(c)) for number, first, w, c in found]


def _add(connection: Connection, portion: Sequence[tuple[int, int, int]], batch: int) -> None:
    """Take over records as they are, in one transaction."""
    sources, targets, numbers = np.array(portion, np.int64).T
    with connection.transaction():
        connection.rows(query("batch_add"), {"batch": batch, "now": time.time_ns()})
        connection.rows(query("merge_coming"))
        connection.insert(
            "coming",
            pa.table(
                {
                    "source": pa.array(sources.astype(np.int32)),
                    "process_id": pa.array(targets.astype(np.int32)),
                    "number": pa.array(numbers),
                }
            ),
        )
        for name in ("windows", "points", "segments"):
            connection.rows(query(f"merge_{name}"), {"batch": batch} if name == "windows" else {})


def _add_rest(connection: Connection, pair: _Pair, through: int, batch: int) -> str | None:
    """Add what the other archive's sum up to a window has more, as one coarse window.

    Returns:
        Why it cannot be told; `None` where it was added.
    """
    with connection.using(INCOMING):
        meta = _meta(connection, pair.source)
        theirs, held = read_sums(connection, meta, through), _held(connection, pair.source, through)
    ours = read_sums(connection, meta)
    try:
        rest = theirs.minus(ours)
    except StateFormatError:
        return (
            f"its sum up to window {through} does not hold what is here, so one of the two "
            "archives has lost windows"
        )
    more = held - _held(connection, pair.target, through)
    with connection.transaction():
        connection.rows(query("batch_add"), {"batch": batch, "now": time.time_ns()})
        rows = WindowRows(pair.target, batch)
        rows.add(_numbered(rest, through))
        for name, table in rows.tables().items():
            connection.insert(name, table)
        connection.rows(
            query("merge_rest"),
            {
                "process_id": pair.target,
                "number": through,
                "first": min(ours.number + 1, through),
                "holds": max(more, 1),
                "coarse": max(more, 1),
            },
        )
    return None


def _numbered(rest: Window, number: int) -> Window:
    fields = {name: getattr(rest, name) for name in rest.__slots__}
    return Window(**{**fields, "number": number})


def _held(connection: Connection, process_id: int, through: int) -> int:
    parameters = {"process_id": process_id, "through": through}
    return int(connection.rows(query("merge_held"), parameters)[0][0])


def _meta(connection: Connection, process_id: int) -> StateMeta:
    """Who a stored process is, with its points."""
    row = connection.rows(query("merge_process"), {"process_id": process_id})[0]
    points = connection.rows(query("merge_points_of"), {"process_id": process_id})
    return StateMeta(
        process=row[0],
        boot=row[1],
        pid=int(row[2]),
        started_ns=int(row[3]),
        model=row[4],
        profile=row[5],
        instrument=Instrument(row[6]),
        strategy=Strategy(row[7]),
        agent_version=row[8],
        window_seconds=float(row[9]),
        points=tuple(PointMeta(name, None, None, None, ()) for (name,) in points),
    )


def _count(connection: Connection, table: str) -> int:
    return int(connection.rows(f"SELECT COUNT(*) FROM {table}")[0][0])
