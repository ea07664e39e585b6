"""`calidrift serve` as a process: its overview, its pages, a storm of webhooks, and doing nothing.

Answers about 200 points with 30 days of hourly rollups, each beside the bare query on a copy of
the same database; the largest response of any page; 50 webhooks a second, every alert sent several
times and by several senders at once, of which none may be lost and none may lead to two jobs; and
what the service takes while nothing happens.

    python tests/benchmarks/service.py --json FILE [--quick] [--seconds N]
"""

import http.client
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
from service_month import POINTS, write_month
from sidecar import write

from calidrift_analyzer.records import JobRow
from calidrift_analyzer.store import SeriesSpan, Store

COMMAND = "from calidrift_agent._command_line import main; main()"
PER_SECOND = 50
SENDERS = 8
TIMES = 3
"""How often each alert is sent; twice at the same moment."""
MODELS = 40
DEADLINE = 120.0


def main(quick: bool = False, seconds: float | None = None) -> dict[str, object]:
    """Measures and prints; gives the figures."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        month = Path(folder) / "month"
        write_month(month, hours=48 if quick else 720)
        shutil.copytree(month, Path(folder) / "copy")
        with serving(month, models=("net",), mode="off") as (process, address):
            settled = http.client.HTTPConnection(address, timeout=DEADLINE)
            wait_assessed(settled)
            settled.close()
            # Two assessments find nothing new: then the service lets go of what it has read.
            figures["idle"] = idle(process.pid, *((1.0, 2.0) if quick else (150.0, 120.0)))
            figures["answers"] = answers(address, Path(folder) / "copy", rounds=5 if quick else 300)
            figures["pages"] = pages(address)
            figures["busy_mb"] = busy_mb(process.pid)
    with tempfile.TemporaryDirectory() as folder:
        figures["webhooks"] = webhooks(Path(folder), seconds or (1.0 if quick else 60.0))
    return figures


@contextmanager
def serving(
    folder: Path, models: tuple[str, ...], mode: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, with its usual schedule; gives its address."""
    folder.mkdir(exist_ok=True)
    state = folder / "state"
    state.mkdir(exist_ok=True)
    writer = write(str(state), 0)
    words = "".join(
        f'[models.{name}]\nfactory = "user:f"\nexample_inputs = "user:e"\ncalibration = "user:c"\n'
        f'evaluate = "user:v"\nregistry = "{folder / "registry"}"\n'
        for name in models
    )
    config = folder / "calidrift.toml"
    config.write_text(
        f'[analyzer]\ndatabase = "{folder / "calidrift.duckdb"}"\nstate_dirs = ["{state}"]\n'
        f'[service]\nport = 0\nmode = "{mode}"\ncool_down_seconds = 0\ndaily_cap = 100000\n{words}'
    )
    # Its standard error is kept: a full pipe would stop it.
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "CALIDRIFT_TOKENS"},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "http://" in line, (folder / "log").read_text()
            yield process, line.rsplit("http://", 1)[1].split()[0]
            process.terminate()
            assert process.wait(DEADLINE) == 0, (folder / "log").read_text()
        finally:
            process.kill()
            process.communicate()
            writer.close()


def fetch(connection: http.client.HTTPConnection, path: str) -> bytes:
    """One answer; asks again where the service says that it is busy."""
    until = time.monotonic() + DEADLINE
    while True:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            return body
        assert answer.status == 503, (path, answer.status, body[:500])
        assert time.monotonic() < until, path
        time.sleep(float(answer.headers.get("Retry-After", "1")))


def answers(address: str, copy: Path, rounds: int) -> dict[str, object]:
    """What people and dashboards ask for, interleaved with the bare query of the heat map."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    series = f"/api/v1/models/net/series?measure=coverage&slices=60&hours={24 * 30}"
    with Store.open(copy / "calidrift.duckdb") as store:
        span = month_of(store)
        calls: dict[str, Callable[[], object]] = {
            "bare query": lambda: store.views.series(span),
            "overview": lambda: fetch(connection, "/api/v1/models"),
            "points": lambda: fetch(connection, "/api/v1/models/net/points"),
            "heat map": lambda: fetch(connection, series),
            "page of all": lambda: fetch(connection, "/"),
            "page of net": lambda: fetch(connection, f"/models/net?hours={24 * 30}"),
        }
        for call in calls.values():
            call()
        timed = interleaved(calls, rounds)
    connection.close()
    bare = float(np.median(timed["bare query"]))
    found: dict[str, object] = {}
    print(f"Answers about {POINTS} points, {rounds} rounds")
    for name, times in timed.items():
        one = tail(np.array(times))
        found[name] = one
        print(
            f"  {name:12s} p50 {np.median(times):6.1f} ms, p99 {one['value']:6.1f} "
            f"[{one['low']:.1f}, {one['high']:.1f}] ms, {np.median(times) / bare:.2f} bare queries"
        )
    return found


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every call, in another order each round."""
    order = np.random.default_rng(0)
    names = list(calls)
    timed: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for index in order.permutation(len(names)):
            start = time.perf_counter_ns()
            calls[names[index]]()
            timed[names[index]].append((time.perf_counter_ns() - start) * 1e-6)
    return timed


def tail(times: np.ndarray) -> dict[str, float]:
    """The 99th percentile with its 95 % bootstrap interval, and the median."""
    drawn = np.random.default_rng(0).choice(times, (2_000, times.size))
    low, high = np.quantile(np.quantile(drawn, 0.99, axis=1), (0.025, 0.975))
    value = float(np.quantile(times, 0.99))
    return {"value": value, "low": float(low), "high": float(high), "p50": float(np.median(times))}


def wait_assessed(connection: http.client.HTTPConnection) -> None:
    """Wait for the first assessment."""
    until = time.monotonic() + DEADLINE
    while json.loads(fetch(connection, "/api/v1/models/net"))["verdict"] is None:
        assert time.monotonic() < until, "the model was never assessed"
        time.sleep(0.2)


def month_of(store: Store) -> SeriesSpan:
    """The last 30 days in 60 slices, as the service asks for them."""
    newest = store.observed("net")[0]
    step = 24 * 30 * 3_600 * 10**9 // 60
    last = newest.last_ns // step
    return SeriesSpan(
        model="net",
        profile=newest.profile,
        instrument=newest.instrument,
        since_ns=(last - 59) * step - 1,
        until_ns=(last + 1) * step - 1,
        step_ns=step,
    )


def pages(address: str) -> dict[str, object]:
    """Bytes of every kind of page in every form; the largest one counts."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    rows = json.loads(fetch(connection, "/api/v1/models/net/points"))
    point = quote(rows[0]["point"], safe="")
    paths = ["/", "/assets/page.css", "/assets/page.js", f"/models/net/points/{point}?hours=720"]
    for measure in ("coverage", "exceedance", "sqnr_change", "clipped_energy"):
        for hours in (1, 24, 168, 720):
            for figures in (0, 1):
                asked = f"measure={measure}&hours={hours}&figures={figures}"
                paths.append(f"/models/net?{asked}")
    sizes = {path: len(fetch(connection, path)) for path in paths}
    connection.close()
    largest = max(sizes, key=lambda path: sizes[path])
    print(f"Largest of {len(sizes)} pages: {sizes[largest] / 1e3:.0f} kB ({largest})")
    return {"bytes": float(sizes[largest]), "largest": largest, "overview_bytes": sizes["/"]}


def busy_mb(pid: int) -> float:
    """Memory right after all questions."""
    memory = psutil.Process(pid).memory_info().rss / 1e6
    print(f"Right after all that: {memory:.0f} MB")
    return memory


def idle(pid: int, settle: float, seconds: float) -> dict[str, float]:
    """Share of a core, memory, and whether torch was loaded, while nobody asks."""
    process = psutil.Process(pid)
    time.sleep(settle)
    begin, start = time.perf_counter(), spent(process)
    time.sleep(seconds)
    share = (spent(process) - start) / (time.perf_counter() - begin)
    memory = process.memory_info().rss / 1e6
    maps = Path(f"/proc/{pid}/maps").read_text()
    torch = sum("libtorch" in line for line in maps.splitlines())
    print(
        f"Idle for {seconds:.0f} s: {100 * share:.2f} % of a core, {memory:.0f} MB, "
        f"{len(process.children())} children, torch is {'loaded' if torch else 'not loaded'}"
    )
    return {"share": share, "rss_mb": memory, "torch": float(torch)}


def spent(process: psutil.Process) -> float:
    """Seconds of a core that a process and its ended children took."""
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True, slots=True)
class Alert:
    """One firing alert of Alertmanager, and when it is sent."""

    number: int
    at: float

    @property
    def model(self) -> str:
        return f"m{self.number % MODELS}"

    def body(self) -> str:
        labels = {"alertname": "Drift", "model": self.model, "action": "recalibrate"}
        alert = {
            "status": "firing",
            "labels": labels,
            "startsAt": "2026-01-01T00:00:00Z",
            "fingerprint": f"{self.number:016x}",
        }
        return json.dumps({"version": "4", "groupKey": self.model, "alerts": [alert]})


def webhooks(folder: Path, seconds: float) -> dict[str, float]:
    """Sends alerts at a steady rate, whatever the answers take, and counts what became of them."""
    count = int(PER_SECOND * seconds)
    # Neighbours are the same alert: two senders have it at the same moment; later once more.
    numbers = [n // 2 for n in range(count * 2 // TIMES)]
    numbers += list(range(count - len(numbers)))
    plan = [Alert(number, index / PER_SECOND) for index, number in enumerate(numbers)]
    models = tuple(f"m{n}" for n in range(MODELS))
    with serving(folder, models=models, mode="propose") as (_, address):
        taken, times = send(address, plan)
    found = examine(folder / "calidrift.duckdb", taken)
    one = tail(np.array(times))
    statuses = Counter(status for _, statuses in taken.values() for status in statuses)
    print(
        f"{count} webhooks at {PER_SECOND}/s: answers {dict(statuses)}, p50 {one['p50']:.0f} ms, "
        f"p99 {one['value']:.0f} ms; {len(taken)} alerts, {found['jobs']:.0f} jobs, "
        f"{found['lost']:.0f} lost, {found['doubled']:.0f} doubled"
    )
    return {**found, "p50_ms": one["p50"], "p99_ms": one["value"], "sent": float(count)}


Taken = dict[int, tuple[set[int], list[int]]]
"""By alert: the jobs that answers named, and the statuses."""


def send(address: str, plan: list[Alert]) -> tuple[Taken, list[float]]:
    """Sends every alert at its time, anew after a 503 as Alertmanager does; gives latencies, ms."""
    waiting: queue.SimpleQueue[Alert | None] = queue.SimpleQueue()
    taken: Taken = {alert.number: (set(), []) for alert in plan}
    times: list[float] = []
    failures: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection(address, timeout=DEADLINE)
        while (alert := waiting.get()) is not None:
            try:
                post(connection, alert)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failures.append(f"{error!r}")
                connection.close()
        connection.close()

    def post(connection: http.client.HTTPConnection, alert: Alert) -> None:
        while True:
            path = "/api/v1/webhooks/alertmanager"
            connection.request("POST", path, alert.body(), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            with lock:
                jobs, statuses = taken[alert.number]
                statuses.append(answer.status)
            if answer.status == 503:
                time.sleep(float(answer.headers.get("Retry-After", "1")))
                continue
            assert answer.status == 202, (answer.status, body)
            job = json.loads(body)["alerts"][0]["job"]
            with lock:
                times.append((time.perf_counter() - begin - alert.at) * 1e3)
                if job is not None:
                    jobs.add(job)
            return

    senders = [threading.Thread(target=work) for _ in range(SENDERS)]
    begin = time.perf_counter()
    for sender in senders:
        sender.start()
    for alert in plan:
        time.sleep(max(0.0, begin + alert.at - time.perf_counter()))
        waiting.put(alert)
    for _ in senders:
        waiting.put(None)
    for sender in senders:
        sender.join()
    assert not failures, failures[:3]
    return taken, times


def examine(database: Path, taken: Taken) -> dict[str, float]:
    """Looks into the database for alerts that left no trace, and for jobs that share one."""
    lost, named = 0, Counter[int]()
    with Store.open(database) as store:
        for number, (jobs, _) in taken.items():
            model = Alert(number, 0.0).model
            key = f"alertmanager:{model}:{number:016x}:2026-01-01T00:00:00+00:00"
            row = store.jobs.trigger(key)
            known = {row.job} if row is not None and row.job is not None else set()
            lost += row is None or not jobs <= known
            named.update(known)
        rows: list[JobRow] = []
        while found := store.jobs.page(before=rows[-1].job if rows else None, limit=1_000):
            rows += found
    doubled = sum(count - 1 for count in named.values())
    # A job that no alert knows is the second one of some alert.
    doubled += sum(row.job not in named for row in rows)
    return {"lost": float(lost), "doubled": float(doubled), "jobs": float(len(rows))}


if __name__ == "__main__":
    from children import leave

    asked = sys.argv
    given = float(asked[asked.index("--seconds") + 1]) if "--seconds" in asked else None
    leave(main("--quick" in asked, given), asked)
