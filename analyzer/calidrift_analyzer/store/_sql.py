"""SQL that lives in files: queries by name, migrations in order. Each file is read once."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, final

__all__ = ["Migration", "migrations", "query"]

_PACKAGE: Final = "calidrift_analyzer.store"


@final
@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema; steps only go forward."""

    number: int
    name: str
    sql: str


@cache
def query(name: str) -> str:
    """Give the text of `queries/<name>.sql`."""
    return (files(_PACKAGE) / "queries" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def migrations() -> tuple[Migration, ...]:
    """Give the files `migrations/NNNN_name.sql` in order."""
    folder = files(_PACKAGE) / "migrations"
    found = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return tuple(_migration(entry) for entry in found)


def _migration(entry: Traversable) -> Migration:
    number, _, name = entry.name.removesuffix(".sql").partition("_")
    return Migration(int(number), name, entry.read_text(encoding="utf-8"))
