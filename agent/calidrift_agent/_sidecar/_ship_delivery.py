"""Brings windows of one process to the analyzer, each exactly once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, final

from calidrift_agent._sidecar._ship_client import Answer, BatchRefusedError, ShipError
from calidrift_agent._sidecar._ship_figures import PushFailure, ShipFigures
from calidrift_agent._sidecar._ship_ledger import Standing
from calidrift_agent._sidecar._ship_spool import Spool, SpoolEntry
from calidrift_agent._state import (
    Push,
    PushedCapture,
    StateMeta,
    StateReader,
    Window,
    decode_push,
    encode_push,
)
from calidrift_agent._vocabulary import WindowFlag
from calidrift_agent.errors import StateFormatError

MOST_ROWS: Final = 1_024
"""Points times windows of one body: about 1 MB."""
_MOST_TOLD: Final = 100
_MOST_PROFILE: Final = 4 * 1024 * 1024
_HEX: Final = frozenset("0123456789abcdef")
_log = logging.getLogger("calidrift_agent")


class Analyzer(Protocol):
    """Takes bodies and knows sums."""

    def push(self, body: bytes) -> Answer:
        """Send windows."""

    def sums(self, meta: StateMeta) -> Window:
        """Ask for the sum of what is stored of a process."""


@final
class Delivery:
    """Sends what is new of one process: first what waits in the spool, then its state file.

    What the analyzer says it has is the truth; nothing is sent before it was asked once. Windows
    that are nowhere any more come as one coarse window: the sum of everything, less the sum of
    what the analyzer has.

    Args:
        analyzer: Where to.
        spool: What waits on disk.
        figures: Where windows are counted.
    """

    def __init__(self, analyzer: Analyzer, spool: Spool, figures: ShipFigures) -> None:
        self._analyzer = analyzer
        self._spool = spool
        self._figures = figures
        self._rows = MOST_ROWS
        self._told: set[str] = set()

    def greet(
        self,
        meta: StateMeta,
        standing: Standing,
        captures: tuple[PushedCapture, ...] | None,
        profiles: Path | None,
    ) -> None:
        """Tell the analyzer of a process and its captures, and hear how far it has got.

        Args:
            meta: The process.
            standing: Its standing.
            captures: Everything that lies captured; None: as before.
            profiles: Folder of profiles; None where there is none.

        Raises:
            ShipError: It may be tried again.
        """
        known = self._tell(standing, Push(meta, captures=captures))
        if captures is not None:
            standing.listing = captures
        if known or standing.profile_known:
            standing.profile_known = True
            return
        text = _profile(profiles, meta.profile)
        if text is not None:
            self._tell(standing, Push(meta, profile=text))
        standing.profile_known = True  # or it never will be

    def spooled(self, process: str, standing: Standing, *, has_file: bool) -> None:
        """Send what waits in the spool.

        Args:
            process: The process.
            standing: Its standing.
            has_file: Whether its state file is there, whose sum fills holes in the spool.

        Raises:
            ShipError: It may be tried again; what was taken is out of the spool.
        """
        while True:
            self._spool.prune(process, standing.last)
            batches, total = self._spool.batches(process), self._spool.total(process)
            if batches and batches[0].first <= standing.last + 1:
                self._send_file(batches[0], standing)
                self._spool.remove(batches[0])
            elif total is not None:
                self._send_total(total, standing)
                self._spool.remove(total)
            elif not batches:
                return
            elif has_file:
                for entry in batches:
                    self._spool.remove(entry)
            else:
                self._lose(batches[0].first - standing.last - 1)
                standing.advance(batches[0].first - 1)

    def read(self, reader: StateReader, standing: Standing) -> None:
        """Send what is new in a state file.

        Raises:
            ShipError: It may be tried again.
            StateError: The file cannot be read.
        """
        found = reader.windows(after=standing.last)
        if found.missing is not None:
            sums = self._sums(reader.meta, standing.seen, standing)
            if sums is None:
                return
            found = reader.windows(already=sums)
        windows = [window for window in found.windows if window.number > standing.last]
        most = max(1, self._rows // max(1, len(reader.meta.points)))
        for start in range(0, len(windows), most):
            self._send(reader.meta, windows[start : start + most], standing)
        if found.final and found.missing is not None:
            self._lose(found.missing[1] - found.missing[0] + 1)
        standing.final = found.final

    def _send_file(self, entry: SpoolEntry, standing: Standing) -> None:
        try:
            body = entry.read()
        except OSError as error:
            self._set_aside(
                entry.process, entry.last, entry.last - entry.first + 1, standing, str(error)
            )
            return
        try:
            self._note(self._push(body, standing), entry.last, standing)
        except BatchRefusedError as error:
            with suppress(StateFormatError):
                push = decode_push(body)
                if error.too_large and len(push.windows) > 1:
                    self._halve(push.meta, push.windows, standing)
                    return
            count = entry.last - max(entry.first - 1, standing.last)
            self._set_aside(entry.process, entry.last, count, standing, str(error))

    def _send_total(self, entry: SpoolEntry, standing: Standing) -> None:
        count = entry.last - standing.last
        try:
            push = decode_push(entry.read())
            [total] = push.windows
            sums = self._sums(push.meta, entry.last, standing)
            if sums is None or sums.number >= entry.last:
                return
            rest = total.minus(sums)
        except (OSError, ValueError) as error:
            self._set_aside(entry.process, entry.last, count, standing, str(error))
            return
        if rest.is_empty:
            standing.advance(entry.last)
            return
        start_ns = min(max(total.start_ns, sums.end_ns), total.end_ns)
        coarse = replace(rest, number=entry.last, start_ns=start_ns, flags=WindowFlag.COARSE)
        self._send(push.meta, [coarse], standing)

    def _send(self, meta: StateMeta, windows: Sequence[Window], standing: Standing) -> None:
        try:
            answer = self._push(encode_push(Push(meta, tuple(windows))), standing)
        except BatchRefusedError as error:
            if error.too_large and len(windows) > 1:
                self._halve(meta, windows, standing)
                return
            self._set_aside(meta.process, windows[-1].number, len(windows), standing, str(error))
        else:
            self._note(answer, windows[-1].number, standing)

    def _halve(self, meta: StateMeta, windows: Sequence[Window], standing: Standing) -> None:
        half = len(windows) // 2
        self._rows = max(1, half * len(meta.points))
        self._send(meta, windows[:half], standing)
        self._send(meta, windows[half:], standing)

    def _push(self, body: bytes, standing: Standing) -> Answer:
        try:
            return self._analyzer.push(body)
        except ShipError:
            standing.met = False  # it may have taken the windows all the same: ask before more
            raise

    def _note(self, answer: Answer, last: int, standing: Standing) -> None:
        if answer.last_number < last:
            standing.met = False
            raise ShipError(
                PushFailure.MISDIRECTED,
                f"it takes windows through {last} and says that it has {answer.last_number}",
            )
        self._figures.pushed += answer.stored
        standing.wanted = answer.wanted
        self._succeeded()
        standing.advance(last)

    def _tell(self, standing: Standing, push: Push) -> bool:
        """Send a push without windows; returns whether the profile is known."""
        try:
            answer = self._analyzer.push(encode_push(push))
        except BatchRefusedError as error:
            self._refused(push.meta.process, "its description or captures", str(error))
            if push.captures is not None:
                return self._tell(standing, Push(push.meta))
            standing.met = True  # every window of it will be refused too
            return True
        self._succeeded()
        standing.wanted = answer.wanted
        if not standing.met:
            # It may have less than it had: a database that was put back, or another one.
            standing.last = max(answer.last_number, standing.refused)
            standing.seen = max(standing.seen, standing.last)
            standing.final = False
            standing.met = True
        return answer.profile_known

    def _sums(self, meta: StateMeta, last: int, standing: Standing) -> Window | None:
        try:
            sums = self._analyzer.sums(meta)
        except BatchRefusedError as error:
            unsent = last - standing.last
            self._set_aside(meta.process, last, unsent, standing, str(error))
            return None
        self._succeeded()
        return sums

    def _set_aside(
        self, process: str, last: int, count: int, standing: Standing, reason: str
    ) -> None:
        standing.refused = max(standing.refused, last)
        standing.advance(last)
        self._lose(count)
        self._refused(process, f"{count} windows through number {last}", reason)

    def _refused(self, process: str, what: str, reason: str) -> None:
        self._figures.failures[PushFailure.REFUSED] += 1
        if process in self._told or len(self._told) >= _MOST_TOLD:
            return  # counted, but said once
        self._told.add(process)
        _log.error(
            "process %s: the analyzer will not take %s (%s); this is not sent again, further "
            "refusals are counted",
            process,
            what,
            reason,
        )

    def _lose(self, count: int) -> None:
        self._figures.lost += max(count, 0)

    def _succeeded(self) -> None:
        self._figures.succeeded_at = self._figures.clock()


def keep(reader: StateReader, standing: Standing, spool: Spool) -> None:
    """Bring into the spool what the ring, or a sweep, would lose before the analyzer is back.

    Of a living process one window may wait in the ring, which has room for four at the least.

    Raises:
        OSError: There is no room in the spool, or no permission.
        StateError: The state file cannot be read.
    """
    meta = reader.meta
    after = spool.last(meta.process, standing.last)
    alive = reader.alive
    closed = reader.cumulative()
    if alive and (closed is None or closed.number - after < 2):
        return
    found = reader.windows(after=after)
    if not found.windows and found.missing is None and (alive or after <= standing.last):
        return
    coarse = any(window.flags & WindowFlag.COARSE for window in found.windows)
    if found.final:
        total: Callable[[], Window | None] = reader.total
    else:
        total = reader.cumulative
    if coarse or found.missing is not None or found.final:
        summed, kept = total(), spool.total(meta.process)
        if summed is not None and (kept is None or summed.number > kept.last):
            spool.put_total(meta, summed)
    if coarse or found.missing is not None:
        return
    most = max(1, MOST_ROWS // max(1, len(meta.points)))
    for start in range(0, len(found.windows), most):
        spool.add(meta, found.windows[start : start + most])


def _profile(folder: Path | None, digest: str) -> str | None:
    """The document of a profile; None where it is not there, or is no document to send."""
    if folder is None or not digest or not set(digest) <= _HEX:
        return None
    path = folder / f"{digest}.json"
    try:
        if path.stat().st_size > _MOST_PROFILE:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


__all__ = ["MOST_ROWS", "Analyzer", "Delivery", "keep"]
