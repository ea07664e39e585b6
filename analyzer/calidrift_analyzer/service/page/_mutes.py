"""Forms of mutes, read into the orders that the API takes."""

from types import MappingProxyType
from typing import Final

from fastapi import HTTPException
from pydantic import ValidationError

from calidrift_analyzer.service._payloads import MuteOrder, UnmuteOrder

__all__ = ["SPANS", "read_mute", "read_unmute"]

SPANS: Final = MappingProxyType(
    {
        "1": "1 hour",
        "4": "4 hours",
        "24": "1 day",
        "72": "3 days",
        "168": "7 days",
        "336": "14 days",
        "720": "30 days",
        "2160": "90 days",
    }
)
"""Hours that a mute may last, and how they are called; others: `calidrift mute --for`."""


def read_mute(form: dict[str, str]) -> MuteOrder:
    """Read the form of a mute.

    Args:
        form: Its fields: `model`, `point` (a name, or a pattern with `*` and `?`; empty for the
            whole model), `hours` and `reason`.

    Raises:
        HTTPException: 400: it has no end, or no reason on one line.

    >>> read_mute({"model": "net", "hours": "24", "reason": "a known fault"}).seconds
    86400.0
    """
    hours = form.get("hours", "")
    if hours not in SPANS:
        raise HTTPException(
            400, "a mute always ends: choose for how long; nothing was muted, go back"
        )
    try:
        return MuteOrder(
            model=form.get("model", ""),
            point=form.get("point", "").strip() or None,
            seconds=int(hours) * 3_600.0,
            reason=form.get("reason", ""),
        )
    except ValidationError as error:
        raise HTTPException(
            400,
            "a mute needs a reason of 1 to 500 characters on one line, because it stands wherever "
            "the alarm is shown, and a point of at most 512; nothing was muted, go back",
        ) from error


def read_unmute(form: dict[str, str]) -> UnmuteOrder:
    """Read the form that ends a mute: `model`, `point` as it was muted, and `note`.

    Raises:
        HTTPException: 400: the note is too long, or not on one line.
    """
    try:
        return UnmuteOrder(
            model=form.get("model", ""),
            point=form.get("point") or None,
            reason=form.get("note", "").strip(),
        )
    except ValidationError as error:
        raise HTTPException(
            400, "a note may have 500 characters on one line; nothing was changed, go back"
        ) from error
