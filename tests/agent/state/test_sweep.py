"""Dead processes are merged once and their files go, wherever a sweeper dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from calidrift_agent._state import (
    StateDirectory,
    StateReader,
    SweepOptions,
    SweepReport,
    scan,
    sweep,
)
from calidrift_agent._state import _carry as carry_module
from calidrift_agent._state import _sweep as sweep_module
from calidrift_agent._state._carry import carry_path, read_carried
from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent.errors import ConfigurationError, StateError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SECOND = 1_000_000_000
AT_ONCE = SweepOptions(retention_seconds=0.0)


def seen(folder: Path, now: float = 100.0) -> int:
    models = StateDirectory(folder).read(round(now * SECOND))
    return sum(int(model.total.requests[RequestColumn.SEEN]) for model in models)


def files(folder: Path) -> int:
    return len(list(folder.glob("*.state")))


def swept(folder: Path, options: SweepOptions = AT_ONCE, now: float = 100.0) -> SweepReport:
    return sweep(folder, options, now_ns=round(now * SECOND))


def test_the_dead_are_merged_and_removed_and_the_living_left_alone(worker, tmp_path):
    for requests in (5, 7):
        worker(10.0).serve(requests, 15.0).serve(1, 25.0).die()
    alive = worker(10.0).serve(100, 20.0)
    assert seen(tmp_path) == 114
    report = swept(tmp_path)
    assert report == SweepReport(merged=2, removed=2)
    assert [reader.path for reader in scan(tmp_path)] == [alive.path]
    assert seen(tmp_path) == 114
    carried = read_carried(carry_path(tmp_path, "net"))
    assert carried.total.requests[RequestColumn.SEEN] == 14
    assert carried.total.cells[:, 700].tolist() == [14, 14]
    alive.serve(1, 21.0).die()
    assert swept(tmp_path).merged == 1
    assert seen(tmp_path) == 115
    assert files(tmp_path) == 0


def test_models_are_kept_apart(worker, tmp_path):
    worker(10.0, model="a/b").serve(3, 15.0).die()
    worker(10.0, model="ä" * 100).serve(4, 15.0).die()
    worker(10.0, model="ä" * 101).serve(5, 15.0).die()
    assert swept(tmp_path).merged == 3
    found = {m.meta.model: int(m.total.requests[0]) for m in StateDirectory(tmp_path).read()}
    assert found == {"a/b": 3, "ä" * 100: 4, "ä" * 101: 5}


def test_other_points_and_segments_of_older_processes_stay(worker, tmp_path):
    old = worker(1.0, points=("a:input", "old:input"))
    for number in range(70):
        old.buffer.add_segment(f"s{number}", 2, 1)
    old.serve(3, 5.0).die()
    new = worker(2.0, points=("new:input", "a:input"))
    for number in range(70):
        new.buffer.add_segment(f"t{number}", 2, 1)
    new.serve(4, 5.0).die()
    assert swept(tmp_path).merged == 2
    carried = read_carried(carry_path(tmp_path, "net"))
    names = [point.name for point in carried.meta.points]
    assert names == ["new:input", "a:input", "old:input"]
    assert carried.total.cells[:, 700].tolist() == [4, 7, 3]
    assert sum(segment.units for segment in carried.total.segments) == 280
    assert len(carried.total.segments) <= 65


@pytest.mark.parametrize(
    ("age", "options", "files_left"),
    [
        (3_599, SweepOptions(), 2),
        (3_600, SweepOptions(), 0),
        (-3_600, SweepOptions(), 2),  # the clock was set back
        (1, SweepOptions(dead_bytes=0), 0),
    ],
)
def test_the_analyzer_has_time_to_read(worker, tmp_path, age, options, files_left):
    for _ in range(2):
        worker(0.0).serve(1, 5.0).die()
    report = swept(tmp_path, options, 5.0 + age)
    assert (report.kept, files(tmp_path)) == (files_left, files_left)


def test_the_oldest_go_first_where_there_is_no_room(worker, tmp_path):
    old, new = (worker(0.0).serve(1, at).die() for at in (5.0, 6.0))
    size = new.path.stat().st_size
    assert swept(tmp_path, SweepOptions(dead_bytes=size), 10.0).kept == 1
    assert [old.path.exists(), new.path.exists()] == [False, True]


def test_a_process_that_counted_nothing_goes_at_once(worker, tmp_path):
    idle = worker(0.0)
    idle.buffer.requests[RequestColumn.OVERHEAD_NS] = 5
    idle.serve(0, 50.0).die()
    worker(0.0).die()
    failed = worker(0.0)
    failed.buffer.requests[RequestColumn.ERROR_FIRST] = 1
    failed.serve(0, 50.0).die()
    swept(tmp_path, SweepOptions(), 60.0)
    assert [reader.path for reader in scan(tmp_path)] == [failed.path]


def test_pids_have_no_say(worker, tmp_path):
    """In another PID namespace a living process has a dead one's pid, and a dead one has ours."""
    dead = worker(0.0, pid=os.getpid()).serve(1, 5.0).die()
    alive = worker(0.0, pid=2**22 + 1).serve(1, 5.0)
    with pytest.raises(ProcessLookupError):
        os.kill(alive.meta.pid, 0)
    swept(tmp_path)
    assert [dead.path.exists(), alive.path.exists()] == [False, True]


NAMESPACE = """
import os, sys, time
from calidrift_agent._state import *
from calidrift_agent._vocabulary import RequestColumn
meta = StateMeta(new_process_id(), boot_id(), os.getpid(), 0, "net", "", "range", "instead", "0",
                 10.0, ())
buffer = WindowBuffer(0, window_seconds=10.0, now_ns=0)
writer = StateWriter.create(sys.argv[1], meta, StateOptions(slots=4))
buffer.requests[RequestColumn.SEEN] = 3
writer.write_open(buffer, 1)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_processes_of_two_pid_namespaces(tmp_path, unmeasured):
    """Both call themselves pid 1; one dies, the other lives."""
    unshare = shutil.which("unshare")
    command = [unshare or "", "--user", "--map-root-user", "--pid", "--fork"]
    if not unshare or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make PID namespaces (needs `unshare`)")
    python = [*command, "--kill-child", sys.executable, "-c", NAMESPACE, str(tmp_path)]
    pair = [
        subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=unmeasured())
        for _ in range(2)
    ]
    try:
        assert [process.stdout.readline() for process in pair] == [b"1\n", b"1\n"]
        assert seen(tmp_path) == 6
        pair[0].kill()
        pair[0].wait()
        deadline = time.monotonic() + 20
        while not swept(tmp_path).merged and time.monotonic() < deadline:
            time.sleep(0.02)
        assert files(tmp_path) == 1
        assert [reader.alive for reader in scan(tmp_path)] == [True]
        assert seen(tmp_path) == 6
    finally:
        for process in pair:
            process.kill()
            process.communicate()


def test_files_of_another_boot_wait_for_a_day(worker, tmp_path):
    """The lock of another machine may not be visible here."""
    other = worker(0.0, boot="f" * 32).serve(1, 5.0).die()
    for seconds, there in ((3_600 * 23, True), (3_600 * 25, False)):
        swept(tmp_path, SweepOptions(retention_seconds=1.0, dead_bytes=0), seconds)
        assert other.path.exists() is there


def test_litter_and_foreign_files(worker, tmp_path):
    now = time.time()
    old = now - 200_000
    names = (".1-net.state.tmp", ".net.carried.tmp", "2-net.state", "3-net.state", "4-net.state")
    for name in names:
        (tmp_path / name).write_bytes(b"CALIDRFT" if name[0] != "4" else b"somebody's")
        os.utime(tmp_path / name, (old, old))
    os.utime(tmp_path / "3-net.state")
    young = tmp_path / ".5-net.state.tmp"
    young.touch()
    report = swept(tmp_path, now=now)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"3-net.state", "4-net.state", ".5-net.state.tmp", ".sweep.lock"}
    assert len(report.complaints) == 3
    assert not any("\n" in sentence for sentence in report.complaints)


def test_a_damaged_carry_over_file_is_set_aside(worker, tmp_path):
    worker(0.0).serve(3, 5.0).die()
    swept(tmp_path)
    path = carry_path(tmp_path, "net")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    worker(0.0).serve(4, 5.0).die()
    report = swept(tmp_path)
    assert report.merged == 1
    assert "damaged" in report.complaints[0]
    assert path.with_name(path.name + ".unreadable").exists()
    assert seen(tmp_path) == 4


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "socket"])
def test_what_is_no_file_at_the_place_of_a_carry_over_file_hangs_nobody(worker, tmp_path, kind):
    worker(0.0).serve(3, 5.0).die()
    path = carry_path(tmp_path, "net")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
            listener.bind(path.name)
    directory = StateDirectory(tmp_path)
    done = threading.Thread(target=lambda: directory.read(100 * SECOND), daemon=True)
    done.start()
    done.join(30.0)
    assert not done.is_alive()
    assert "it is not a file" in directory.damaged[0]
    report = swept(tmp_path)
    assert "it is not a file" in report.complaints[0]
    assert report.merged == 1
    assert seen(tmp_path) == 3


def test_a_carry_over_file_larger_than_any_is_not_read(worker, tmp_path):
    with (tmp_path / "net.carried").open("wb") as file:
        file.truncate(1 << 40)
    worker(0.0).serve(3, 5.0)
    directory = StateDirectory(tmp_path)
    assert directory.read(100 * SECOND)[0].total.requests[RequestColumn.SEEN] == 3
    assert "larger than any" in directory.damaged[0]


@pytest.mark.parametrize("model", [".hidden", "../evil", ".", ".." * 100])
def test_a_model_whose_name_begins_with_a_dot_is_not_lost(worker, tmp_path, model):
    worker(0.0, model=model).serve(3, 5.0).die()
    assert swept(tmp_path).merged == 1
    assert seen(tmp_path) == 3
    assert carry_path(tmp_path, model).name.startswith("%2E")
    assert carry_path(tmp_path, model).exists()


def test_a_hidden_carry_over_file_of_an_older_version_goes_on(worker, tmp_path):
    worker(0.0, model=".net").serve(3, 5.0).die()
    swept(tmp_path)
    path = carry_path(tmp_path, ".net")
    older = path.rename(path.with_name(path.name.replace("%2E", ".", 1)))
    assert seen(tmp_path) == 3
    worker(0.0, model=".net").serve(4, 5.0).die()
    assert swept(tmp_path).merged == 1
    assert seen(tmp_path) == 7
    assert [one.name for one in tmp_path.glob("*.carried")] == [older.name]


def test_no_room_for_the_carry_over_file(worker, tmp_path, monkeypatch):
    worker(0.0).serve(3, 5.0).die()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(carry_module.os, "fsync", full)
    report = swept(tmp_path)
    assert (report.merged, files(tmp_path), len(report.complaints)) == (0, 1, 1)
    assert "No space left" in report.complaints[0]
    assert not list(tmp_path.glob(".*.tmp"))
    monkeypatch.undo()
    assert swept(tmp_path).merged == 1
    assert seen(tmp_path) == 3


def test_what_cannot_be_unlinked_does_not_count_twice(worker, tmp_path, monkeypatch):
    one = worker(0.0).serve(3, 5.0).die()
    original = Path.unlink

    def refuse(self, missing_ok=False):
        if self.suffix == ".state":
            raise PermissionError(1, "Operation not permitted")
        original(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    for _ in range(3):
        report = swept(tmp_path)
        assert "cannot be removed" in report.complaints[0]
        assert seen(tmp_path) == 3
        worker(0.0).serve(0, 5.0).die()
    monkeypatch.undo()
    swept(tmp_path)
    assert not one.path.exists()
    assert seen(tmp_path) == 3


def test_an_absorbed_file_that_cannot_be_opened_for_a_while_stays_absorbed(
    worker, tmp_path, monkeypatch
):
    one = worker(0.0).serve(3, 5.0).die()
    blob = one.path.read_bytes()
    swept(tmp_path)
    one.path.write_bytes(blob)  # its unlinking was lost
    worker(0.0).serve(4, 5.0).die()
    original = StateReader.open.__func__

    def short(cls, path):
        if path == one.path:
            raise StateError(f"state file {path} cannot be opened (Too many open files)")
        return original(cls, path)

    monkeypatch.setattr(StateReader, "open", classmethod(short))
    assert swept(tmp_path).merged == 1
    monkeypatch.undo()
    assert seen(tmp_path) == 7
    swept(tmp_path)
    assert seen(tmp_path) == 7


def captured(folder, process, number=2):
    """Files that look like captures; the n-th of a process is n seconds old."""
    place = folder / "captures" / process
    place.mkdir(parents=True)
    for index in range(number):
        path = place / f"{index}.safetensors"
        path.write_bytes(b"x" * 10)
        os.utime(path, (1_000 - index, 1_000 - index))
    return place


def test_captures_of_dead_processes_keep_within_bounds(worker, tmp_path):
    """Of those that have a state file and of those that were swept long ago; the living keep all.

    (The living one here has no lock on its captures, as an older version has none.)
    """
    living = worker(0.0).serve(1, 5.0)
    dead = worker(0.0).serve(1, 5.0).die()
    places = [captured(tmp_path, one) for one in (living.meta.process, dead.meta.process, "f" * 32)]
    held = SweepOptions(capture_count=4)
    assert sweep(tmp_path, SweepOptions(), now_ns=6 * SECOND).captures == 0
    assert sweep(tmp_path, held, now_ns=6 * SECOND).captures == 2
    assert sweep(tmp_path, held, now_ns=6 * SECOND).captures == 0
    assert [sorted(path.name for path in place.iterdir()) for place in places] == [
        ["0.safetensors", "1.safetensors"],
        [],
        ["0.safetensors", "1.safetensors"],
    ]
    report = sweep(tmp_path, SweepOptions(capture_bytes=0), now_ns=6 * SECOND)
    assert (report.captures, report.complaints) == (2, ())
    assert len(list(places[0].iterdir())) == 2


def test_a_copied_state_file_does_not_count_twice(worker, tmp_path):
    dead = worker(0.0).serve(5, 5.0).die()
    shutil.copy(dead.path, tmp_path / "backup.state")
    directory = StateDirectory(tmp_path)
    for _ in range(2):
        (model,) = directory.read(6 * SECOND)
        assert model.total.requests[0] == 5
        assert [one for one in directory.damaged if "backup.state is a copy" in one]
        report = sweep(tmp_path, SweepOptions(retention_seconds=0.0), now_ns=6 * SECOND)
        assert [one for one in report.complaints if "backup.state is a copy" in one]
    assert [path.name for path in tmp_path.glob("*.state")] == ["backup.state"]


def test_a_carry_over_file_that_begins_anew_is_not_taken_for_the_old_one(worker, tmp_path):
    """A reader knows the content by its generation: two contents must never share one."""
    directory = StateDirectory(tmp_path)
    for requests in (5, 7):
        worker(0.0).serve(requests, 5.0).die()
        sweep(tmp_path, SweepOptions(retention_seconds=0.0))
        (model,) = directory.read()
        assert model.total.requests[0] == requests
        (carry,) = tmp_path.glob("*.carried")
        carry.unlink()  # somebody tidied up


def test_bad_directories_and_options(tmp_path):
    assert swept(tmp_path / "not there yet") == SweepReport()
    (tmp_path / sweep_module.LOCK_NAME).mkdir()
    with pytest.raises(StateError, match="cannot be swept"):
        swept(tmp_path)
    for bad in ({"retention_seconds": -1.0}, {"dead_bytes": 1.5}):
        with pytest.raises(ConfigurationError, match=next(iter(bad))):
            SweepOptions(**bad)


def test_one_sweeper_at_a_time(worker, tmp_path, monkeypatch):
    worker(0.0).serve(3, 5.0).die()
    inside, go_on = threading.Event(), threading.Event()
    original = sweep_module.write_carried

    def waiting(path, carried):
        inside.set()
        assert go_on.wait(60)
        original(path, carried)

    monkeypatch.setattr(sweep_module, "write_carried", waiting)
    first = threading.Thread(target=swept, args=(tmp_path,))
    first.start()
    assert inside.wait(20)
    try:
        assert swept(tmp_path).busy  # another thread of this process
        child = os.fork()
        if not child:  # a forked child inherits neither lock, so it asks as any process
            os._exit(0 if swept(tmp_path).busy else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        go_on.set()
        first.join()
    assert seen(tmp_path) == 3
    child = os.fork()
    if not child:
        os._exit(1 if swept(tmp_path).busy else 0)
    assert os.waitpid(child, 0)[1] == 0


def test_many_workers_sweep_no_more_often_than_one(worker, tmp_path):
    worker(0.0).serve(3, 5.0).die()
    assert not sweep(tmp_path, AT_ONCE, pause_seconds=60).busy
    assert sweep(tmp_path, AT_ONCE, pause_seconds=60).busy
    assert not sweep(tmp_path, AT_ONCE).busy
    later = time.time_ns() + 61 * SECOND
    assert not sweep(tmp_path, AT_ONCE, pause_seconds=60, now_ns=later).busy


def test_a_worker_killed_between_closing_a_window_and_adding_it(worker, tmp_path):
    """The closed window is whole and newer than the open one that was written before it."""
    one = worker(0.0).serve(3, 5.0)
    one.buffer.requests[RequestColumn.SEEN] += 4
    window = one.buffer.close(10 * SECOND)
    one.writer.write_closed(window)
    one.die()
    assert seen(tmp_path) == 7
    swept(tmp_path)
    assert seen(tmp_path) == 7


# --- killed anywhere -----------------------------------------------------------------------------

WATCHED = ("write_carried", "sync_directory", "_merge", "_unlink", "_triage", "run")


def die_at(step: int, folder: Path) -> None:
    """In a forked child: sweep, and be gone before the line number `step` of the sweeper."""
    reached = 0

    def trace(frame, event, argument):
        nonlocal reached
        if frame.f_code.co_name not in WATCHED or "_state" not in frame.f_code.co_filename:
            return None
        if event == "line":
            if reached == step:
                os._exit(9)
            reached += 1
        return trace

    sys.settrace(trace)
    swept(folder)
    os._exit(0)


def killed_everywhere(template: Path, target: Path, wanted: int, stride: int = 1) -> list[str]:
    """Everything that went wrong, over all moments at which a sweeper may be killed."""
    wrong: list[str] = []
    for step in range(0, 10_000, stride):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(template, target)
        child = os.fork()
        if not child:
            die_at(step, target)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = [seen(target)]
        swept(target)
        found += [seen(target), files(target), len(list(target.glob(".*tmp")))]
        if found != [wanted, wanted, 0, 0]:
            wrong.append(f"killed at step {step}: {found}")
        if status == 0:
            assert step > 30
            return wrong
    raise AssertionError("the sweep never ended")


@pytest.fixture
def template(worker, tmp_path):
    folder = tmp_path / "template"
    worker(0.0, folder).serve(1, 5.0).die()
    swept(folder)  # an older carry-over file
    for requests in (10, 100):
        worker(0.0, folder).serve(requests, 5.0).die()
    return folder


def test_killed_before_any_line(template, tmp_path):
    assert killed_everywhere(template, tmp_path / "target", 111) == []


def unlink_first(self, model, carried, due):
    for dead in due:
        self._unlink(dead.reader.path)
    ORIGINAL(self, model, carried, due)


def forget_absorbed(path, carried):
    path.parent.mkdir(exist_ok=True)
    WRITE(path, type(carried)(carried.generation, carried.meta, carried.total, frozenset()))


ORIGINAL, WRITE = sweep_module._Sweep._merge, sweep_module.write_carried


@pytest.mark.parametrize("mutant", ["files first", "absorbed forgotten"])
def test_the_kills_find_mutants(template, tmp_path, monkeypatch, mutant):
    if mutant == "files first":
        monkeypatch.setattr(sweep_module._Sweep, "_merge", unlink_first)
    else:
        monkeypatch.setattr(sweep_module, "write_carried", forget_absorbed)
    assert killed_everywhere(template, tmp_path / "target", 111, stride=3)


# --- sweepers, dying workers and readers, all at once --------------------------------------------


def serve_and_die(kind: type, folder: Path, lives: int, requests: int) -> None:
    for _ in range(lives):
        one = kind(folder, time.time())
        for _ in range(requests):
            one.serve(1, time.time())
        one.die()


def forked(work, *arguments) -> int:
    child = os.fork()
    if not child:
        try:
            work(*arguments)
        finally:
            os._exit(0)
    return child


def sweep_until(folder: Path, stop: Path) -> None:
    while not stop.exists():
        swept(folder, now=time.time())
        time.sleep(0.02)


def test_a_reader_beside_dying_workers_and_three_sweepers(worker, tmp_path):
    """Its sum only grows, and ends at what was served; each file is merged exactly once."""
    folder, stop = tmp_path / "state", tmp_path / "stop"
    folder.mkdir()
    kind = type(worker(0.0, tmp_path / "one"))
    sweepers = [forked(sweep_until, folder, stop) for _ in range(3)]
    workers = [forked(serve_and_die, kind, folder, 60, 20) for _ in range(2)]
    directory, last, reads, running = StateDirectory(folder), 0, 0, set(workers)
    try:
        while running:
            found = sum(int(m.total.requests[0]) for m in directory.read())
            assert found >= last
            last, reads = found, reads + 1
            running -= {pid for pid in running if os.waitpid(pid, os.WNOHANG)[0]}
    finally:
        stop.touch()
        for pid in (*running, *sweepers):
            os.waitpid(pid, 0)
    swept(folder, now=time.time() + 1)
    assert seen(folder) == 2 * 60 * 20
    assert files(folder) == 0
    assert reads >= 3
