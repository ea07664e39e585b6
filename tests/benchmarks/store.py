"""The store beside a raw DuckDB insert and a numpy merge of the same rows, in the same run.

Ingest of point-windows with their sketches in commits of 200 and of 20,000 rows, merging 10 million
buckets, folding, the totals that `status` asks for over 200 points x 30 days of hourly rollups,
sums over a growing table of windows, and the peak of memory.
"""

import resource
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
from paired import clock

from calidrift_agent._sketch import CELLS
from calidrift_agent._state import PointMeta, StateMeta, Window
from calidrift_agent._vocabulary import (
    COUNT_COLUMNS,
    REQUEST_COLUMNS,
    VALUE_COLUMNS,
    Instrument,
    Strategy,
)
from calidrift_analyzer.store import Landmarks, Retention, Store
from calidrift_analyzer.store._rows import WindowRows

POINTS, USED = 200, 60
SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
SLICE = 2_000
"""Windows by which a table grows in one statement: 400,000 rows, 0.5 GB of cells on their way."""


def main(quick: bool = False) -> dict[str, object]:
    """Measures and prints; gives the figures."""
    hours = 24 if quick else 720
    figures: dict[str, object] = {}
    for rows in (200, 20_000):
        figures[f"ingest {rows}"] = ingest(rows, commits=3 if quick else (40 if rows == 200 else 8))
    figures["merge"] = merge(hours)
    figures["fold"] = folding(60 if quick else 1_000)
    sizes = (20_000, 100_000) if quick else (100_000, 1_000_000, 10_000_000)
    figures["growth"] = growth(sizes)
    figures["peak_mb"] = peak_mb()
    print(f"peak memory {figures['peak_mb']:.0f} MB")
    return figures


def peak_mb() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spread(samples: list[float]) -> dict[str, float]:
    """Median with the 95 % interval of the median, from order statistics of a bootstrap."""
    values = np.array(samples)
    drawn = np.random.default_rng(0).choice(values, (2_000, values.size))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return {"value": float(np.median(values)), "low": float(low), "high": float(high)}


def ingest(rows: int, commits: int) -> dict[str, float]:
    """Commits of so many point-windows, each beside a raw insert of the same Arrow tables."""
    with tempfile.TemporaryDirectory() as folder:
        meta, windows = process(), make_windows(commits * rows // POINTS)
        raw = duckdb.connect(str(Path(folder) / "raw.duckdb"))
        ours, theirs = [], []
        with Store.open(Path(folder) / "store.duckdb") as store:
            store.ingest(meta, [], batch=1)
            schema = store._connection.rows("SELECT sql FROM duckdb_tables() WHERE NOT internal")
            for (sql,) in schema:
                if "nextval" not in sql:
                    raw.execute(sql)
            size = rows // POINTS
            for first in range(0, len(windows), size):
                part = windows[first : first + size]
                ours.append(clock(lambda part=part: store.ingest(meta, part, batch=1)))
                gathered = WindowRows(1, 1)
                for window in part:
                    gathered.add(window)
                tables = gathered.tables()
                theirs.append(clock(lambda tables=tables: insert(raw, tables)))
        raw.close()
    rate, bare = rows / np.median(ours), rows / np.median(theirs)
    ratio = spread([mine / raw for mine, raw in zip(ours, theirs, strict=True)])
    print(
        f"ingest in commits of {rows:,}: {rate:,.0f} point-windows/s, raw insert {bare:,.0f}/s, "
        f"ratio of times {ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    )
    each = spread([1e6 * spent / rows for spent in ours])
    return {"per_s": float(rate), "raw_per_s": float(bare), "us_per_row": each, "ratio": ratio}


def insert(raw: duckdb.DuckDBPyConnection, tables: dict[str, object]) -> None:
    """Arrow tables as they are, in one transaction."""
    raw.execute("BEGIN")
    for name, table in tables.items():
        raw.register("incoming", table)
        names = ", ".join(table.column_names)
        raw.execute(f"INSERT INTO {name} ({names}) SELECT * FROM incoming")
        raw.unregister("incoming")
    raw.execute("COMMIT")


def merge(hours: int) -> dict[str, object]:
    """Totals over hourly rollups of all points, beside a numpy merge of the same buckets."""
    with tempfile.TemporaryDirectory() as folder, open_with_hours(Path(folder), hours) as store:
        spent = [clock(lambda: store.totals("net", "")) for _ in range(9)]
        sql = (
            "SELECT position, item.cell, SUM(item.count) FROM (SELECT position, "
            "UNNEST(cells) AS item FROM {}) GROUP BY position, item.cell"
        )
        # As many rows as hold ten million buckets, or all of them in a short run.
        wanted = f"(FROM rollup_points LIMIT {10_000_000 // USED})"
        merged = [clock(lambda: store._connection.rows(sql.format(wanted))) for _ in range(7)]
    buckets = min(hours * POINTS * USED, 10_000_000)
    rng = np.random.default_rng(0)
    where = rng.integers(0, POINTS * CELLS, buckets)
    counts = rng.integers(1, 2**40, buckets)
    into = np.zeros(POINTS * CELLS, np.int64)
    plain = [clock(lambda: np.add.at(into, where, counts)) for _ in range(7)]
    found = {
        name: spread([1e3 * one for one in samples])
        for name, samples in (("totals_ms", spent), ("merge_ms", merged), ("numpy_ms", plain))
    }
    print(
        f"{POINTS} points x {hours} hourly rollups: totals {found['totals_ms']['value']:.0f} ms; "
        f"merging {buckets / 1e6:.1f} million buckets in SQL {found['merge_ms']['value']:.0f} ms, "
        f"in numpy {found['numpy_ms']['value']:.0f} ms"
    )
    return {**found, "buckets": float(buckets)}


def open_with_hours(folder: Path, hours: int) -> Store:
    """A store with one hourly rollup per point and hour, made by multiplying one of them."""
    store = Store.open(folder / "hours.duckdb")
    store.ingest(process(), make_windows(1), batch=1)
    keep = Retention(windows=timedelta(0), minutes=timedelta(0), hours=timedelta(days=99_999),
                     days=timedelta(days=99_999))  # fmt: skip
    store.retain(keep, lambda *_: Landmarks(), now_ns=START * 2)
    for name in ("rollups", "rollup_points"):
        store._connection.rows(
            f"INSERT INTO {name} SELECT r.* REPLACE (number + k AS number) FROM {name} AS r, "
            f"range(1, {hours}) AS t(k)"
        )
    store._connection.rows("CHECKPOINT")
    return store


def folding(windows: int) -> dict[str, float]:
    """Windows of all points into minutes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "fold.duckdb") as store,
    ):
        store.ingest(process(), make_windows(windows), batch=1)
        store._connection.rows("CHECKPOINT")
        keep = Retention(windows=timedelta(0), minutes=timedelta(days=99_999),
                         hours=timedelta(days=99_999), days=timedelta(days=99_999))  # fmt: skip
        spent = clock(lambda: store.retain(keep, lambda *_: Landmarks(), now_ns=START * 2))
    rate = windows * POINTS / spent
    print(f"folding {windows} windows of {POINTS} points: {spent:.2f} s, {rate:,.0f} rows/s")
    return {"seconds": spent, "per_s": rate}


def growth(sizes: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """What a commit, all totals and those of the last hour take as the table of windows grows."""
    print("   point-windows   file MB   commit ms   last hour ms   all totals ms   peak MB")
    found = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "grown.duckdb") as store,
    ):
        meta, pattern = process(), make_windows(1)
        store.ingest(meta, pattern, batch=1)
        for size in sizes:
            last = grow(store, size // POINTS)
            fresh = [numbered(pattern[0], last + n) for n in range(1, 6)]
            commits = [clock(lambda one=one: store.ingest(meta, [one], batch=2)) for one in fresh]
            since = START + (last - 360) * 10 * SECOND
            recent = [
                clock(lambda since=since: store.totals("net", "", since_ns=since)) for _ in range(3)
            ]
            totals = [clock(lambda: store.totals("net", "")) for _ in range(3)]
            row = {
                "file_mb": store.path.stat().st_size / 1e6,
                "commit_ms": 1e3 * float(np.median(commits)),
                "recent_ms": 1e3 * float(np.median(recent)),
                "totals_ms": 1e3 * float(np.median(totals)),
                "peak_mb": peak_mb(),
            }
            found[str(size)] = row
            print(
                f"{size:16,d} {row['file_mb']:9.0f} {row['commit_ms']:11.1f} "
                f"{row['recent_ms']:14.1f} {row['totals_ms']:15.1f} {row['peak_mb']:9.0f}"
            )
    return found


def grow(store: Store, windows: int) -> int:
    """Multiplies the first window until there are so many; gives the last number."""
    rows = store._connection.rows
    (last,) = rows("SELECT MAX(number) FROM windows")[0]
    shift = 10 * SECOND // 1_000
    while last + 1 < windows:
        until = min(windows, last + 1 + SLICE)
        numbers = f"range({last + 1}, {until}) AS t(k) WHERE number = 0"
        rows(
            f"INSERT INTO windows SELECT w.* REPLACE (k AS number, started + k * INTERVAL "
            f"'{shift} microseconds' AS started, ended + k * INTERVAL '{shift} microseconds' AS "
            f"ended) FROM windows AS w, {numbers}"
        )
        rows(f"INSERT INTO point_windows SELECT w.* REPLACE (k AS number) FROM point_windows "
             f"AS w, {numbers}")  # fmt: skip
        last = until - 1
    rows("CHECKPOINT")
    store._writer.forget()
    return int(last)


def numbered(window: Window, number: int) -> Window:
    """The same window at another place."""
    fields = {name: getattr(window, name) for name in window.__slots__}
    times = {"start_ns": START + number * 10 * SECOND, "end_ns": START + (number + 1) * 10 * SECOND}
    return Window(**{**fields, **times, "number": number})


def process() -> StateMeta:
    """One process with all points."""
    points = tuple(PointMeta(f"layer{n}:input", 1.0, -1.0, 1.0, ()) for n in range(POINTS))
    return StateMeta("0" * 32, "", 1, START, "net", "", Instrument.RANGE, Strategy.INSTEAD,
                     "0.1.0", 10.0, points)  # fmt: skip


def make_windows(count: int) -> list[Window]:
    """Windows of 10 seconds, 60 neighbouring cells per point; they share their large arrays."""
    rng = np.random.default_rng(1)
    cells = np.zeros((POINTS, CELLS), np.int64)
    for row in cells:
        first = rng.integers(0, CELLS - USED)
        row[first : first + USED] = rng.integers(1, 100_000, USED)
    counts = rng.integers(1, 1_000, (POINTS, COUNT_COLUMNS))
    values = rng.random((POINTS, VALUE_COLUMNS))
    requests = rng.integers(1, 1_000, REQUEST_COLUMNS)
    empty = Window.empty(POINTS)
    return [
        Window(
            number=number,
            start_ns=START + number * 10 * SECOND,
            end_ns=START + (number + 1) * 10 * SECOND,
            flags=empty.flags,
            sampling_ratio=1.0,
            requests=requests,
            segments=(),
            counts=counts,
            values=values,
            cells=cells,
        )
        for number in range(count)
    ]
