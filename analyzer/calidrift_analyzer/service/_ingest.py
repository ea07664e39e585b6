"""What a sidecar pushes, checked before anything of it is stored.

A window in the store is summed with all others for ever, so one absurd figure would spoil every
later answer: times, counts and energies must be possible, not only well-formed.
"""

import re
import time
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import Push, StateMeta, Window
from calidrift_agent._vocabulary import ValueColumn
from calidrift_agent.errors import ProfileError, StateFormatError
from calidrift_analyzer.service._board import Board
from calidrift_analyzer.service._received import Received
from calidrift_analyzer.store import Heard, RemoteCapture, Store

__all__ = ["Ingested", "check_push", "store_push"]

_PROCESS: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(r"[0-9a-f]{0,128}")
_DOTS: Final = frozenset({".", ".."})
_MOST_POINTS: Final = 4_096
_MOST_TEXT: Final = 512
_LARGEST_COUNT: Final = 2**46
"""Sums of 100,000 windows still fit 64 bits; one window can hold no more elements than this."""
_LARGEST_NUMBER: Final = 2**53
_LATEST_NS: Final = 2**62
"""No clock shows more; the year 2116."""
_AHEAD_NS: Final = 300 * 10**9
"""How far the clock of a sender may be ahead of this one; what ends later is dated back."""
_SPARE_WINDOWS: Final = 1_000
_SPARE_NS: Final = 6 * 3_600 * 10**9
"""By so much more than the time that went by a process may have numbered: clocks step."""
_SUMS: Final = (ValueColumn.RATIO_SUM, ValueColumn.CLIPPED_ENERGY, ValueColumn.ENERGY)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of a push.

    Attributes:
        process: The process.
        model: The model.
        stored: Windows that were new.
        last_number: Number of the last stored window of the process; -1 without one. What is not
            above it need not be sent again.
        profile_known: Whether the profile of the process is here; where not, send it along.
        wanted: Captures of the process that are asked for; send them to
            `/ingest/captures/{process}/{name}`, or leave it.
    """

    process: str
    model: str
    stored: int
    last_number: int
    profile_known: bool
    wanted: tuple[str, ...] = ()


def check_push(push: Push) -> CalibrationProfile | None:
    """Check that a push can be true.

    Args:
        push: What was decoded.

    Returns:
        The profile that came along; `None` without one.

    Raises:
        StateFormatError: Something in it cannot be, in one sentence.
    """
    _check_meta(push.meta)
    numbers = [window.number for window in push.windows]
    if numbers != sorted(set(numbers)):
        raise StateFormatError("the windows of a push must be in the order of their numbers")
    for window in push.windows:
        _check_window(window)
    for capture in push.captures or ():
        if not 0 < len(capture.name) <= _MOST_TEXT or len(capture.segment or "") > _MOST_TEXT:
            raise StateFormatError("a capture of a push has an empty or too long name or segment")
    return _profile(push)


def store_push(
    store: Store,
    board: Board,
    push: Push,
    profile: CalibrationProfile | None,
    received: Received | None = None,
) -> Ingested:
    """Store what was checked; repeating it changes nothing.

    Windows that end further ahead than clocks differ are dated back to that moment: refused they
    would be lost, as they are they would be the newest for as long as that clock is wrong.

    Args:
        store: The store.
        board: Where rows are counted.
        push: What was checked.
        profile: The profile that came along.
        received: Where captures are kept that are asked for; `None` to ask for none.

    Raises:
        StateFormatError: The process cannot have come to such a number of a window yet.
        StoreError: The database failed; each part was stored whole or not at all, so repeat it.
    """
    meta = push.meta
    now_ns = time.time_ns()
    last_ns = store.views.last_arrival_ns() if push.windows else 0
    if push.windows and last_ns <= now_ns + _AHEAD_NS:  # else this clock was set back
        _check_numbers(store.views.heard(meta), push, now_ns)
    if profile is not None:
        store.put_profile(profile)
    before = store.views.windows().get(meta.model, (0, 0))[0] if push.windows else 0
    stored = 0
    if push.windows:
        until_ns = max(now_ns, last_ns) + _AHEAD_NS
        last = store.last_number(meta)
        stored = store.ingest(
            meta,
            [_dated(window, until_ns) for window in push.windows],
            batch=store.next_batch(),
        )
        ahead = sum(one.end_ns > until_ns and one.number > last for one in push.windows)
        board.count_dated_back(meta.model, ahead)
        board.count_rows(meta.model, store.views.windows()[meta.model][0] - before)
    if push.captures is not None:
        listed = [
            RemoteCapture(
                name=one.name,
                process=meta.process,
                model=meta.model,
                profile=meta.profile,
                kind=one.kind,
                captured_ns=one.captured_ns,
                segment=one.segment,
                size=one.size,
            )
            for one in {capture.name: capture for capture in push.captures}.values()
        ]
        store.views.put_remote_captures(meta.process, meta.model, listed)
    known = not meta.profile or store.views.profile_text(meta.profile) is not None
    return Ingested(
        process=meta.process,
        model=meta.model,
        stored=stored,
        last_number=store.last_number(meta),
        profile_known=known,
        wanted=() if received is None else received.wanted(store, meta),
    )


def _check_numbers(heard: Heard | None, push: Push, now_ns: int) -> None:
    """Refuse a number that the process cannot have come to: later windows would count as known.

    Windows are numbered from the beginning of a process on, one in `window_seconds`. How it began
    is what its first push said; a clock of it that is ahead says nothing.
    """
    meta = push.meta
    started_ns = meta.started_ns if heard is None else heard.started_ns
    length_ns = (meta.window_seconds if heard is None else heard.window_seconds) * 1e9
    most = []
    if started_ns <= now_ns + _AHEAD_NS:
        most.append((now_ns + _AHEAD_NS - started_ns) / length_ns)
    if heard is not None:
        most.append(heard.number + (now_ns - heard.arrived_ns) / length_ns)
    if not most:
        return
    limit = max(most) + _SPARE_WINDOWS + _SPARE_NS / length_ns
    number = push.windows[-1].number
    if number > limit:
        raise StateFormatError(
            f"window {number} cannot be: at one window in {length_ns / 1e9:g} s, process "
            f"{meta.process} can have come to number {limit:.0f} at most; nothing of the push was "
            "stored"
        )


def _dated(window: Window, until_ns: int) -> Window:
    """Give a window that ends at a moment at the latest, as long as it was."""
    late_ns = window.end_ns - until_ns
    if late_ns <= 0:
        return window
    return replace(window, start_ns=max(1, window.start_ns - late_ns), end_ns=until_ns)


def _check_meta(meta: StateMeta) -> None:
    if not _PROCESS.fullmatch(meta.process):
        raise StateFormatError("process must be 32 hexadecimal digits")
    if not _DIGEST.fullmatch(meta.profile):
        raise StateFormatError("profile must be a digest in hexadecimal digits, or empty")
    if not _named(meta.model) or len(meta.model) > 256:
        raise StateFormatError("model must be a name of 1 to 256 printable characters")
    names = [point.name for point in meta.points]
    if not _DOTS.isdisjoint((meta.model, *names)):
        raise StateFormatError(
            "no model and no point may be called '.' or '..': a browser takes these out of links"
        )
    if len(names) > _MOST_POINTS or len(set(names)) != len(names):
        raise StateFormatError(f"points must be at most {_MOST_POINTS}, each named once")
    texts = (meta.boot, meta.agent_version, *(n for p in meta.points for n in (p.name, *p.aliases)))
    if not all(_named(text) or text == meta.boot == "" for text in texts):
        raise StateFormatError(f"names must have 1 to {_MOST_TEXT} printable characters")
    numbers = [meta.window_seconds]
    for point in meta.points:
        numbers += [
            one for one in (point.observed_bound, point.clip_lo, point.clip_hi) if one is not None
        ]
    if not all(np.isfinite(float(one)) for one in numbers) or not meta.window_seconds > 0:
        raise StateFormatError("bounds and window_seconds must be finite numbers")
    if not 0 <= meta.started_ns < 2**62:
        raise StateFormatError("started_ns must be a moment in UTC nanoseconds")


def _named(text: str) -> bool:
    return 0 < len(text) <= _MOST_TEXT and text.isprintable()


def _check_window(window: Window) -> None:
    number = window.number
    if not 0 <= number < _LARGEST_NUMBER:
        raise StateFormatError(f"a window has the number {number}; numbers begin at 0")
    if not 0 < window.start_ns <= window.end_ns < _LATEST_NS:
        raise StateFormatError(
            f"window {number} lies in time where it cannot; check the clock of the sender"
        )
    if not 0 <= int(window.flags) < 2**16:
        raise StateFormatError(f"window {number} has flags that no agent writes")
    highest = max(
        int(window.requests.max(initial=0)),
        int(window.counts.max(initial=0)),
        int(window.cells.max(initial=0)),
    )
    counts = [count for one in window.segments for count in (one.units, one.covered)]
    if max(highest, *counts, 0) > _LARGEST_COUNT or min(counts, default=0) < 0:
        raise StateFormatError(f"window {number} has a count that cannot be")
    if any(len(one.name) > _MOST_TEXT for one in window.segments):
        raise StateFormatError(f"window {number} has a segment with too long a name")
    sums = window.values[:, list(_SUMS)]
    if np.isnan(window.values).any() or not np.isfinite(sums).all() or (sums < 0).any():
        raise StateFormatError(f"window {number} has a value that cannot be")


def _profile(push: Push) -> CalibrationProfile | None:
    if push.profile is None:
        return None
    try:
        profile = CalibrationProfile.from_json(push.profile)
    except ProfileError as error:
        raise StateFormatError(f"the profile of a push cannot be used: {error}") from error
    if profile.digest != push.meta.profile:
        raise StateFormatError(
            f"the profile of a push is {profile.digest[:12]}, but its process runs under "
            f"{push.meta.profile[:12] or '(none)'}"
        )
    return profile
