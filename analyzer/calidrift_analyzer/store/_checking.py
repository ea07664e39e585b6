"""Whether the database holds together: every window once, and in rollups what the ledger says."""

from dataclasses import dataclass
from typing import Any, Final, final

from calidrift_agent._sketch import CELLS
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._coverage import Record, lost
from calidrift_analyzer.store._sql import migrations, query

__all__ = ["CheckReport", "check"]

_SHOWN: Final = 3

_CHECKS: Final[tuple[tuple[str, str, str], ...]] = (
    ("doubled", "{} windows are there twice", "process {}, window {}"),
    ("inside", "{} windows are inside a rollup as well", "process {}, window {}"),
    ("crowded", "{} processes have more windows than numbers", "process {}, up to window {}"),
    ("orphans", "{} windows lack their process, points or arrival", "process {}, window {}"),
    ("counts", "{} windows have points with counts that cannot be", "process {}, window {}"),
    ("sketches", "{} windows have sketches that are damaged", "process {}, window {}"),
    ("looks", "the looks of {} models differ from their rollups", "model {!r}, profile {!r}"),
    ("look_points", "the looks of {} points differ from their rollups", "model {!r}, point {!r}"),
    ("ledger", "{} tiers of rollups differ from what the ledger of moves says", "{} (tier {})"),
)
"""Name of the query, what its rows mean, and how to name one of them."""


@final
@dataclass(frozen=True, slots=True)
class CheckReport:
    """What an integrity check found.

    Attributes:
        schema: Number of the newest migration.
        processes: Processes that are known.
        records: Windows and rollups.
        windows: Windows that they stand for.
        coarse_windows: How many of these stand for several that the ring had overwritten.
        point_rows: Rows of points, each with its sketch.
        problems: What contradicts itself, one sentence each; empty where nothing does.
        lost_windows: Windows that are missing in the numbers of their process and that no coarse
            window stands for. No contradiction: a state file that was damaged or deleted before it
            was read leaves such gaps, and what is here is counted once all the same.
        gaps: Which these are, one sentence for each process.
    """

    schema: int
    processes: int
    records: int
    windows: int
    coarse_windows: int
    point_rows: int
    problems: tuple[str, ...]
    lost_windows: int
    gaps: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing contradicts itself; windows that never came do not."""
        return not self.problems


def check(connection: Connection) -> CheckReport:
    """Read everything, and hold it against the rules and the ledger; nothing is changed.

    A figure that somebody changed in a window that is not folded yet, and that is still possible,
    is not seen: nothing else holds it.

    Args:
        connection: The open database.

    Raises:
        StoreError: A part of the file cannot be read at all.

    Cost: 1 s per million rows of points with 60 occupied cells.
    """
    problems = [*_schema(connection)]
    for name, meaning, example in _CHECKS:
        parameters: dict[str, Any] = {"size": CELLS} if name == "sketches" else {}
        found = connection.rows(query(f"check_{name}"), parameters)
        if found:
            shown = "; ".join(example.format(*row) for row in found[:_SHOWN])
            more = ", ..." if len(found) > _SHOWN else ""
            problems.append(f"{meaning.format(len(found))}: {shown}{more}")
    records, windows, coarse, points, processes = connection.rows(query("check_size"))[0]
    missing, gaps = _gaps(connection)
    return CheckReport(
        schema=migrations()[-1].number,
        processes=int(processes),
        records=int(records),
        windows=int(windows),
        coarse_windows=int(coarse),
        point_rows=int(points),
        problems=tuple(problems),
        lost_windows=missing,
        gaps=gaps,
    )


def _gaps(connection: Connection) -> tuple[int, tuple[str, ...]]:
    """Count windows that are missing, and say for each process which."""
    missing, told = 0, []
    for (process,) in connection.rows(query("check_lost")):
        found = connection.rows(query("merge_records"), {"process_id": process})
        number, spans = lost([Record(*(int(value) for value in row)) for row in found])
        if number <= 0:
            continue
        missing += number
        shown = [f"{low} to {high}" if low < high else str(low) for low, high in spans[:_SHOWN]]
        named = f": windows {', '.join(shown)}" if shown else ", inside rollups"
        more = ", ..." if len(spans) > _SHOWN else ""
        told.append(f"process {process} lacks {number:,}{named}{more}")
    return missing, tuple(told)


def _schema(connection: Connection) -> list[str]:
    applied = {int(row[0]): str(row[1]) for row in connection.rows(query("ledger"))}
    wanted = {step.number: step.name for step in migrations()}
    return [
        f"migration {number} is {applied.get(number, 'not applied')!r}, but should be {name!r}"
        for number, name in wanted.items()
        if applied.get(number) != name
    ]
