"""What people look at: pages of what was decided, and points over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calidrift_agent._sketch import CELLS
from calidrift_agent._state import StateMeta
from calidrift_agent._vocabulary import CaptureKind, Instrument
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["Heard", "Kept", "RemoteCapture", "SeriesColumns", "SeriesSpan", "Views"]

_KINDS: Final = frozenset({"assessments", "selections", "validations", "versions"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One decision as it was kept.

    Attributes:
        id: Its number; larger is later.
        model: Name of the model.
        name: Profile of an assessment, job of a selection, candidate of a validation, id of a
            version.
        created_ns: When, UTC nanoseconds.
        word: Verdict, `selected`, `accepted` or `refused`, `promoted` or `rolled_back`.
        document: The JSON document.
    """

    id: int
    model: str
    name: str
    created_ns: int
    word: str
    document: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is known of a process whose windows are here.

    Attributes:
        started_ns: When it began, by its clock, UTC nanoseconds.
        window_seconds: How long its windows are.
        number: Number of the first record of it.
        arrived_ns: When that came, by this clock, UTC nanoseconds.
    """

    started_ns: int
    window_seconds: float
    number: int
    arrived_ns: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCapture:
    """One captured request as a listing tells about it.

    Attributes:
        name: Path of the file, or `<process>/<file>` where it lies beside another process.
        process: The process that wrote it.
        model: Name of the model.
        profile: Digest of the profile that was in force; empty without one.
        kind: Which capture store it belongs to.
        captured_ns: When the request ran, UTC nanoseconds.
        segment: Segment of the request; `None` without one.
        size: Bytes of the file.
        here: Whether this machine can read it.
    """

    name: str
    process: str
    model: str
    profile: str
    kind: CaptureKind
    captured_ns: int
    segment: str | None
    size: int
    here: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSpan:
    """Which part of a model's life, in which slices; `until_ns` belongs to it, `since_ns` not."""

    model: str
    profile: str
    instrument: Instrument
    since_ns: int
    until_ns: int
    step_ns: int
    point: str | None = None

    def parameters(self) -> dict[str, Any]:
        """Give what the queries take."""
        return {
            "model": self.model,
            "profile": self.profile,
            "instrument": self.instrument.value,
            "since": self.since_ns,
            "until": self.until_ns,
            "step": self.step_ns,
            "point": self.point,
        }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesColumns:
    """Points in slices of time, as columns; slices in which nothing was recorded have no row.

    Attributes:
        names: Names of points.
        point: Place among the names, (R,) int64; rows ascend by name and then by time.
        start_ns: Start of the slice, UTC nanoseconds, (R,) int64.
        units: Units of inference in it, (R,) int64.
        exceedances: Those of them above the observed bound, (R,) int64.
        clipped_energy: Squared distance to the clip range, summed, (R,) float64.
        energy: Squares, summed, (R,) float64.
        lowest: Smallest value, (R,) float64.
        highest: Largest value, (R,) float64.
    """

    names: tuple[str, ...]
    point: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    units: NDArray[np.int64]
    exceedances: NDArray[np.int64]
    clipped_energy: NDArray[np.float64]
    energy: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]


@final
class Views:
    """Reads for people; reached as `Store.views`. Nothing here changes anything but listings."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def heard(self, meta: StateMeta) -> Heard | None:
        """Tell how a process began; `None` where no window of it is here."""
        key = {"process": meta.process, "model": meta.model, "profile": meta.profile}
        rows = self._connection.rows(query("process_heard"), key)
        if not rows:
            return None
        started, seconds, number, arrived = rows[0]
        return Heard(
            started_ns=int(started),
            window_seconds=float(seconds),
            number=int(number),
            arrived_ns=int(arrived),
        )

    def last_arrival_ns(self) -> int:
        """When the last windows came, by this clock, UTC nanoseconds; 0 where none have."""
        return int(self._connection.rows(query("last_arrival"))[0][0] or 0)

    def latest(self, model: str) -> Kept | None:
        """Give the newest assessment of a model; `None` where there is none."""
        rows = self._connection.rows(query("kept_latest"), {"model": model})
        return _kept(rows[0]) if rows else None

    def kept(
        self,
        kind: str,
        model: str,
        *,
        id: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[Kept, ...]:
        """List decisions about a model, the newest first.

        Args:
            kind: `assessments`, `selections`, `validations` or `versions`.
            model: Name of the model.
            id: Only the one of this number.
            before: Only those with a smaller number: where the page before ended.
            limit: At most so many.
        """
        assert kind in _KINDS, kind
        rows = self._connection.rows(
            query(f"kept_{kind}"), {"model": model, "id": id, "before": before, "limit": limit}
        )
        return tuple(_kept(row) for row in rows)

    def captures(
        self, model: str, *, before: tuple[int, str] | None = None, limit: int = 50
    ) -> tuple[RemoteCapture, ...]:
        """List captured requests of a model, the newest first.

        Args:
            model: Name of the model.
            before: Moment and name of the last one of the page before.
            limit: At most so many.
        """
        rows = self._connection.rows(
            query("capture_page"),
            {
                "model": model,
                "before_ns": None if before is None else before[0],
                "before_name": None if before is None else before[1],
                "limit": limit,
            },
        )
        return tuple(_capture(row) for row in rows)

    def remote_captures(self, process: str) -> tuple[RemoteCapture, ...]:
        """List what lies captured beside another process, as it was listed last; oldest first."""
        rows = self._connection.rows(query("remote_captures"), {"process": process})
        return tuple(_capture(row) for row in rows)

    def put_remote_captures(
        self, process: str, model: str, captures: Sequence[RemoteCapture]
    ) -> None:
        """Replace the listing of what lies beside another process, all or none."""
        table = pa.table(
            {
                "process": pa.array([process] * len(captures), pa.string()),
                "name": pa.array([one.name for one in captures], pa.string()),
                "model": pa.array([model] * len(captures), pa.string()),
                "profile": pa.array([one.profile for one in captures], pa.string()),
                "kind": pa.array([one.kind.value for one in captures], pa.string()),
                "captured": pa.array([one.captured_ns for one in captures], pa.timestamp("ns")),
                "segment": pa.array([one.segment for one in captures], pa.string()),
                "size": pa.array([one.size for one in captures], pa.int64()),
            }
        )
        with self._connection.transaction():
            self._connection.rows(
                query("remote_captures_drop"), {"process": process, "model": model}
            )
            self._connection.insert("remote_captures", table)

    def series(self, span: SeriesSpan) -> SeriesColumns:
        """Give points by slices of time, by point and then by time."""
        table = self._connection.table(query("series"), span.parameters())
        coded = table["point"].combine_chunks().dictionary_encode()
        columns = {name: table[name].to_numpy() for name in table.column_names[2:]}
        return SeriesColumns(
            names=tuple(coded.dictionary.to_pylist()),
            point=coded.indices.to_numpy(zero_copy_only=False).astype(np.int64),
            start_ns=table["slice"].to_numpy() * span.step_ns,
            **columns,
        )

    def series_cells(self, span: SeriesSpan) -> dict[tuple[str, int], NDArray[np.int64]]:
        """Give the merged cells of each point and slice that has any, by name and start."""
        table = self._connection.table(query("series_cells"), span.parameters())
        if not table.num_rows:
            return {}
        coded = table["point"].combine_chunks().dictionary_encode()
        names, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False)
        slices, cells = table["slice"].to_numpy(), table["cell"].to_numpy()
        counts = table["count"].to_numpy()
        changed = (np.diff(codes) != 0) | (np.diff(slices) != 0)
        ends = [*(np.flatnonzero(changed) + 1).tolist(), len(cells)]
        found: dict[tuple[str, int], NDArray[np.int64]] = {}
        start = 0
        for end in ends:
            one = found[(names[codes[start]], int(slices[start]) * span.step_ns)] = np.zeros(
                CELLS, np.int64
            )
            one[cells[start:end]] = counts[start:end]
            start = end
        return found

    def profile_text(self, digest: str) -> str | None:
        """Give a profile as it was stored; `None` where it was never collected."""
        rows = self._connection.rows(query("profile_find"), {"digest": digest})
        return str(rows[0][0]) if rows else None

    def windows(self) -> dict[str, tuple[int, int]]:
        """Give by model how many records there are and when the last one ended."""
        rows = self._connection.rows(query("store_rows"))
        return {str(model): (int(windows), int(last)) for model, windows, last in rows}


def _capture(row: tuple[Any, ...]) -> RemoteCapture:
    names = ("name", "process", "model", "profile", "kind", "captured_ns", "segment", "size")
    fields = dict(zip((*names, "here"), row, strict=True))
    return RemoteCapture(**{**fields, "kind": CaptureKind(row[4])})


def _kept(row: tuple[Any, ...]) -> Kept:
    return Kept(
        id=row[0], model=row[1], name=row[2], created_ns=row[3], word=row[4], document=row[5]
    )
