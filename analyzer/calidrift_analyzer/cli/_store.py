"""`calidrift store`."""

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, final

import typer

from calidrift_agent._command_line import Invocation
from calidrift_analyzer.cli._output import Output, count
from calidrift_analyzer.config import AnalyzerConfig, load_config
from calidrift_analyzer.cycle import landmarks_of, retention_of
from calidrift_analyzer.errors import ConfigurationError, NoDataError, RefusedError
from calidrift_analyzer.store import COMMAND_PATIENCE, RetentionReport, Store

__all__ = ["Action", "store"]

_GAPS: Final = 5
"""Processes whose lost windows are named; --json has all."""
_USAGE: Final = "calidrift store merge OTHER.duckdb"


@final
class Action(StrEnum):
    """What `calidrift store` does."""

    RETAIN = "retain"
    CHECK = "check"
    MERGE = "merge"
    COMPACT = "compact"


def store(
    invocation: Invocation,
    action: Annotated[
        Action | None,
        typer.Argument(
            help="retain: fold what is old into coarser sums. check: is every window there once, "
            "and which never came? merge: take over another archive. compact: give disk back."
        ),
    ] = None,
    other: Annotated[Path | None, typer.Argument(help="The other archive, for merge.")] = None,
) -> None:
    """Look after the database: retain, check, merge, compact.

    `retain` keeps windows, minutes, hours and days as long as `keep_windows_hours`,
    `keep_minutes_days`, `keep_hours_days` and `keep_days_years` in [analyzer] say, and stays under
    `max_database_bytes`; what alarms and versions refer to stays, and no count changes. `check`
    ends with status 1 where something contradicts itself; windows that never came are told. `merge`
    takes over what another archive has and this one has not; it may be repeated.
    """
    config = load_config(invocation.config)
    output = Output(invocation)
    if action is None:
        raise ConfigurationError(
            "'calidrift store' needs an argument that says what to do: retain, check, compact, or "
            "merge OTHER.duckdb"
        )
    if (action is Action.MERGE) != (other is not None):
        given = "needs another archive" if other is None else f"takes no archive, but got {other}"
        raise ConfigurationError(f"'calidrift store {action}' {given}; type: {_USAGE}")
    if action is not Action.MERGE and not config.database.exists():
        raise NoDataError(
            f"there is no database {config.database} yet; run calidrift status first, or name "
            "another one: [analyzer] database"
        )
    with Store.open(config.database, patience=COMMAND_PATIENCE) as opened:
        if other is not None:
            _merge(opened, other, output)
        elif action is Action.RETAIN:
            _retain(opened, config, output)
        elif action is Action.COMPACT:
            _compact(opened, output)
        else:
            _check(opened, output)


def _retain(opened: Store, config: AnalyzerConfig, output: Output) -> None:
    with output.progress("folding"):
        report = opened.retain(retention_of(config), landmarks_of(config))
    output.show(_retained(report))
    if not report.fits:
        output.note(
            f"the database is still larger than max_database_bytes = "
            f"{config.retention.max_database_bytes:,}: everything older than an hour is in its "
            "coarsest form; raise the limit, or keep fewer models in one database"
        )
    output.document(asdict(report))


def _retained(report: RetentionReport) -> str:
    size = f"{_megabytes(report.bytes_after)} (before: {_megabytes(report.bytes_before)})"
    if not report.folded:
        return f"nothing was old enough to fold; the database takes {size}"
    return (
        f"{count(report.folded, 'record')} folded into {count(report.rollups, 'rollup')}, no count "
        f"changed; the database takes {size}"
    )


def _check(opened: Store, output: Output) -> None:
    with output.progress("checking"):
        report = opened.upkeep.check()
    output.document({**asdict(report), "whole": report.whole})
    processes = f"{report.processes:,} {_plural('process', report.processes)}"
    held = f"{count(report.windows, 'window')} of {processes}"
    if report.whole:
        coarse = f", {report.coarse_windows:,} of them coarse" if report.coarse_windows else ""
        said = "contradicts itself nowhere" if report.gaps else "is whole"
        output.show(
            f"the database {said}: {held}{coarse}, each exactly once, in "
            f"{count(report.records, 'record')}; every rollup holds what went into it (what is not "
            "folded yet has nothing to be held against)"
        )
        if report.gaps:
            more = "; ..." if len(report.gaps) > _GAPS else ""
            output.note(
                f"{count(report.lost_windows, 'window')} never came: "
                f"{'; '.join(report.gaps[:_GAPS])}{more}. A state file that was damaged or deleted "
                "before it was read leaves such gaps; an archive that has these windows can be "
                "merged"
            )
        return
    raise RefusedError(
        f"the database {opened.path} is damaged ({held}): {'; '.join(report.problems)}. Nothing "
        "was changed: keep a copy, and merge an archive that is whole into a new database"
    )


def _merge(opened: Store, other: Path, output: Output) -> None:
    with output.progress("merging"):
        report = opened.upkeep.merge(other)
    brought: Mapping[str, int] = {
        "process": report.processes,
        "record": report.records,
        "difference": report.differences,
        "other row": report.rows,
    }
    if any(brought.values()):
        listed = ", ".join(
            f"{number:,} {_plural(what, number)}" for what, number in brought.items() if number
        )
        output.show(f"from {other} came {listed}; it was left as it was")
    else:
        output.show(f"everything in {other} is here already; nothing was changed")
    for sentence in report.unclear:
        output.note(f"left in {other}: {sentence}")
    output.document(asdict(report))


def _compact(opened: Store, output: Output) -> None:
    with output.progress("compacting"):
        before, after = opened.upkeep.compact()
    output.show(f"the database takes {_megabytes(after)} (before: {_megabytes(before)})")
    output.document({"bytes_before": before, "bytes_after": after})


def _plural(what: str, number: int) -> str:
    """Write a noun in the number that it has.

    >>> _plural("process", 1), _plural("process", 2), _plural("record", 2)
    ('process', 'processes', 'records')
    """
    if number == 1:
        return what
    return f"{what}es" if what.endswith("s") else f"{what}s"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
