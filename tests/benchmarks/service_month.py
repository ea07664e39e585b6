"""A database with a month of hourly rollups of 200 points, and the profile that they belong to."""

import time
from datetime import timedelta
from pathlib import Path

import numpy as np

from calidrift_agent._profile import (
    CalibrationProfile,
    ClipBound,
    Fingerprint,
    ObservedBound,
    PointProfile,
)
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._state import PointMeta, StateMeta, Window
from calidrift_agent._vocabulary import (
    CountColumn,
    Instrument,
    RequestColumn,
    Strategy,
    ValueColumn,
    WindowFlag,
)
from calidrift_analyzer.store import Landmarks, Retention, Store

POINTS = 200
UNITS, ELEMENTS = 60, 64
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DRIFTED = 40
"""Points that leave their ranges in the last tenth of the time."""


def write_month(folder: Path, hours: int) -> Path:
    """Writes `calidrift.duckdb` with so many hourly rollups per point; they end now."""
    folder.mkdir()
    path = folder / "calidrift.duckdb"
    rng = np.random.default_rng(0)
    tensors = [rng.normal(size=(UNITS, ELEMENTS)) * rng.uniform(0.5, 2.0) for _ in range(POINTS)]
    profile = make_profile(tensors)
    begin = (time.time_ns() // HOUR - hours) * HOUR
    with Store.open(path) as store:
        store.put_profile(profile)
        store.ingest(make_meta(profile, begin), [make_window(profile, tensors, begin)], batch=1)
        keep = Retention(windows=timedelta(0), minutes=timedelta(0), hours=timedelta(days=99_999),
                         days=timedelta(days=99_999))  # fmt: skip
        store.retain(keep, lambda *_: Landmarks(), now_ns=time.time_ns() + 400 * 24 * HOUR)
        multiply(store, hours)
    return path


def multiply(store: Store, hours: int) -> None:
    """Repeats the one hourly rollup hour by hour, and lets some points drift at the end."""
    rows = store._connection.rows
    rows(
        "INSERT INTO rollups SELECT r.* REPLACE (number + k AS number, first + k AS first, "
        "started + to_hours(k) AS started, ended + to_hours(k) AS ended) "
        f"FROM rollups AS r, range(1, {hours}) AS t(k)"
    )
    rows(
        "INSERT INTO rollup_points SELECT r.* REPLACE (number + k AS number) "
        f"FROM rollup_points AS r, range(1, {hours}) AS t(k)"
    )
    rows("SELECT setseed(0.5)")
    rows(
        "UPDATE rollup_points SET exceedances = CAST(floor(units * random()) AS BIGINT) WHERE "
        f"position < {DRIFTED} AND number >= (SELECT MAX(number) FROM rollups) - {hours // 10}"
    )
    rows("CHECKPOINT")


def make_profile(tensors: list[np.ndarray]) -> CalibrationProfile:
    """A profile calibrated on one array of units and elements per point, ranges by absmax."""
    points = {}
    for number, tensor in enumerate(tensors):
        name = f"layer{1 + number // 50}.{number // 10 % 5}.block{number % 10}.conv2:input"
        sketch = MagnitudeSketch()
        sketch.update(tensor.astype(np.float32).ravel())
        top = float(np.abs(tensor).max())
        points[name] = PointProfile(
            name=name,
            clip_bound=ClipBound.of_quantizer(2 * top / 255, 128, 0, 255, "uint8"),
            observed_bound=ObservedBound.from_absmax(np.abs(tensor).max(axis=1), rank=1),
            sketch=sketch,
        )
    return CalibrationProfile(
        points=points,
        units=UNITS,
        instrument=Instrument.RANGE,
        fingerprint=Fingerprint(),
        created="2030-01-01T00:00:00+00:00",
    )


def make_meta(profile: CalibrationProfile, started: int) -> StateMeta:
    """The process that reported them."""
    points = tuple(PointMeta(name, 1.0, -1.0, 1.0, ()) for name in profile.points)
    return StateMeta("1" * 32, "", 1, started, "net", profile.digest, Instrument.RANGE,
                     Strategy.INSTEAD, "0.1.0", 10.0, points)  # fmt: skip


def make_window(profile: CalibrationProfile, tensors: list[np.ndarray], started: int) -> Window:
    """One window in which every unit stays inside."""
    window = Window.empty(len(tensors), number=0, at_ns=started)
    for row, (point, tensor) in enumerate(zip(profile.points.values(), tensors, strict=True)):
        assert point.sketch is not None
        window.cells[row] = point.sketch.cells
        window.counts[row, [CountColumn.UNITS, CountColumn.ROWS, CountColumn.UNITS_MEASURED]] = (
            UNITS
        )
        window.counts[row, CountColumn.ELEMENTS] = tensor.size
        window.values[row, ValueColumn.UNIT_HIGHEST] = np.abs(tensor).max()
        window.values[row, ValueColumn.LOWEST] = tensor.min()
        window.values[row, ValueColumn.HIGHEST] = tensor.max()
        window.values[row, ValueColumn.ENERGY] = (tensor**2).sum()
    window.requests[
        [
            RequestColumn.SEEN,
            RequestColumn.SAMPLED,
            RequestColumn.OBSERVED,
            RequestColumn.UNITS,
            RequestColumn.UNITS_COVERED,
        ]
    ] = UNITS
    return Window(
        number=0,
        start_ns=started,
        end_ns=started + 10 * SECOND,
        flags=WindowFlag.NONE,
        sampling_ratio=1.0,
        requests=window.requests,
        segments=(),
        counts=window.counts,
        values=window.values,
        cells=window.cells,
    )
