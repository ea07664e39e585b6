"""The store: one DuckDB file that holds every window exactly once."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import StateMeta, Window
from calidrift_agent._vocabulary import CaptureKind, Instrument
from calidrift_agent.errors import StateFormatError
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import CaptureEntry, ModelHistory, ModelTotals, ObservedModel
from calidrift_analyzer.store._annotations import Annotations
from calidrift_analyzer.store._canary import Canaries
from calidrift_analyzer.store._compaction import compact, is_worth_it
from calidrift_analyzer.store._connection import Connection, StoreLostError
from calidrift_analyzer.store._deployments import Deployments
from calidrift_analyzer.store._jobs import JobBook
from calidrift_analyzer.store._outcomes import Outcomes
from calidrift_analyzer.store._patience import while_busy
from calidrift_analyzer.store._reading import read_history, read_sums, read_totals
from calidrift_analyzer.store._references import References
from calidrift_analyzer.store._retention import (
    FindLandmarks,
    Retention,
    RetentionReport,
    fold,
)
from calidrift_analyzer.store._rows import capture_rows
from calidrift_analyzer.store._sql import query
from calidrift_analyzer.store._upkeep import Upkeep
from calidrift_analyzer.store._views import Views
from calidrift_analyzer.store._writing import Writer

__all__ = ["Store"]

_LEAST_MEMORY: Final = "16MB"


@final
class Store:
    """The analyzer's database. One process holds it, one thread uses it.

    Every window is there exactly once, whatever is repeated or interrupted: the key is (process,
    model, profile, window number), and the windows of one `ingest` arrive in one transaction.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._writer = Writer(connection)
        self.upkeep = Upkeep(connection, self._writer)
        self.outcomes = Outcomes(connection)
        self.references = References(connection)
        self.annotations = Annotations(connection)
        self.jobs = JobBook(connection)
        self.deployments = Deployments(connection)
        self.canaries = Canaries(connection)
        self.views = Views(connection)
        self._memory_limit = ""

    @classmethod
    def open(cls, path: Path, *, patience: float = 0.0) -> Self:
        """Open a database, or make a new one, and bring it to the schema of this version.

        Args:
            path: The file; its folder is made where missing.
            patience: For how many seconds to wait for another process that holds it.

        Raises:
            StoreBusyError: Another process holds it; the message names its pid.
            StoreVersionError: A newer version wrote it; it is left as it was.
            StoreError: The file is not a database, or cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the folder of the database {path} cannot be made ({error.strerror}); give a "
                "path in a folder that can be written"
            ) from error
        return cls(while_busy(lambda: Connection(path), patience))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The database file."""
        return self._connection.path

    def close(self) -> None:
        """Close the database and let other processes have it. A second call does nothing."""
        self._connection.close()

    def release_memory(self) -> None:
        """Give back the memory that holds blocks of the file; later reads fetch them again.

        DuckDB keeps what it has read, up to four fifths of the machine's memory. Lowering its limit
        for a moment lets go of all that no query uses. The former limit is set by its value: RESET
        only says so in DuckDB 1.5, where the low limit would stay in force. It is asked for once,
        because DuckDB rounds down what it tells, and the limit would shrink each time.
        """
        if not self._memory_limit:
            known = self._connection.rows("SELECT current_setting('memory_limit')")
            self._memory_limit = str(known[0][0])
        try:
            self._connection.rows(f"SET memory_limit = '{_LEAST_MEMORY}'")
        finally:
            self._connection.rows(f"SET memory_limit = '{self._memory_limit}'")

    def next_batch(self) -> int:
        """Give the number of a new collect run; sequential tests look at runs in this order."""
        return int(self._connection.rows(query("next_batch"))[0][0])

    def last_number(self, meta: StateMeta) -> int:
        """Give the number of the last stored window of a process; `NO_WINDOW` without one."""
        return self._writer.last_number(meta)

    def sums(self, meta: StateMeta) -> Window:
        """Sum what is stored of a process, to be taken away from its cumulative state.

        Counts, segments and cells are exact. The number is that of the last stored window.
        """
        if not self._writer.is_known(meta):
            return Window.empty(len(meta.points))
        return read_sums(self._connection, meta)

    def ingest(self, meta: StateMeta, windows: Iterable[Window], *, batch: int) -> int:
        """Store the windows of one process, all or none, each exactly once.

        Windows of a process come in the order of their numbers. One whose number is not above the
        last stored one is there already (itself, or inside a coarse window) and is left out.

        Args:
            meta: The process and its points.
            windows: Its windows, in any order.
            batch: What `next_batch` gave at the start of this collect run.

        Returns:
            How many windows were new.

        Raises:
            StateFormatError: A window has another number of points than `meta`.
            StoreError: The database failed; nothing or everything was stored, so repeat the call.

        Cost: about 30 us per window and point with 64 occupied cells; 0.1 s for 100 windows of
        40 points.
        """
        ordered = sorted(windows, key=lambda window: window.number)
        for window in ordered:
            if window.points != len(meta.points):
                raise StateFormatError(
                    f"window {window.number} of process {meta.process} has {window.points} "
                    f"points, but the process lists {len(meta.points)}; its file is damaged"
                )
        before = self.last_number(meta)
        try:
            self._writer.write(meta, ordered, batch)
        except StoreLostError:
            self._writer.write(meta, ordered, batch)  # without what the lost commit had stored
        return sum(window.number > before for window in ordered)

    def totals(
        self,
        model: str,
        profile: str,
        *,
        instrument: Instrument | None = None,
        since_ns: int = -1,
    ) -> ModelTotals:
        """Sum everything recorded about a model under a profile.

        Merged sketches are the same integers as a merge in numpy gives, bit for bit.

        Args:
            model: Name of the model.
            profile: Digest of the profile; empty for processes that had none.
            instrument: Which instrument; may be left out where only one was used.
            since_ns: Only windows that ended after this moment, UTC nanoseconds.

        Raises:
            StoreError: Two instruments were used and none was named.
        """
        return read_totals(self._connection, model, profile, instrument, since_ns)

    def history(
        self, model: str, profile: str, *, instrument: Instrument | None = None
    ) -> ModelHistory:
        """List the windows of a model in the order of looks; arguments as for `totals`."""
        return read_history(self._connection, model, profile, instrument)

    def observed(self, model: str | None = None) -> tuple[ObservedModel, ...]:
        """List what was recorded at all, the most recent first.

        A clock that is ahead makes nothing more recent than its arrival.

        Args:
            model: Only this model; all of them where left out.
        """
        rows = self._connection.rows(query("observed_models"))
        return tuple(
            ObservedModel(
                str(name), str(profile), Instrument(kind), int(processes), int(last), int(arrived)
            )
            for name, profile, kind, processes, last, arrived in rows
            if model is None or name == model
        )

    def retain(
        self,
        retention: Retention,
        find: FindLandmarks,
        *,
        now_ns: int | None = None,
    ) -> RetentionReport:
        """Fold what is old into coarser records, and give the disk what that frees.

        Counts, sketches and extremes stay what they were in `totals`, in `sums` and for exactly
        once, and so does all evidence that was spent; see `_retention` for what becomes coarser:
        renewable alarms may be fewer and at other moments, seasons may lose hours and days.
        Alarms, versions, validations and profiles are never touched; assessments that repeat the
        verdict before them go after `retention.minutes`.

        May be repeated, and may be killed at any moment.

        Args:
            retention: How long records stay fine, and how large the file may become.
            find: Names what must stay apart; `assess.landmarks`.
            now_ns: The time, UTC nanoseconds; the clock where left out.

        Returns:
            What was done. Where even the coarsest form is above the limit, `fits` is False.

        Raises:
            StoreError: The database failed; what was folded stays folded, so repeat the call.

        Cost: about 10 s per million (window, point) pairs of 60 occupied cells, and free disk of
        the size of the new file.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        before = self.path.stat().st_size
        records = rollups = 0
        compacted = False
        while True:
            try:
                done = fold(self._connection, retention, find, now_ns)
            except StoreLostError:
                done = fold(self._connection, retention, find, now_ns)
            records, rollups = records + done.records, rollups + done.rollups
            if is_worth_it(self._connection, retention.max_bytes):
                compact(self._connection)
                compacted = True
            size = self.path.stat().st_size
            fits = retention.max_bytes is None or size <= retention.max_bytes
            shorter = retention.shortened(0.25)
            if fits or shorter == retention:
                return RetentionReport(records, rollups, before, size, compacted, fits)
            retention = shorter

    def put_profile(self, profile: CalibrationProfile) -> None:
        """Keep a profile under its digest; keeping it again changes nothing."""
        self._connection.rows(
            query("profile_add"),
            {
                "digest": profile.digest,
                "added": time.time_ns(),
                "document": profile.to_json(),
            },
        )

    def profile(self, digest: str) -> CalibrationProfile | None:
        """Give the profile with this digest; `None` where it was never collected."""
        rows = self._connection.rows(query("profile_find"), {"digest": digest})
        return CalibrationProfile.from_json(rows[0][0]) if rows else None

    def profile_digests(self) -> tuple[str, ...]:
        """List the digests of the profiles that are here, the oldest first."""
        return tuple(str(row[0]) for row in self._connection.rows(query("profile_digests")))

    def put_captures(self, folder: Path, rows: Sequence[CaptureEntry]) -> None:
        """Replace the listing of one capture folder, all or none.

        A file of a process is listed once: one of that name that lay elsewhere is forgotten.

        Args:
            folder: Where the files lie; rows of files that are gone from it are forgotten.
            rows: What lies there now.
        """
        files = [f"{row.process}/{Path(row.path).name}" for row in rows]
        with self._connection.transaction():
            self._connection.rows(query("captures_drop"), {"folder": f"{folder}/", "files": files})
            self._connection.insert("captures", capture_rows(rows))

    def captures(self, model: str | None = None) -> tuple[CaptureEntry, ...]:
        """List the captured requests, the oldest first.

        Args:
            model: Only this model; all of them where left out.
        """
        rows = self._connection.rows(query("captures"), {"model": model})
        return tuple(
            CaptureEntry(
                path=row[0],
                process=row[1],
                model=row[2],
                profile=row[3],
                kind=CaptureKind(row[4]),
                captured_ns=row[5],
                segment=row[6],
                size=row[7],
            )
            for row in rows
        )
