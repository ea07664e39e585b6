"""Workers, sweepers and readers in every order that chance finds, killed wherever they stand.

A stepwise scheduler: each actor is a thread that runs only when it is told to, up to the next thing
that it does to a file. Which one runs next, and who is killed, comes from a seeded generator, so
that a seed that fails fails again. What a reader says must lie between what was written when it
began and what had been counted when it ended; and in the end everything is there, once.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from calidrift_agent._state import (
    StateDirectory,
    StateOptions,
    StateReader,
    StateWriter,
    SweepOptions,
    WindowBuffer,
    _carry,
    _directory,
    _sweep,
    sweep,
)
from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent.errors import StateError

SEEDS = range(40)
MOST_STEPS = 1_500
PATIENCE_SECONDS = 30.0
AT_ONCE = SweepOptions(retention_seconds=0.0)
NOW_NS = 10**18
_here = threading.local()


class Killed(BaseException):
    """A process that is killed: nothing of its own runs any more."""


class Stage:
    """Runs one actor at a time, each up to its next step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.actors: list[Actor] = []
        self.back = threading.Semaphore(0)

    def step(self) -> None:
        """Where another actor may go on, and where this one may be killed."""
        actor: Actor = _here.actor
        self.back.release()
        assert actor.go.acquire(timeout=PATIENCE_SECONDS)
        if actor.killed:
            raise Killed

    def run(self) -> None:
        """Let all actors come to their end, in an order of chance."""
        for _ in range(MOST_STEPS):
            waiting = [actor for actor in self.actors if not actor.ended]
            if not waiting:
                return
            actor = self.rng.choice(waiting)
            actor.killed = actor.killed or self.rng.random() < actor.mortality
            actor.go.release()
            assert self.back.acquire(timeout=PATIENCE_SECONDS)
        pytest.fail("the actors have not come to an end")

    def end(self) -> None:
        """End what a failure left waiting."""
        for actor in self.actors:
            while not actor.ended:
                actor.killed = True
                actor.go.release()
                assert self.back.acquire(timeout=PATIENCE_SECONDS)
            actor.thread.join(PATIENCE_SECONDS)
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error


class Actor:
    """One process, as far as files can tell."""

    def __init__(self, stage: Stage, work: Callable[[], None], mortality: float = 0.0) -> None:
        self.stage = stage
        self.work = work
        self.mortality = mortality
        self.killed = self.ended = False
        self.error: BaseException | None = None
        self.go = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        stage.actors.append(self)
        self.thread.start()

    def _run(self) -> None:
        _here.actor = self
        try:
            assert self.go.acquire(timeout=PATIENCE_SECONDS)
            if not self.killed:
                self.work()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self.stage.back.release()


class Server:
    """A process that counts requests, and what of them can be read.

    Attributes:
        counted: Requests so far.
        safe: Of these, those that any reader finds.
        last: Those that are found once it is dead.
    """

    def __init__(self, stage: Stage, folder: Path, make_meta) -> None:
        self.stage, self.folder = stage, folder
        process = f"{stage.rng.getrandbits(128):032x}"  # files are read in the order of names
        self.meta = replace(make_meta(points=1), process=process)
        self.counted = self.safe = self.last = 0

    def work(self) -> None:
        stage, rng = self.stage, self.stage.rng
        stage.step()
        writer = StateWriter.create(self.folder, self.meta, StateOptions(slots=4))
        try:
            buffer = WindowBuffer(1, window_seconds=10.0, now_ns=self.meta.started_ns)
            for window in range(rng.randrange(1, 4)):
                for _ in range(rng.randrange(0, 3)):
                    self.count(buffer, rng)
                    writer.write_open(buffer, self.meta.started_ns + window + 1)
                    self.safe = self.last = self.counted
                    stage.step()
                if rng.random() < 0.7:
                    self.count(buffer, rng)
                    writer.write_closed(buffer.close(self.meta.started_ns + window + 1))
                    self.last = self.counted
                    stage.step()
                    writer.write_cumulative(buffer.cumulative())
                    self.safe = self.counted
                    stage.step()
        finally:
            writer.abandon()  # as the kernel does with the files of a dead process

    def count(self, buffer: WindowBuffer, rng: random.Random) -> None:
        requests = rng.randrange(1, 10)
        buffer.requests[RequestColumn.SEEN] += requests
        self.counted += requests
        self.stage.step()


def seen_in(directory: StateDirectory) -> int:
    return sum(int(one.total.requests[RequestColumn.SEEN]) for one in directory.read(NOW_NS))


def reading(stage: Stage, folder: Path, servers: list[Server], wrong: list[str]) -> None:
    """Read again and again, and compare with what the servers know."""
    directory, before = StateDirectory(folder), 0
    for _ in range(4):
        stage.step()
        least = sum(one.safe for one in servers)
        try:
            seen = seen_in(directory)
        except StateError:
            continue  # it says that it does not know
        most = sum(one.counted for one in servers)
        if not least <= seen <= most:
            wrong.append(f"read {seen}, not {least} to {most}")
        if seen < before:
            wrong.append(f"read {seen} after {before}")
        before = seen


def sweeping(stage: Stage, folder: Path) -> None:
    for _ in range(5):
        stage.step()
        sweep(folder, AT_ONCE, now_ns=NOW_NS)


def play(seed: int, folder: Path, make_meta) -> list[str]:
    """Run one course; return what went wrong, one sentence each."""
    stage = Stage(seed)
    servers = [Server(stage, folder, make_meta) for _ in range(4)]
    wrong: list[str] = []
    for server in servers:
        Actor(stage, server.work, mortality=0.02)
    for _ in range(2):
        Actor(stage, partial(reading, stage, folder, servers, wrong))
        Actor(stage, partial(sweeping, stage, folder), mortality=0.01)
    try:
        stage.run()
    finally:
        stage.end()
    last = sum(one.last for one in servers)
    for _ in range(2):
        if (seen := seen_in(StateDirectory(folder))) != last:
            wrong.append(f"in the end {seen}, not {last}")
        sweep(folder, AT_ONCE, now_ns=NOW_NS)
    if left := list(folder.glob("*.state")):
        wrong.append(f"{len(left)} files are left")
    return wrong


def stepping(function: Callable, *, after: bool = False) -> Callable:
    """The function with a step before it, and one behind it."""

    def stepped(*args, **kwargs):
        step()
        found = function(*args, **kwargs)
        if after:
            step()
        return found

    return stepped


def step() -> None:
    """The step of the actor that runs; nothing where none does."""
    actor: Actor | None = getattr(_here, "actor", None)
    if actor is not None:
        actor.stage.step()


@pytest.fixture
def steps(monkeypatch) -> None:
    """Every look at a file, and every change of one, is a step; locks are held by actors."""
    held: set[Path] = set()

    @contextlib.contextmanager
    def alone(folder: Path, name: str) -> Iterator[bool]:
        """The lock of one process per directory; here each actor is a process."""
        step()
        if folder in held:
            yield False
            return
        held.add(folder)
        try:
            yield True
        finally:
            held.discard(folder)

    monkeypatch.setattr(_sweep, "alone_in", alone)
    monkeypatch.setattr(_directory.time, "sleep", lambda _: step())
    monkeypatch.setattr(_sweep, "read_carried", stepping(_carry.read_carried))
    monkeypatch.setattr(_sweep, "write_carried", stepping(_carry.write_carried, after=True))
    monkeypatch.setattr(_sweep, "state_paths", stepping(_sweep.state_paths))
    monkeypatch.setattr(_directory, "read_carried", stepping(_carry.read_carried))
    monkeypatch.setattr(_directory, "read_generation", stepping(_carry.read_generation))
    monkeypatch.setattr(_directory, "state_paths", stepping(_directory.state_paths, after=True))
    monkeypatch.setattr(_sweep._Sweep, "_unlink", stepping(_sweep._Sweep._unlink, after=True))
    monkeypatch.setattr(StateReader, "total", stepping(StateReader.total))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_counts_once_whatever_comes_between(seed, tmp_path, make_meta, steps):
    assert play(seed, tmp_path, make_meta) == []


def forget_absorbed(monkeypatch):
    """The carry-over file does not say whose counts it holds."""
    write = _sweep.write_carried

    def written(path, carried):
        write(path, _carry.Carried(carried.generation, carried.meta, carried.total, frozenset()))

    monkeypatch.setattr(_sweep, "write_carried", written)


def ignore_absorbed(monkeypatch):
    """A reader counts files that were absorbed already."""
    read = StateDirectory._read_processes
    monkeypatch.setattr(
        StateDirectory,
        "_read_processes",
        lambda self, absorbed, now_ns, complaints: read(self, frozenset(), now_ns, complaints),
    )


def look_once(monkeypatch):
    """A reader does not look whether it was swept meanwhile."""
    find = StateDirectory._generations

    def found(self):
        known = find(self)
        self.__dict__["looks"] = looks = self.__dict__.get("looks", 0) + 1
        if looks % 2:
            self.__dict__["before"] = known
        return self.__dict__["before"]

    monkeypatch.setattr(StateDirectory, "_generations", found)


def unlink_first(monkeypatch):
    """Files go before their counts are in the carry-over file."""
    merge = _sweep._Sweep._merge

    def merged(self, model, carried, due):
        for dead in due:
            self._unlink(dead.reader.path)
        merge(self, model, carried, due)

    monkeypatch.setattr(_sweep._Sweep, "_merge", merged)


def two_sweepers(monkeypatch):
    """Nobody is kept from sweeping while another one does."""
    monkeypatch.setattr(_sweep, "alone_in", lambda folder, name: contextlib.nullcontext(True))


def old_cache(monkeypatch):
    """All carry-over files look like the one that was read before."""
    write = _sweep.write_carried

    def written(path, carried):
        write(path, _carry.Carried(1, carried.meta, carried.total, carried.absorbed))

    monkeypatch.setattr(_sweep, "write_carried", written)


@pytest.mark.parametrize(
    "mutant",
    [forget_absorbed, ignore_absorbed, look_once, unlink_first, two_sweepers, old_cache],
    ids=lambda mutant: mutant.__name__,
)
def test_the_orders_find_mutants(mutant, tmp_path, make_meta, steps, monkeypatch):
    mutant(monkeypatch)
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        if play(seed, folder, make_meta):
            return
    pytest.fail("no order of events has found it")
