"""Kills at random moments, a full disk: no window is lost, none counts twice."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PREAMBLE = """
import os, random, resource, select, signal, sys, time
from datetime import timedelta
from functools import reduce
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import Traffic
from calidrift_agent._state import Window
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.store import Landmarks, Retention, Store, _store, _writing
from calidrift_analyzer.store import _compaction

DAY = 86_400_000_000_000
NOW = 1_800_000_000_000_000_000
path = Path(sys.argv[1])
traffic = Traffic()
metas = [traffic.meta(points=("a:input",)) for _ in range(2)]
base = traffic.random_window(0, 1)
FIELDS = {name: getattr(base, name) for name in base.__slots__}
NOTHING = lambda history, profile: Landmarks(looks=range(0, history.seen.size, 7))


def window(number):
    start = NOW + number * 300 * 10**9
    return Window(**{**FIELDS, "number": number, "start_ns": start, "end_ns": start + 10**9})


class Clock:
    day = 0
    def time_ns(self):
        return NOW + self.day * DAY


def work(store, life, told=lambda: None):
    # One collect run a day of a clock that a life moves on. In every second life what is old is
    # folded: windows always, minutes every second time, and so on; at times the file is written
    # anew.
    clock = _writing.time = Clock()
    clock.day = life
    for meta in metas:
        first = store.last_number(meta) + 1
        store.ingest(meta, [window(first + n) for n in range(3)], batch=store.next_batch())
        told()
    if life % 2:
        return
    days = [2, 8, 16, 30]
    tiers = 1 + sum(life % n == 0 for n in (4, 8, 16))
    spans = [timedelta(days=n) for n in days[:tiers] + [9_999] * (4 - tiers)]
    _compaction.FREE_BYTES = 0 if life % 10 == 0 else 1 << 40
    names = ("windows", "minutes", "hours", "days")
    keep = Retention(**dict(zip(names, spans)), max_bytes=None)
    store.retain(keep, NOTHING, now_ns=clock.time_ns())
    told()


def check(store):
    # Numbers run from 0 without gaps, so every count is known from the last number.
    totals, stored = store.totals("net", ""), 0
    for meta in metas:
        last = store.last_number(meta)
        stored += last + 1
        held = store._connection.rows(
            "SELECT SUM(r.windows), SUM(r.seen) FROM recorded AS r JOIN processes USING "
            f"(process_id) WHERE process = '{meta.process}'"
        )
        assert last < 0 or held == [(last + 1, (last + 1) * base.requests[0])], (held, last)
    assert totals.windows == stored, (totals.windows, stored)
    assert (totals.requests == stored * base.requests).all()
    if stored:
        assert (totals.points[0].counts == stored * base.counts[0]).all()
        assert (totals.points[0].cells == stored * base.cells[0]).all()
        history = store.history("net", "")
        assert history.units.sum() == stored * base.counts[0, 0]
        assert history.seen.sum() == stored * base.requests[0]
        for table, key in (("recorded", "process_id, number"), ("looks", "look")):
            doubled = store._connection.rows(
                f"SELECT {key} FROM {table} GROUP BY ALL HAVING COUNT(*) > 1"
            )
            assert not doubled, (table, doubled)
    return stored
"""

KILLS = """
def life(number):
    # A child that works until it is killed; a byte in the pipe tells of each durable step.
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with Store.open(path) as store:
                os.write(writing, b"o")
                work(store, number, lambda: os.write(writing, b"w"))
            os._exit(0)
        except BaseException as error:
            print("life", number, type(error), error, file=sys.stderr)
            os._exit(1)
    os.close(writing)
    random.seed(number)
    if number % 4:
        select.select([reading], [], [], 30)
    # Mostly inside the work, now and then before it or behind it.
    time.sleep(random.random() * whole_life)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    steps = os.read(reading, 16)
    os.close(reading)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, number
    return os.WIFSIGNALED(status), len(steps)


def forked(call):
    child = os.fork()
    if child == 0:
        try:
            with Store.open(path) as store:
                call(store)
            os._exit(0)
        except BaseException as error:
            print(type(error), error, file=sys.stderr)
            os._exit(1)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0


forked(lambda store: work(store, 0))
began = time.perf_counter()
forked(lambda store: work(store, 1))
whole_life = 1.1 * (time.perf_counter() - began)
killed, stages = 0, set()
for number in range(2, int(sys.argv[3]) + 2):
    was_killed, steps = life(number)
    killed += was_killed
    stages.add(steps)
    if number % 20 == 0:
        forked(check)


def last(store):
    for number in (304, 320, 336):
        work(store, number)
    stored = check(store)
    tiers = store._connection.rows("SELECT COUNT(DISTINCT tier) FROM recorded")[0][0]
    print("whole", killed, stored, sorted(stages), tiers)


forked(last)
"""

FULL = """
with Store.open(path) as store:
    store._connection.rows("SET wal_autocheckpoint='64KB'")
    for number in range(0, 32, 2):
        work(store, number)
    stored = check(store)
    refused = 0
    for number in range(32, 64):
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + (number % 5) * 40_000, -1))
        try:
            work(store, number)
        except StoreError:
            refused += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            stored = check(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
with Store.open(path) as store:
    work(store, 80)
    print("whole", refused, check(store))
"""


def run(environment, code, *arguments):
    folder = str(Path(__file__).parent.parent)
    path, *rest = map(str, arguments)
    ended = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), path, folder, *rest],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("whole", 1)[1].split(maxsplit=2)


@pytest.mark.slow
def test_kills_at_200_random_moments_lose_and_double_nothing(tmp_path, unmeasured):
    killed, stored, rest = run(unmeasured(), KILLS, tmp_path / "x.duckdb", 200)
    assert int(killed) > 100, "most lives ended by a kill"
    assert int(stored) > 60
    assert rest.count(",") >= 2, "kills fell into different steps"
    assert rest.strip()[-1] in "345", "kills fell into several tiers"


@pytest.mark.slow
def test_a_disk_that_is_full_again_and_again_loses_and_doubles_nothing(tmp_path, unmeasured):
    refused, stored = run(unmeasured(), FULL, tmp_path / "x.duckdb")
    assert int(refused) > 5, "the limit was hardly reached: the test tests nothing"
    assert int(stored) > 6 * 16
