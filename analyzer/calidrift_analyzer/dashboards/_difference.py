"""What differs between what Calidrift makes and what Grafana has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

__all__ = ["differences"]

_LATER_IS_FINE: Final = frozenset({"schemaVersion"})
"""Grafana raises these by itself when it stores a dashboard."""


def differences(own: object, found: object, where: str = "") -> Iterator[str]:
    """Name every place where Grafana does not have what is wanted.

    Keys that only Grafana has are its own defaults and no difference; a value that differs, a
    missing key, and an item more or less in a list are.

    Args:
        own: What is wanted, as JSON.
        found: What Grafana has, as JSON.
        where: Path of both, for people.

    Yields:
        A sentence for each place.

    >>> list(differences({"title": "a", "n": [1]}, {"title": "b", "n": [1, 2], "id": 7}))
    ["title: wanted 'a', found 'b'", 'n: 1 more in Grafana']
    """
    if isinstance(own, Mapping) and isinstance(found, Mapping):
        yield from _keys(own, found, where)
    elif isinstance(own, list) and isinstance(found, list):
        yield from _items(own, found, where)
    elif own != found:
        yield f"{where or 'all of it'}: wanted {_short(own)}, found {_short(found)}"


def _keys(own: Mapping[str, Any], found: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in own.items():
        place = f"{where}.{key}" if where else str(key)
        if key not in found:
            if value not in (None, {}, []):  # Grafana leaves empty ones out
                yield f"{place}: not in Grafana"
        elif key in _LATER_IS_FINE and found[key] >= value:
            continue
        else:
            yield from differences(value, found[key], place)


def _items(own: Sequence[Any], found: Sequence[Any], where: str) -> Iterator[str]:
    for number, (value, other) in enumerate(zip(own, found, strict=False)):
        yield from differences(value, other, f"{where}[{_name(value, number)}]")
    if len(found) != len(own):
        more = len(found) - len(own)
        yield f"{where}: {abs(more)} {'more' if more > 0 else 'fewer'} in Grafana"


def _name(value: object, number: int) -> str:
    """Name an item by what people know it by."""
    if isinstance(value, Mapping):
        for key in ("title", "name", "refId"):
            if isinstance(value.get(key), str):
                return str(value[key])
    return str(number)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
