"""One look at all state directories: what is new goes to the analyzer, or into the spool."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

from calidrift_agent._sidecar._ship_captures import CaptureListings
from calidrift_agent._sidecar._ship_client import BatchRefusedError, ShipError
from calidrift_agent._sidecar._ship_delivery import Analyzer, Delivery, keep
from calidrift_agent._sidecar._ship_figures import PushFailure, ShipFigures
from calidrift_agent._sidecar._ship_ledger import Ledger, Standing
from calidrift_agent._sidecar._ship_requested import Requested, TakesCaptures
from calidrift_agent._sidecar._ship_spool import Spool
from calidrift_agent._state import StateMeta, StateReader, Window, decode_push, scan
from calidrift_agent.errors import StateError, StateFormatError

_PROFILES: Final = "profiles"
_MOST_TOLD: Final = 100
_MOST_FAILED: Final = 3
_log = logging.getLogger("calidrift_agent")


@final
class Round:
    """Looks at the directories again and again.

    Args:
        directories: State directories.
        analyzer: Where to push.
        spool: What waits on disk.
        ledger: Where each process stands.
        figures: Where windows and captures are counted.
        taker: Where captures go that the analyzer asks for; None where none may leave.

    Attributes:
        secured: Dead processes whose windows are all with the analyzer or in the spool.
    """

    def __init__(
        self,
        directories: tuple[Path, ...],
        analyzer: Analyzer,
        spool: Spool,
        ledger: Ledger,
        figures: ShipFigures,
        taker: TakesCaptures | None = None,
    ) -> None:
        self._directories = directories
        self._requested = None if taker is None else Requested(taker, figures)
        self._spool = spool
        self._ledger = ledger
        self._figures = figures
        self._delivery = Delivery(analyzer, spool, figures)
        self._captures = CaptureListings()
        self._paths: dict[str, Path] = {}
        self._told: set[str] = set()
        self._turn = 0
        self.secured: frozenset[str] = frozenset()

    def run(self, *, reachable: bool) -> ShipError | None:
        """Look once.

        Args:
            reachable: Whether the analyzer may be asked; else windows only go into the spool.

        Returns:
            The failure that ended the pushing; None where everything was pushed.
        """
        failed: list[ShipError] = []
        with contextlib.ExitStack() as opened:
            complete, readers = self._readers(opened)
            self._paths = {process: reader.path for process, reader in readers.items()}
            for process in self._in_turn(readers):
                reader = readers[process]
                if reachable:
                    error = self._attempt(process, reader)
                    if error is not None:
                        failed.append(error)
                        reachable = error.of_batch and len(failed) < _MOST_FAILED
                self._keep(reader)
            for process in sorted(self._spool.processes() - readers.keys()):
                error = self._attempt(process, None) if reachable else None
                if error is not None:
                    failed.append(error)
                    reachable = error.of_batch and len(failed) < _MOST_FAILED
            if complete:
                self._forget(readers.keys() | self._spool.processes())
            self._close()
            self.secured = frozenset(
                process for process, reader in readers.items() if self._is_secured(reader)
            )
        return failed[0] if failed else None

    def _readers(self, opened: contextlib.ExitStack) -> tuple[bool, dict[str, StateReader]]:
        """State files by process, and whether every directory could be listed."""
        found: dict[str, StateReader] = {}
        complete = True
        for folder in dict.fromkeys(one.resolve() for one in self._directories):
            damaged: dict[Path, StateError] = {}
            try:
                readers = scan(folder, damaged.__setitem__)
            except StateError as error:
                damaged[folder] = error
                readers = []
            for complaint in damaged.values():
                # Not where it was swept since it was listed.
                if not isinstance(complaint.__cause__, FileNotFoundError):
                    complete = False
                    self._complain(str(complaint))
            for reader in readers:
                opened.enter_context(reader)
                process = reader.meta.process
                if reader.path.name.startswith(f"{process}-"):  # else a copy
                    found.setdefault(process, reader)
        return complete, found

    def _in_turn(self, readers: dict[str, StateReader]) -> Iterator[str]:
        """All processes, each time another one first: none waits behind one that fails."""
        names = sorted(readers)
        self._turn = (self._turn + 1) % max(1, len(names))
        yield from names[self._turn :]
        yield from names[: self._turn]

    def _attempt(self, process: str, reader: StateReader | None) -> ShipError | None:
        standing = self._ledger.of(process)
        try:
            if reader is not None:
                self._deliver(reader, standing)
            else:
                self._deliver_spooled(process, standing)
        except ShipError as error:
            self._figures.failures[error.kind] += 1
            return error
        except (StateError, BatchRefusedError, ValueError) as error:
            self._complain(str(error))
        return None

    def _deliver(self, reader: StateReader, standing: Standing) -> None:
        meta = reader.meta
        waiting = meta.process in self._spool.processes()
        if standing.final and not waiting and standing.listing is None:
            standing.listing = ()  # after a restart: it was told before
        self._look(reader, standing)
        captures = self._captures.of(reader.path.parent, meta.process)
        told = standing.listing if standing.listing is not None else ()
        news = waiting or standing.seen > standing.last or not (standing.final or reader.alive)
        if captures != told or (news and not standing.met):
            self._delivery.greet(meta, standing, captures, reader.path.parent / _PROFILES)
        if news and standing.met:
            self._delivery.spooled(meta.process, standing, has_file=True)
            self._delivery.read(reader, standing)
        if self._requested is not None and standing.wanted:
            self._requested.send(reader.path.parent, meta.process, standing)

    def _deliver_spooled(self, process: str, standing: Standing) -> None:
        if not standing.met:
            meta = self._described(process)
            if meta is None:
                return
            profiles = (one / _PROFILES for one in self._directories)
            folder = next(
                (one for one in profiles if (one / f"{meta.profile}.json").exists()), None
            )
            self._delivery.greet(meta, standing, None, folder)
        self._delivery.spooled(process, standing, has_file=False)

    def _described(self, process: str) -> StateMeta | None:
        """What a file of the spool says about its process; damaged files go."""
        total = self._spool.total(process)
        for entry in [*self._spool.batches(process), *([] if total is None else [total])]:
            try:
                return decode_push(entry.read()).meta
            except (OSError, StateFormatError) as error:
                self._complain(f"{entry.path}: {error}")
                self._spool.remove(entry)
                self._figures.lost += entry.last - max(
                    entry.first - 1, self._ledger.of(process).last
                )
        return None

    def _look(self, reader: StateReader, standing: Standing) -> None:
        """Note the last window that exists."""
        closed = reader.cumulative()
        if closed is not None:
            standing.seen = max(standing.seen, closed.number)

    def _keep(self, reader: StateReader) -> None:
        standing = self._ledger.of(reader.meta.process)
        try:
            self._look(reader, standing)
            if not standing.final:
                keep(reader, standing, self._spool)
        except StateError as error:  # an OSError too
            self._complain(str(error))
        except OSError as error:
            self._no_room(error)

    def _is_secured(self, reader: StateReader) -> bool:
        if reader.alive:
            return False
        process = reader.meta.process
        standing = self._ledger.of(process)
        if standing.final:
            return True
        kept = self._spool.total(process)
        try:
            return kept is not None and kept.last >= reader.total().number
        except StateError:
            return True  # unreadable: waiting helps nobody

    def _forget(self, here: set[str]) -> None:
        for process in self._ledger.processes():
            if process not in here:
                standing = self._ledger.of(process)
                self._figures.lost += max(0, standing.seen - standing.last)
                self._ledger.forget(process)
                self._captures.forget(process)

    def _close(self) -> None:
        try:
            self._figures.lost += self._spool.bound(
                self._total_of, lambda process: self._ledger.of(process).last
            )
            self._ledger.save()
        except OSError as error:
            self._no_room(error)
        self._figures.spool_bytes = self._spool.size_bytes

    def _total_of(self, process: str) -> tuple[StateMeta, Window] | None:
        path = self._paths.get(process)
        if path is None:
            return None
        try:
            with StateReader.open(path) as reader:
                total = reader.cumulative() if reader.alive else reader.total()
                return None if total is None else (reader.meta, total)
        except StateError:
            return None

    def _no_room(self, error: OSError) -> None:
        self._figures.failures[PushFailure.SPOOL] += 1
        self._complain(
            f"what is to be pushed cannot be written down ({error.strerror or error}); it waits "
            "in the state files. Free space, or give --push-spool a folder with room"
        )

    def _complain(self, sentence: str) -> None:
        if sentence not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(sentence)
            _log.warning("%s", sentence)


__all__ = ["Round"]
