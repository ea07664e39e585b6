"""A database goes from one major version of DuckDB to the other and back."""

import os
import subprocess
import textwrap
from functools import reduce
from pathlib import Path

import duckdb
import numpy as np
import pytest

from calidrift_agent._state import Window
from calidrift_analyzer.store import Store

OTHER = os.environ.get("CALIDRIFT_TEST_OTHER_PYTHON", "")
"""A Python with this project and another major version of DuckDB."""

WORK = """
import sys
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import duckdb
from conftest import Traffic
from calidrift_analyzer.store import Landmarks, Retention, Store

traffic = Traffic()
meta = traffic.meta()
windows = [traffic.random_window(number) for number in range(12)]
first, last = int(sys.argv[3]), int(sys.argv[4])
with Store.open(Path(sys.argv[1])) as store:
    assert store.last_number(meta) == first - 1
    assert store.ingest(meta, windows[:last], batch=store.next_batch()) == last - first
    store.retain(Retention(windows=timedelta(0)), lambda *_: Landmarks(), now_ns=2**62)
    store.upkeep.compact()
    assert store.upkeep.check().whole, store.upkeep.check().problems
print(duckdb.__version__)
"""


def work(python, path, first, last):
    """Ingest windows first..last - 1, fold and compact, in a process of that Python."""
    folder = Path(__file__).parent.parent
    ended = subprocess.run(
        [python, "-c", textwrap.dedent(WORK), str(path), str(folder), str(first), str(last)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()[-1]


def own_work(path, traffic, first, last):
    """The same in this process."""
    meta = traffic.meta()
    windows = [traffic.random_window(number) for number in range(12)]
    with Store.open(path) as store:
        assert store.last_number(meta) == first - 1
        assert store.ingest(meta, windows[:last], batch=store.next_batch()) == last - first
        store.upkeep.compact()
        assert store.upkeep.check().whole
        return store.totals("net", ""), windows


@pytest.mark.slow
@pytest.mark.skipif(
    not OTHER, reason="CALIDRIFT_TEST_OTHER_PYTHON names no Python with the other DuckDB"
)
@pytest.mark.parametrize("begins", ["here", "there"])
def test_a_database_goes_from_one_major_to_the_other_and_back(tmp_path, traffic, begins):
    path = tmp_path / "x.duckdb"
    steps = [(0, 4), (4, 8), (8, 12)]
    versions = set()
    for number, (first, last) in enumerate(steps):
        if (number % 2 == 0) == (begins == "here"):
            totals, windows = own_work(path, type(traffic)(), first, last)
        else:
            versions.add(work(OTHER, path, first, last))
    if begins == "there":
        with Store.open(path) as store:
            totals = store.totals("net", "")
            assert store.upkeep.check().whole
    assert {version.split(".")[0] for version in versions} != {duckdb.__version__.split(".")[0]}
    whole = reduce(Window.plus, windows)
    np.testing.assert_array_equal(totals.requests, whole.requests)
    for row, point in enumerate(totals.points):
        np.testing.assert_array_equal(point.cells, whole.cells[row])


def test_the_storage_version_is_one_that_both_can_read(store):
    """Without the other version here: the tag of the file says who can read it."""
    store.upkeep.compact()
    tags = store._connection.rows("SELECT tags FROM duckdb_databases() WHERE NOT internal")[0][0]
    assert tags["storage_version"].startswith("v1.5.0")
