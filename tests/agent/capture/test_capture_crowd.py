"""The captures of all processes together: the oldest dead lose theirs, the living keep them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._capture import (
    CaptureOptions,
    CaptureRow,
    CaptureWriter,
    list_captures,
    read_capture,
    read_index,
    thin_out,
)
from calidrift_agent._capture._crowd import hold
from calidrift_agent._vocabulary import CaptureKind

MANY = 1 << 60


@pytest.fixture
def captures(tmp_path):
    return tmp_path / "captures"


@pytest.fixture
def process(captures):
    """Makes processes that have captured rows; the n-th row of all is written at second n."""
    made, rows = [], []

    def make(name: str, *, number: int = 1, dead: bool = True) -> CaptureWriter:
        options = CaptureOptions(seed=1, reservoir=0)
        writer = CaptureWriter(captures / name, "net", "", ("fc:input",), options)
        made.append(writer)
        for _ in range(number):
            before = set(list_captures(captures))
            row = CaptureRow(
                inputs={"x": np.full((1, 3), len(rows), np.float32)},
                maxima=np.array([5.0], np.float32),
                uncovered=True,
                time_ns=1,
            )
            assert writer.offer(row) is None
            (path,) = set(list_captures(captures)) - before
            rows.append(path)
            os.utime(path, (len(rows), len(rows)))
        if dead:
            writer.release()
        return writer

    yield make
    for one in made:
        one.release()


def kept(captures: Path) -> list[int]:
    """Numbers of the rows that are there."""
    return sorted(int(read_capture(path).inputs["x"][0, 0]) for path in list_captures(captures))


def nobody(process: str) -> bool:
    return False


def test_the_captures_of_the_oldest_dead_process_go_first(process, captures):
    process("a", number=2)
    process("b", number=3)
    process("c", number=1)
    found = thin_out(captures, MANY, 2, nobody)
    assert (found.removed, found.complaints) == (4, ())
    (one, last) = kept(captures)
    assert one in (2, 3, 4)
    assert last == 5
    assert sorted(path.name for path in captures.iterdir()) == ["b", "c"], "an empty folder goes"


def test_within_the_bounds_nothing_goes_and_no_lock_is_touched(process, captures, monkeypatch):
    process("a", number=2)
    monkeypatch.setattr("calidrift_agent._capture._crowd.hold", lambda folder: 1 / 0)
    size = sum(path.stat().st_size for path in list_captures(captures))
    assert thin_out(captures, size, 2, nobody).removed == 0
    assert kept(captures) == [0, 1]


def test_bytes_are_bounded_too(process, captures):
    process("a", number=4)
    size = max(path.stat().st_size for path in list_captures(captures))
    assert thin_out(captures, 2 * size, MANY, nobody).removed == 2
    assert len(kept(captures)) == 2


def uniform(captures: Path, name: str, number: int) -> None:
    """A dead process with a reservoir of `number` rows that saw just these, and one uncovered."""
    writer = CaptureWriter(
        captures / name, "net", "", ("fc:input",), CaptureOptions(seed=0, reservoir=number)
    )
    for at in range(number):
        row = CaptureRow(
            inputs={"x": np.full((1, 3), at, np.float32)},
            maxima=np.array([5.0], np.float32),
            uncovered=at == 0,
            time_ns=1,
            inclusion=0.5,
        )
        assert writer.offer(row) is None
    writer.flush()
    writer.release()


def test_what_is_left_of_a_process_says_how_much_that_is(captures):
    uniform(captures, "a", 30)
    total = len(list_captures(captures))
    for left in (12, 5):  # the second time of what the first one left
        thin_out(captures, MANY, left, nobody)
        found = [read_capture(path) for path in list_captures(captures)]
        assert [one.inclusion for one in found] == pytest.approx([0.5 * left / total] * left)
    assert read_index(captures / "a").inclusion(CaptureKind.UNIFORM) == pytest.approx(5 / total)


def test_what_goes_of_a_process_is_drawn_at_random(captures):
    """Each row of thirty stays with the same probability, early or late."""
    stayed = np.zeros(10)
    for number in range(20):
        uniform(captures, f"process{number}", 10)
        thin_out(captures, MANY, 5, nobody)
        found = {int(read_capture(path).inputs["x"][0, 0]) for path in list_captures(captures)}
        stayed[sorted(found)] += 1
        thin_out(captures, 0, 0, nobody)
    early, late = stayed[:5].sum(), stayed[5:].sum()
    assert early + late > 75
    assert min(early, late) > 0.25 * (early + late)


def test_an_index_that_cannot_be_brought_up_to_date_is_told(captures):
    uniform(captures, "a", 4)
    (captures / "a" / "index.json").write_text("{")
    found = thin_out(captures, MANY, 2, nobody)
    assert "promises too much" in found.complaints[0]


def test_captures_of_living_processes_count_and_stay(process, captures):
    living = process("a", number=3, dead=False)
    process("b", number=2)
    assert thin_out(captures, MANY, 3, nobody).removed == 2
    assert thin_out(captures, MANY, 0, nobody).removed == 0
    assert kept(captures) == [0, 1, 2]
    assert read_index(captures / "a") is not None
    living.release()
    assert thin_out(captures, MANY, 1, nobody).removed == 2
    assert len(kept(captures)) == 1


def test_a_process_that_is_known_to_live_needs_no_lock(process, captures):
    process("old", number=2)
    assert thin_out(captures, 0, 0, {"old"}.__contains__).removed == 0


def test_a_folder_that_cannot_be_locked_is_left_alone(process, captures, monkeypatch):
    process("a")
    monkeypatch.setattr(
        "calidrift_agent._capture._crowd.fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(9))
    )
    assert thin_out(captures, 0, 0, nobody).removed == 0
    assert hold(captures / "absent") is None


def test_a_capture_that_is_being_read_is_read_to_its_end(process, captures):
    process("a")
    (path,) = list_captures(captures)
    whole = path.read_bytes()
    with path.open("rb") as file:
        beginning = file.read(10)
        assert thin_out(captures, 0, 0, nobody).removed == 1
        assert not path.exists()
        assert beginning + file.read() == whole


def test_what_is_foreign_stays(process, captures, tmp_path):
    process("a")
    (captures / "a" / "notes.txt").write_text("mine")
    (captures / "file").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    (captures / "a").rename(elsewhere)
    process("a")
    (captures / "link").symlink_to(elsewhere)
    (captures / "a" / "notes.txt").write_text("mine")
    assert thin_out(captures, 0, 0, nobody).removed == 1
    assert sorted(path.name for path in (captures / "a").iterdir()) == ["index.json", "notes.txt"]
    assert len(list_captures(elsewhere)) == 1
    assert (captures / "file").exists()
    assert thin_out(captures / "absent", 0, 0, nobody).removed == 0


def test_a_half_written_capture_of_a_dead_process_counts(process, captures):
    process("a")
    half = captures / "a" / ".x.safetensors.tmp"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    assert thin_out(captures, MANY, 1, nobody).removed == 1
    assert not half.exists()
    assert kept(captures) == [0]


def test_what_cannot_be_removed_is_told_and_the_next_goes(process, captures, monkeypatch):
    process("a", number=3)
    unlink = Path.unlink

    def stuck(path, missing_ok=False):
        if path.suffix == ".safetensors" and path.stat().st_mtime == 1:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", stuck)
    found = thin_out(captures, MANY, 1, nobody)
    assert found.removed == 2
    assert kept(captures) == [0]
    assert all("cannot be removed (Operation not permitted)" in one for one in found.complaints)


def test_a_folder_that_cannot_be_listed_is_told(process, captures, monkeypatch):
    process("a")

    def forbidden(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("calidrift_agent._capture._crowd.os.scandir", forbidden)
    found = thin_out(captures, 0, 0, nobody)
    assert "cannot be listed (Permission denied)" in found.complaints[0]


def test_a_forked_child_leaves_the_lock_with_its_parent(process, captures):
    writer = process("a", dead=False)
    child = os.fork()
    if not child:
        writer.release()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert thin_out(captures, 0, 0, nobody).removed == 0


def test_the_lock_is_taken_at_the_next_capture_where_somebody_looked(process, captures):
    (captures / "a").mkdir(parents=True)
    looking = hold(captures / "a")
    writer = process("a", dead=False)
    os.close(looking)
    row = CaptureRow(
        inputs={"x": np.full((1, 3), 7, np.float32)},
        maxima=np.array([9.0], np.float32),
        uncovered=True,
        time_ns=1,
    )
    assert writer.offer(row) is None
    assert thin_out(captures, 0, 0, nobody).removed == 0
