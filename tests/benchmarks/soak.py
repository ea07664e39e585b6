"""Mixed load on four workers, some of them killed again and again: nothing grows, nothing is lost.

    python tests/benchmarks/soak.py [--minutes 30] [--pause 0.02]

Ends with status 1 and one sentence for each thing that is not so.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from numpy.typing import NDArray
from serving import PRELOADED, Counted, Load, Server, counted, disagreements

from calidrift_agent._state import StateDirectory, SweepOptions, sweep
from calidrift_agent._vocabulary import RequestColumn

RETENTION: Final = 6.0
"""Seconds that files of dead workers stay: long enough to be read here, and to be swept soon."""
WARM_UP: Final = 0.35
"""Share of the run that memory may take to settle; until then the load is all that there can be."""
GROWTH_BYTES: Final = 3_000_000
"""Growth of a worker after that, from the slope, that is called flat in a run of any length."""
SETTLING_BYTES: Final = 15_000_000
SETTLING_SECONDS: Final = 60.0
"""What is allowed on top in short runs, and how fast that fades: workers of this service grow in
steps of 1 MB in their first minute, with the agent switched off as well, later on a busy machine.
So a run of 27 s only finds leaks from 10 KB a request on, one of two minutes from 1 KB on, and one
of 30 minutes from 0.1 KB on."""
PAUSE: Final = 0.02
"""Seconds that each of eight clients waits between two requests after that."""
STEP_SECONDS: Final = 0.5


@dataclass(slots=True)
class Course:
    """What was seen on the way.

    Attributes:
        memory: pid to (moment, resident bytes).
        descriptors: pid to numbers of open files that are not sockets.
        scrapes: What `/metrics` said, in order.
        files: Numbers of state files.
        finals: Last word of each state file.
        killed: Workers that got a SIGKILL.
        ended: Workers that got a SIGTERM.
        merged: Files that the sweeps here merged.
    """

    memory: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    descriptors: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    scrapes: list[dict[str, float]] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    finals: dict[tuple[str, int], Counted] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    merged: int = 0


def growth(samples: Sequence[tuple[float, int]]) -> float:
    """Bytes that a process grew by after its warm-up: the median slope times the duration.

    The median over all pairs (Theil and Sen) does not follow single steps of the allocator.
    """
    kept = np.array(samples[int(len(samples) * WARM_UP) :], np.float64)
    if len(kept) < 3:
        return float("inf")
    thin = kept[:: max(1, len(kept) // 300)]
    first, second = np.triu_indices(len(thin), 1)
    moments: NDArray[np.float64] = thin[second, 0] - thin[first, 0]
    slopes = (thin[second, 1] - thin[first, 1]) / np.maximum(moments, 1e-9)
    return float(np.median(slopes) * (kept[-1, 0] - kept[0, 0]))


def allowed_growth(seconds: float) -> float:
    """Bytes by which a worker may grow after the warm-up of a run of this length."""
    return GROWTH_BYTES + SETTLING_BYTES * exp(-seconds / SETTLING_SECONDS)


def _open_files(process: psutil.Process) -> int:
    links = Path(f"/proc/{process.pid}/fd").iterdir()
    return sum(not str(link.readlink()).startswith("socket:") for link in links)


def _look(server: Server, course: Course, pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            process = psutil.Process(pid)
            course.memory[pid].append((time.monotonic(), process.memory_info().rss))
            course.descriptors[pid].append(_open_files(process))
        except (psutil.NoSuchProcess, OSError):
            continue
    course.files.append(len(list(server.state.glob("*.state"))))
    scrape = server.seen()
    if scrape:
        course.scrapes.append(scrape)


def _end_one(server: Server, course: Course, spared: Sequence[int]) -> None:
    victims = [pid for pid in server.workers() if pid not in spared]
    fresh = [pid for pid in victims if pid not in course.killed | course.ended]
    if len(server.workers()) < server.workers_wanted or not fresh:
        return
    rough = len(course.killed) <= len(course.ended)
    (course.killed if rough else course.ended).add(fresh[0])
    os.kill(fresh[0], signal.SIGKILL if rough else signal.SIGTERM)


def soak(seconds: float, folder: Path, pause: float = PAUSE) -> tuple[Course, Load, dict[str, int]]:
    """Run the service under load.

    Returns:
        What was seen; what the clients saw; and what all state files and carry-over files say in
        the end, by model.
    """
    server = Server(
        PRELOADED,
        folder / "state",
        folder / "log",
        environment={"DEMO_SAMPLE_RATE": "0.1", "DEMO_RETENTION_SECONDS": str(RETENTION)},
    )
    course = Course()
    every = max(3.0, seconds / 40)
    try:
        server.wait_until_ready()
        spared = server.workers()[:2]
        with Load(server, clients=8, pause=0.0) as load:
            began = time.monotonic()
            end, ending = began + seconds, began + every
            while time.monotonic() < end:
                if time.monotonic() > began + 0.8 * WARM_UP * seconds:
                    load.pause = pause
                _look(server, course, [server.process.pid, *spared])
                if time.monotonic() > ending:
                    ending += every
                    _end_one(server, course, spared)
                course.finals.update(counted(server.state))
                course.merged += sweep(
                    server.state, SweepOptions(retention_seconds=RETENTION)
                ).merged
                time.sleep(STEP_SECONDS)
        server.stop()
        course.finals.update(counted(server.state))
        sweep(server.state, SweepOptions(retention_seconds=0.0))
        course.files.append(len(list(server.state.glob("*.state"))))
        models = StateDirectory(server.state).read()
        total = {one.meta.model: int(one.total.requests[RequestColumn.SEEN]) for one in models}
    finally:
        server.kill()
    return course, load, total


def complaints(course: Course, load: Load, total: dict[str, int]) -> list[str]:
    """All that is not as it should be, one sentence each."""
    wrong = disagreements(load, course.finals, course.killed)
    for model, seen in total.items():
        finals = sum(one.seen for key, one in course.finals.items() if key[0] == model)
        if finals != seen:
            wrong.append(f"files of {model} said {finals} requests, the sum of all says {seen}")
        numbers = [scrape[model] for scrape in course.scrapes if model in scrape]
        if numbers != sorted(numbers):
            wrong.append(f"a counter of {model} went down")
    for pid, samples in course.memory.items():
        grown = growth(samples)
        if grown > allowed_growth(samples[-1][0] - samples[0][0]):
            wrong.append(f"process {pid} grew by {grown / 1e6:.1f} MB")
    for pid, numbers in course.descriptors.items():
        quarter = max(len(numbers) // 4, 1)
        if max(numbers[-quarter:]) > max(numbers[quarter : 2 * quarter], default=0):
            wrong.append(f"process {pid} has {max(numbers[-quarter:])} open files, it had fewer")
    if course.files[-1]:
        wrong.append(f"{course.files[-1]} state files are left although nobody lives")
    # Two models, four workers and their master; and those that died in the last seconds.
    if max(course.files) > 2 * (5 + 6):
        wrong.append(f"there were {max(course.files)} state files at once")
    return wrong


def main(seconds: float, pause: float) -> int:
    """Run, print what was seen, and return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        course, load, total = soak(seconds, Path(folder), pause)
    print(f"requests sent: {sum(load.sent.values())}, answered: {sum(load.total().values())}")
    print(f"counted: {sum(total.values())}; swept files: {course.merged}")
    print(f"workers killed: {len(course.killed)}, ended in order: {len(course.ended)}")
    print(f"state files at once: at most {max(course.files)}")
    for pid, samples in course.memory.items():
        now = samples[-1][1] / 1e6
        print(f"process {pid}: {now:.0f} MB, grew by {growth(samples) / 1e6:+.2f} MB", end="")
        print(f", {max(course.descriptors[pid])} files open")
    wrong = complaints(course, load, total)
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pause", type=float, default=PAUSE)
    given = parser.parse_args()
    sys.exit(main(given.minutes * 60, given.pause))
