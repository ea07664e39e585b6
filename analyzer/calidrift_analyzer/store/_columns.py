"""Names of the columns that carry the agent's vocabulary, in the order of its arrays.

The schema spells them out (`migrations/`), so that people can query the file; a
test holds the two together.
"""

from typing import Final

from calidrift_agent._vocabulary import (
    COUNT_COLUMNS,
    CountColumn,
    DropReason,
    RequestColumn,
    Stage,
    ValueColumn,
)

__all__ = ["COUNT_NAMES", "REQUEST_NAMES", "VALUE_NAMES"]

REQUEST_NAMES: Final[tuple[str, ...]] = (
    *(column.name.lower() for column in RequestColumn if not column.name.endswith("_FIRST")),
    *(f"error_{stage.value}" for stage in Stage),
    *(f"drop_{reason.value}" for reason in DropReason),
)
_SINGLE: Final = {
    int(column): column.name.lower() for column in CountColumn if not column.name.endswith("_FIRST")
}
COUNT_NAMES: Final[tuple[str, ...]] = tuple(
    _SINGLE.get(column, f"ratio_{column - CountColumn.RATIO_FIRST}")
    for column in range(COUNT_COLUMNS)
)
VALUE_NAMES: Final[tuple[str, ...]] = tuple(column.name.lower() for column in ValueColumn)
