"""What people say about models: mutes and markers, kept together with who said it."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.jobs._orders import audit_row
from calidrift_analyzer.records import Marker, Mute
from calidrift_analyzer.store import Store

__all__ = ["known_points", "mark", "matching_points", "mute", "unmute"]

_LISTED: Final = 8


def mute(store: Store, wanted: Mute) -> tuple[Mute, tuple[str, ...]]:
    """Keep a mute, and write it into the audit.

    Args:
        store: The store.
        wanted: The mute; another name of a point becomes its own.

    Returns:
        The mute as it is kept, and the points that it is about; none where none is known yet.

    Raises:
        NoDataError: Points of the model are known, and it is about none of them.
    """
    names = known_points(store, wanted.model)
    point = None if wanted.point is None else names.get(wanted.point, wanted.point)
    given = Mute(
        model=wanted.model,
        point=point,
        created_ns=wanted.created_ns,
        until_ns=wanted.until_ns,
        reason=wanted.reason,
        author=wanted.author,
    )
    points = matching_points(given, names)
    row = audit_row(given.author, "mute", given.model, given.what, given.sentence)

    def change() -> bool:
        store.annotations.mute(given)
        store.jobs.note(row)
        return True

    def done() -> bool | None:
        kept = store.annotations.mutes(given.model)
        return any(_same(one, given) for one in kept) or None

    store.jobs.changing(change, done=done)
    return given, points


def unmute(
    store: Store, model: str, point: str | None, *, every: bool, author: str, reason: str = ""
) -> tuple[Mute, ...]:
    """End mutes before their time, and write it into the audit.

    Args:
        store: The store.
        model: Name of the model.
        point: The point or pattern as it was muted; `None` for the whole model.
        every: End all mutes of the model, whatever they are about.
        author: Who ends them.
        reason: Why, where that is said.

    Returns:
        Those that were ended.

    Raises:
        NoDataError: Nothing is muted by that name.
    """
    active = store.annotations.active(model)
    wanted = None if point is None else known_points(store, model).get(point, point)
    ended = active if every else tuple(one for one in active if one.point == wanted)
    if not ended:
        raise NoDataError(_nothing(model, wanted, active))

    def change() -> bool:
        for one in ended:
            store.annotations.unmute(one, author=author, reason=reason)
            store.jobs.note(audit_row(author, "unmute", model, one.what, reason))
        return True

    def done() -> bool | None:
        still = store.annotations.active(model)
        return None if any(_same(one, other) for one in ended for other in still) else True

    store.jobs.changing(change, done=done)
    return ended


def mark(store: Store, marker: Marker) -> None:
    """Keep a marker, and write it into the audit."""
    row = audit_row(marker.author or "", "mark", marker.model, "", marker.text)

    def change() -> bool:
        store.annotations.mark(marker)
        store.jobs.note(row)
        return True

    def done() -> bool | None:
        kept = store.annotations.markers(marker.model)
        stamp = (marker.created_ns, marker.text)
        return any((one.created_ns, one.text) == stamp for one in kept) or None

    store.jobs.changing(change, done=done)


def known_points(store: Store, model: str) -> dict[str, str]:
    """Names of the points of a model, and other names under which they are known, to the name."""
    names: dict[str, str] = {}
    for one in store.observed(model):
        profile = store.profile(one.profile)
        for point in () if profile is None else profile.points.values():
            names.update(dict.fromkeys((point.name, *point.aliases), point.name))
        if profile is None:
            totals = store.totals(model, one.profile, instrument=one.instrument)
            names.update((point.name, point.name) for point in totals.points)
    return names


def matching_points(mute: Mute, names: Mapping[str, str]) -> tuple[str, ...]:
    """Points that a mute is about.

    Raises:
        NoDataError: Points of the model are known, and it is about none of them.
    """
    found = tuple(dict.fromkeys(name for name in names.values() if mute.covers(name)))
    if names and not found:
        close = get_close_matches(mute.point or "", names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {_some(tuple(names))}"
        raise NoDataError(
            f"no point of {mute.model} is called {mute.point!r} ({hint}); give a name, or a "
            "pattern in quotation marks, e.g. 'layer4.*'"
        )
    return found


def _same(one: Mute, other: Mute) -> bool:
    return (one.point, one.created_ns) == (other.point, other.created_ns)


def _nothing(model: str, point: str | None, active: Sequence[Mute]) -> str:
    if not active:
        return f"nothing of {model} is muted; `calidrift mutes --all` lists what was"
    what = "the whole model" if point is None else repr(point)
    also = [one.what for one in active if point is not None and one.covers(point)]
    covered = f" ({point} is under {also[0]!r}: end that one)" if also else ""
    listed = ", ".join(one.what for one in active)
    return (
        f"{what} of {model} is not muted by that name{covered}; muted are: {listed}: give one of "
        "these as it stands, or --all"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
