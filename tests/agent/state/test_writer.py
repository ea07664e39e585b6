from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from calidrift_agent._state import StateOptions, StateReader, StateWriter, Window, scan
from calidrift_agent._state import _writer as writer_module
from calidrift_agent.errors import ConfigurationError, StateError, StateSpaceError

SECOND = 1_000_000_000


def test_the_file_appears_complete_and_private(tmp_path, make_meta):
    folder = tmp_path / "run" / "state"
    meta = make_meta(model="vision/большая model")
    writer = StateWriter.create(folder, meta)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(writer.path.stat().st_mode) == 0o600
    assert writer.path.name.startswith(f"{meta.process}-vision%2F")
    assert [path.name for path in folder.iterdir()] == [writer.path.name]
    status = writer.path.stat()
    assert status.st_blocks * 512 >= status.st_size, "space is reserved, not sparse"
    with StateReader.open(writer.path) as reader:
        assert reader.meta == meta
        assert reader.path == writer.path
    writer.close()


def test_long_model_names_fit_into_a_file_name(tmp_path, make_meta):
    writer = StateWriter.create(tmp_path, make_meta(model="м" * 300))
    with StateReader.open(writer.path) as reader:
        assert reader.meta.model == "м" * 300
    writer.close()


def test_permissions_of_an_existing_directory_are_left_alone(tmp_path, make_meta):
    tmp_path.chmod(0o770)
    StateWriter.create(tmp_path, make_meta()).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o770


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_without_space_nothing_is_left_behind(tmp_path, make_meta, monkeypatch, code):
    def refuse(descriptor, offset, length):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StateSpaceError, match=r"no room for .* it needs [\d,]+ bytes"):
        StateWriter.create(tmp_path, make_meta())
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_file_size_limit_is_a_lack_of_space(tmp_path):
    code = (
        "import resource, sys\n"
        "from calidrift_agent._state import StateMeta, StateWriter\n"
        "from calidrift_agent.errors import StateSpaceError\n"
        "meta = StateMeta('0' * 32, '', 1, 0, 'net', '', 'range', 'instead', '0', 10.0, ())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    StateWriter.create(sys.argv[1], meta)\n"
        "except StateSpaceError:\n    sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_no_room_while_the_file_is_named_leaves_nothing(tmp_path, make_meta, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.ENOSPC, "full", str(target))

    monkeypatch.setattr(writer_module.Path, "rename", refuse)
    with pytest.raises(StateSpaceError):
        StateWriter.create(tmp_path, make_meta())
    assert list(tmp_path.iterdir()) == []


def test_space_is_reserved_before_mapping(tmp_path, make_meta, monkeypatch):
    order = []
    fallocate, mapping = os.posix_fallocate, writer_module.mmap.mmap
    monkeypatch.setattr(
        os, "posix_fallocate", lambda *a: (order.append("reserve"), fallocate(*a))[1]
    )
    monkeypatch.setattr(
        writer_module.mmap, "mmap", lambda *a: (order.append("map"), mapping(*a))[1]
    )
    StateWriter.create(tmp_path, make_meta()).close()
    assert order == ["reserve", "map"]


def test_an_unusable_directory_is_a_configuration_error(tmp_path, make_meta):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ConfigurationError, match="must be a folder"):
        StateWriter.create(blocker / "state", make_meta())
    with pytest.raises(ConfigurationError, match="not a path"):
        StateWriter.create("a\0b", make_meta())


@pytest.mark.parametrize("model", ["", "..", "../../etc/passwd", "a\0b", "größe ☃\n", "☃" * 3000])
def test_no_model_name_leads_out_of_the_folder(tmp_path, make_meta, model):
    writer = StateWriter.create(tmp_path, make_meta(model=model))
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == [writer.path.name]
    with StateReader.open(writer.path) as reader:
        assert reader.meta.model == model


def test_a_name_that_no_file_can_hold_is_refused(tmp_path, make_meta):
    with pytest.raises(ConfigurationError, match="half a character"):
        StateWriter.create(tmp_path, make_meta(model="\ud800"))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_replaced(tmp_path, make_meta):
    meta = make_meta()
    writer = StateWriter.create(tmp_path, meta)
    with pytest.raises(ConfigurationError, match="exists already"):
        StateWriter.create(tmp_path, meta)
    assert writer.path.exists()
    writer.close()


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 3},
        {"slots": 65},
        {"slots": "8"},
        {"slots": 8.0},
        {"ring_limit": -1},
        {"ring_limit": 1e6},
    ],
)
def test_unusable_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        StateOptions(**options)


def test_ring_slots_follow_the_limit(tmp_path, make_meta):
    sizes = []
    for limit in (0, 200_000, 10**9):
        writer = StateWriter.create(tmp_path, make_meta(), StateOptions(ring_limit=limit))
        sizes.append(writer._layout.slots)
        writer.close()
    assert sizes[0] == 4
    assert 4 < sizes[1] < 64
    assert sizes[2] == 64


def test_a_window_too_large_for_a_slot_takes_several(tmp_path, make_meta, make_buffer):
    writer = StateWriter.create(tmp_path, make_meta(), StateOptions(slots=4))
    buffer = make_buffer()
    windows = []
    for step in range(3):
        buffer.cells += 2**40 + step  # eight bytes in every cell: twice the room of a slot
        windows.append(buffer.close((20 + 10 * step) * SECOND))
        writer.write_closed(windows[-1])
        writer.write_cumulative(buffer.cumulative())
    assert writer._ring_sequence == 6
    with StateReader.open(writer.path) as reader:
        found = reader.windows(already=windows[0]).windows
        assert [window.number for window in found] == [1, 2]
        assert all(a.equals(b) for a, b in zip(found, windows[1:], strict=True))
        # Of window 0 one part may still be there; it must not pass for the whole.
        whole = reader.windows().windows
        assert [window.number for window in whole] == [0, 1, 2]
        assert (whole[0].cells == windows[0].cells).all()
    writer.close()


def test_close_is_final_and_repeatable(tmp_path, make_meta, make_buffer):
    writer = StateWriter.create(tmp_path, make_meta())
    with StateReader.open(writer.path) as reader:
        assert reader.alive
        assert not writer.closed
        writer.close()
        writer.close()
        assert writer.closed
        assert not reader.alive
    buffer = make_buffer()
    for write in (
        lambda: writer.write_open(buffer),
        lambda: writer.write_closed(buffer.close(20 * SECOND)),
        lambda: writer.write_cumulative(Window.empty(3)),
    ):
        with pytest.raises(StateError, match="closed or belongs to the process"):
            write()


def test_the_lock_is_exclusive(tmp_path, make_meta):
    writer = StateWriter.create(tmp_path, make_meta())
    descriptor = os.open(writer.path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    writer.close()


FORK = """
import os, signal, sys, time
from calidrift_agent._state import StateMeta, StateWriter, StateReader, WindowBuffer
from calidrift_agent._state import _writer
from calidrift_agent.errors import StateError
meta = StateMeta('0' * 32, '', 1, 0, 'net', '', 'range', 'instead', '0', 10.0, ())
buffer = WindowBuffer(0, window_seconds=10.0, now_ns=0)
if sys.argv[2] == "mutant":
    _writer._abandon_all = lambda: None
writer = StateWriter.create(sys.argv[1], meta)
buffer.requests[0] = 1
writer.write_open(buffer, 1)
with StateReader.open(writer.path) as reader:
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        refused = b"w"
        try:
            buffer.requests[0] = 99
            writer.write_open(buffer, 2)
        except StateError:
            refused = b"r"
        with StateReader.open(writer.path) as own:
            refused += b"a" if own.alive else b"d"
        writer.close()  # must not release the parent's lock
        if sys.argv[2] == "mutant":
            refused = b"m"
        os.write(told, refused)
        time.sleep(60)
        os._exit(0)
    print(os.read(ready, 2).decode(), "alive" if reader.alive else "dead",
          int(reader.live().requests[0]), child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_neither_writes_nor_keeps_the_lock(tmp_path, spawn):
    process = spawn(FORK, tmp_path, "plain")
    said, parent_alive, requests, child = process.stdout.readline().decode().split()
    try:
        assert said == "ra", "the child may not write, and sees its parent alive"
        assert parent_alive == "alive", "what the child did released the parent's lock"
        assert requests == "1"
        process.wait(10)
        os.kill(int(child), 0)  # the child lives on, and the file is dead all the same
        (reader,) = scan(tmp_path)
        with reader:
            assert not reader.alive
            assert [int(w.requests[0]) for w in reader.windows().windows] == [1]
    finally:
        os.kill(int(child), 9)


def test_without_the_fork_hook_the_child_would_keep_the_lock(tmp_path, spawn):
    """Planted mutant: shows that the test above can fail."""
    mutant = FORK.replace("writer.close()", "pass").replace("writer.write_open(buffer, 2)", "pass")
    process = spawn(mutant, tmp_path, "mutant")
    child = process.stdout.readline().decode().split()[-1]
    try:
        process.wait(10)
        (reader,) = scan(tmp_path)
        with reader:
            assert reader.alive
    finally:
        os.kill(int(child), 9)


def test_children_that_exec_do_not_inherit_the_lock(tmp_path, make_meta, spawn):
    writer = StateWriter.create(tmp_path, make_meta())
    spawn("import time; time.sleep(60)")
    os.close(writer._descriptor)
    writer._map.close()
    with StateReader.open(writer.path) as reader:
        assert not reader.alive
    writer._map = None


def test_a_file_that_was_cut_short_is_not_touched(tmp_path, make_meta, make_buffer):
    """Writing to a mapping beyond the end of its file would end the process with SIGBUS."""
    writer = StateWriter.create(tmp_path, make_meta())
    os.truncate(writer.path, 100)
    with pytest.raises(StateError, match="cut short while in use"):
        writer.write_open(make_buffer(), 1)
    writer.close()
