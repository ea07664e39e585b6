"""The tables beside windows that come over from another archive, without doubles."""

from typing import Final

from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._incoming import INCOMING
from calidrift_analyzer.store._sql import query

__all__ = ["merge_lists"]

_LISTS: Final[dict[str, tuple[str, str, str | None]]] = {
    "assessments": ("id", "created", "outcome_ids"),
    "validations": ("id", "created", "outcome_ids"),
    "versions": ("id", "created", "outcome_ids"),
    "mutes": ("id", "created", None),
    "markers": ("id", "created", None),
    "audit": ("entry", "happened", None),
}
"""Tables whose rows stand in an order: column of the place, of the time, sequence of the places."""

_OWN: Final = frozenset(
    {
        "schema_migrations",
        # Windows and what was made of them; `_merging` sees to the first three.
        "processes",
        "process_points",
        "windows",
        "segment_counts",
        "point_windows",
        "rollups",
        "rollup_segments",
        "rollup_points",
        "looks",
        "look_points",
        "look_segments",
        "look_losses",
        "batches",
        "folds",
        # Work that belongs to the analyzer that does it: a second one must not go on with it.
        "jobs",
        "job_steps",
        "triggers",
        "tasks",
        "freezes",
        "deployments",
        "deployment_tries",
    }
)
"""Tables whose rows are never taken over as they are."""


def merge_lists(connection: Connection) -> int:
    """Take over decisions, profiles, captures and what else is not counted.

    Returns:
        How many rows are new.
    """
    known = {
        str(name)
        for (name,) in connection.rows(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() "
            "AND NOT internal AND NOT temporary"
        )
    }
    added = 0
    with connection.transaction():
        for table in sorted(known - _OWN):
            before = _size(connection, table)
            if table in _LISTS:
                _interleave(connection, table)
            elif table == "alarms":
                connection.rows(query("merge_alarms"))
            else:
                _unite(connection, table)
            added += _size(connection, table) - before
    return added


def _unite(connection: Connection, table: str) -> None:
    """Add the rows that are not there; where keys meet, the row that is here stays."""
    keyed = connection.rows(
        "SELECT 1 FROM duckdb_constraints() WHERE database_name = current_database() "
        f"AND table_name = '{table}' AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')"
    )
    connection.rows(
        f"INSERT INTO {table} BY NAME SELECT * FROM {INCOMING}.{table} "
        + ("ON CONFLICT DO NOTHING" if keyed else f"EXCEPT SELECT * FROM {table}")
    )


def _interleave(connection: Connection, table: str) -> None:
    """Bring two lists into one order by time that keeps the order of each.

    Rows are told apart by everything but their place. A clock that was set back does not change
    the order of a list: of each row the latest time up to it counts.
    """
    place, at, sequence = _LISTS[table]
    connection.rows(
        f"CREATE OR REPLACE TEMP TABLE incoming_rows AS "
        f"SELECT * FROM {INCOMING}.{table} AS i WHERE NOT EXISTS (SELECT 1 FROM {table} AS o "
        f"WHERE {_same(connection, table, place)})"
    )
    new = _size(connection, "incoming_rows")
    if not new:
        return
    connection.rows(
        "CREATE OR REPLACE TEMP TABLE united AS "
        "SELECT * EXCLUDE (source, moment) "
        f"REPLACE (ROW_NUMBER() OVER (ORDER BY moment, source, {place}) AS {place}) FROM ("
        f"SELECT *, 0 AS source, MAX({at}) OVER (ORDER BY {place}) AS moment FROM {table} "
        f"UNION ALL BY NAME "
        f"SELECT *, 1 AS source, MAX({at}) OVER (ORDER BY {place}) AS moment FROM incoming_rows)"
    )
    connection.rows(f"DELETE FROM {table}")
    connection.rows(f"INSERT INTO {table} BY NAME SELECT * FROM united")
    if sequence is not None:
        connection.rows(f"SELECT COUNT(NEXTVAL('{sequence}')) FROM range({new})")


def _same(connection: Connection, table: str, place: str) -> str:
    columns = connection.rows(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() "
        f"AND table_name = '{table}' AND NOT internal ORDER BY column_index"
    )
    return " AND ".join(
        f'i."{name}" IS NOT DISTINCT FROM o."{name}"' for (name,) in columns if name != place
    )


def _size(connection: Connection, table: str) -> int:
    return int(connection.rows(f"SELECT COUNT(*) FROM {table}")[0][0])
