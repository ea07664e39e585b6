"""Brings a database to the schema of this version; refuses one that is already ahead of it."""

import time

import duckdb

import calidrift_agent
from calidrift_analyzer.errors import StoreError, StoreVersionError
from calidrift_analyzer.store._sql import migrations, query

__all__ = ["migrate"]


def migrate(connection: duckdb.DuckDBPyConnection, shown: str) -> tuple[int, ...]:
    """Apply what is missing, each step in one transaction with the record that it ran.

    Args:
        connection: An open database.
        shown: How to call the database in a message.

    Returns:
        Numbers of the steps applied now; empty where the schema was current.

    Raises:
        StoreVersionError: The ledger holds a step that this version does not know. Nothing was
            changed.
        StoreError: There are tables, but no ledger: somebody else's database. Nothing was changed.
    """
    known = migrations()
    exists = connection.execute(query("ledger_exists")).fetchone()
    applied: dict[int, tuple[str, str]] = {}
    if exists is not None:
        rows = connection.execute(query("ledger")).fetchall()
        applied = {int(number): (name, writer) for number, name, writer in rows}
    elif (stranger := connection.execute(query("strangers")).fetchone()) is not None:
        raise StoreError(
            f"the database {shown} belongs to something else (it has a table {stranger[0]!r}); it "
            "was left as it was: name another database, or a new file"
        )
    newest = known[-1].number
    foreign = [number for number in applied if number > newest]
    if foreign:
        name, writer = applied[max(foreign)]
        raise StoreVersionError(
            f"the database {shown} was written by calidrift {writer} (schema {max(foreign)}, "
            f"{name!r}); this is calidrift {calidrift_agent.__version__}, which knows schemas up "
            f"to {newest}: upgrade calidrift, or name another database"
        )
    missing = [step for step in known if step.number not in applied]
    for step in missing:
        connection.execute("BEGIN TRANSACTION")
        try:
            connection.execute(query("ledger_create"))
            connection.execute(step.sql)
            connection.execute(
                query("ledger_insert"),
                [step.number, step.name, calidrift_agent.__version__, time.time_ns()],
            )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return tuple(step.number for step in missing)
