"""Pages of long lists, with cursors that say nothing to whoever holds them."""

import base64
from collections.abc import Sequence
from typing import Final, TypeVar

from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.service._views import Page

__all__ = ["cursor_number", "cursor_place", "paged"]

_T = TypeVar("_T")
_CURSOR: Final = "cursor is not one that a page before gave; leave it out for the first page"


def paged(items: Sequence[_T], limit: int, keys: Sequence[object]) -> Page[_T]:
    """Cut a list that was read with one entry too many, where there is a next page.

    Args:
        items: The entries, up to `limit` + 1.
        limit: Entries of a page.
        keys: What each entry is found again by.
    """
    more = len(items) > limit
    return Page(tuple(items[:limit]), _encoded(str(keys[limit - 1])) if more else None)


def cursor_number(cursor: str | None) -> int | None:
    """Read a cursor that is a number.

    Raises:
        ConfigurationError: It is none that a page gave.
    """
    if cursor is None:
        return None
    return _number(_decoded(cursor))


def cursor_place(cursor: str | None) -> tuple[int, str] | None:
    """Read a cursor that is a number and a name.

    Raises:
        ConfigurationError: It is none that a page gave.
    """
    if cursor is None:
        return None
    number, _, name = _decoded(cursor).partition(" ")
    return _number(number), name


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (ValueError, UnicodeError) as error:
        raise ConfigurationError(_CURSOR) from error


def _number(text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal() or not -(2**63) <= int(text) < 2**63:
        raise ConfigurationError(_CURSOR)
    return int(text)
