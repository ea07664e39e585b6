"""Rows per hour, room on the disk, and time to live."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from calidrift_agent._capture import (
    CaptureOptions,
    CaptureRow,
    CaptureWriter,
    list_captures,
    read_capture,
    read_index,
)
from calidrift_agent._capture import _limits as limits_module
from calidrift_agent._capture import _writer as writer_module
from calidrift_agent._capture._expiry import Leftovers
from calidrift_agent._capture._limits import HourLimit, disk_use
from calidrift_agent._vocabulary import CaptureKind, DropReason

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(at=100 * HOUR)
    fake = SimpleNamespace(monotonic=lambda: now.at, time=lambda: now.at)
    monkeypatch.setattr(limits_module, "time", fake)
    monkeypatch.setattr(writer_module, "time", fake)
    return now


@pytest.fixture
def make_writer(tmp_path):
    def make(process="p", model="net", **options) -> CaptureWriter:
        options.setdefault("seed", 1)
        return CaptureWriter(
            tmp_path / "captures" / process, model, "", ("fc:input",), CaptureOptions(**options)
        )

    return make


def make_row(value: float = 1.0, uncovered: bool = True, **changes) -> CaptureRow:
    return CaptureRow(
        inputs={"x": np.full((1, 3), value, np.float32)},
        maxima=np.array([value], np.float32),
        uncovered=uncovered,
        time_ns=1_700_000_000_000_000_000,
        **changes,
    )


def test_no_more_rows_than_allowed_within_any_hour(make_writer, clock):
    writer = make_writer(max_per_hour=3, reservoir=2)
    assert [writer.offer(make_row(value)) for value in (1, 2, 3)] == [None] * 3
    written = writer.count
    assert written == 5  # three uncovered ones, and two in the reservoir: three rows
    assert writer.offer(make_row(4)) is DropReason.RATE_LIMIT
    clock.at += HOUR - 1
    assert writer.offer(make_row(5)) is DropReason.RATE_LIMIT
    assert writer.count == written
    clock.at += 2
    assert [writer.offer(make_row(value)) for value in (6, 7, 8)] == [None] * 3
    assert writer.offer(make_row(9)) is DropReason.RATE_LIMIT
    writer.flush()
    index = read_index(writer.directory)
    assert (index.seen, index.refused) == (6, 3)


def test_the_hour_slides():
    limit = HourLimit(2)
    assert not limit.reached
    limit.count()
    limit.count()
    assert limit.reached


def test_rows_that_nobody_wanted_count_for_no_hour(make_writer, clock):
    writer = make_writer(max_per_hour=1, reservoir=0)
    for _ in range(5):
        assert writer.offer(make_row(uncovered=False)) is None
    assert writer.offer(make_row()) is None
    # A refused row that would not have been kept is no loss.
    assert writer.offer(make_row(uncovered=False)) is None


def full(share: float):
    def statvfs(path):
        if not Path(path).exists():
            raise FileNotFoundError(path)
        blocks = 1000
        free = round(blocks * (1 - share))
        return SimpleNamespace(f_blocks=blocks, f_bfree=free, f_bavail=free)

    return statvfs


def test_a_disk_that_is_nearly_full_stops_captures(make_writer, monkeypatch):
    writer = make_writer()
    monkeypatch.setattr(limits_module.os, "statvfs", full(0.91))
    assert writer.offer(make_row()) is DropReason.DISK_FULL
    assert writer.offer(make_row(uncovered=False)) is DropReason.DISK_FULL
    assert not writer.directory.exists()
    monkeypatch.setattr(limits_module.os, "statvfs", full(0.9))
    assert writer.offer(make_row()) is None
    assert read_index(writer.directory).refused == 2


def test_the_share_of_the_disk_is_an_option(make_writer, monkeypatch):
    monkeypatch.setattr(limits_module.os, "statvfs", full(0.91))
    assert make_writer(max_disk_use=0.95).offer(make_row()) is None
    monkeypatch.setattr(limits_module.os, "statvfs", full(1.0))
    assert make_writer(process="q", max_disk_use=1.0).offer(make_row()) is None


def test_space_reserved_for_root_is_not_there(tmp_path, monkeypatch):
    status = SimpleNamespace(f_blocks=1000, f_bfree=150, f_bavail=50)
    monkeypatch.setattr(limits_module.os, "statvfs", lambda path: status)
    assert disk_use(tmp_path) == pytest.approx(850 / 900)


def test_a_disk_that_tells_nothing_is_not_called_full(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(limits_module.os, "statvfs", refuse)
    assert disk_use(tmp_path) is None
    monkeypatch.setattr(
        limits_module.os,
        "statvfs",
        lambda path: SimpleNamespace(f_blocks=0, f_bfree=0, f_bavail=0),
    )
    assert disk_use(tmp_path) is None

    def absent(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(limits_module.os, "statvfs", absent)
    assert disk_use(tmp_path) is None


def test_captures_are_deleted_before_they_are_too_old(make_writer, clock):
    writer = make_writer(ttl_hours=24, reservoir=2)
    clock.at = 240 * HOUR
    writer.tidy()
    writer.offer(make_row(1.0))
    clock.at += 12 * HOUR
    writer.tidy()
    writer.offer(make_row(2.0))
    assert writer.count == 4
    clock.at += 12 * HOUR - 1
    writer.tidy()
    assert writer.count == 4
    clock.at += 1
    writer.tidy()
    assert {read_capture(path).maxima[0] for path in list_captures(writer.directory)} == {2.0}
    assert writer.count == 2
    assert read_index(writer.directory).seen == 1
    clock.at += 12 * HOUR
    writer.tidy()
    assert list_captures(writer.directory) == []
    assert (writer.count, writer.size_bytes) == (0, 0)
    assert writer.offer(make_row(3.0)) is None
    assert writer.count == 2


def test_without_a_time_to_live_nothing_is_deleted(make_writer, clock):
    writer = make_writer(ttl_hours=None)
    writer.offer(make_row())
    clock.at += 10_000 * HOUR
    writer.tidy()
    assert writer.count == 2


def test_deleting_is_bounded_per_call(make_writer, clock, monkeypatch):
    monkeypatch.setattr(writer_module, "_BITE", 3)
    writer = make_writer(ttl_hours=1, reservoir=0)
    for value in range(8):
        writer.offer(make_row(value))
    clock.at += HOUR
    left = []
    for _ in range(4):
        writer.tidy()
        left.append(len(list_captures(writer.directory)))
    assert left == [5, 2, 0, 0]


def test_an_extreme_that_expired_gives_its_place_up(make_writer, clock):
    writer = make_writer(ttl_hours=1, reservoir=0, max_count=4, per_point=1)
    writer.offer(make_row(100.0))
    clock.at += HOUR
    writer.tidy()
    for value in (5.0, 1.0, 2.0, 3.0, 4.0):
        writer.offer(make_row(value))
    kept = {read_capture(path).maxima[0] for path in list_captures(writer.directory)}
    assert 5.0 in kept
    assert 100.0 not in kept


def age(folder, seconds: float) -> None:
    for path in folder.iterdir():
        status = path.stat()
        os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def test_what_dead_processes_left_is_deleted_too(make_writer):
    dead = make_writer(process="dead")
    dead.offer(make_row())
    other = make_writer(process="other", model="another")
    other.offer(make_row())
    stranger = dead.directory / "notes.txt"
    stranger.write_text("mine")
    (dead.directory / ".x.safetensors.tmp").write_bytes(b"half")
    young = make_writer(process="young")
    young.offer(make_row())
    for writer in (dead, other):
        age(writer.directory, 2 * HOUR)
    living = make_writer(process="living", ttl_hours=1)
    living.offer(make_row())
    living.tidy()
    # Foreign files stay, and so does the folder that they are in.
    assert [path.name for path in dead.directory.iterdir()] == ["notes.txt"]
    assert len(list_captures(other.directory)) == 2
    assert len(list_captures(young.directory)) == 2
    assert len(list_captures(living.directory)) == 2


def test_a_folder_that_is_empty_goes_too(make_writer):
    dead = make_writer(process="dead")
    dead.offer(make_row())
    age(dead.directory, 2 * HOUR)
    make_writer(process="living", ttl_hours=1).tidy()
    assert not dead.directory.exists()


def test_leftovers_are_looked_at_bit_by_bit(make_writer):
    for number in range(4):
        writer = make_writer(process=f"dead{number}", reservoir=0)
        writer.offer(make_row())
        age(writer.directory, 2 * HOUR)
    root = writer.directory.parent
    (root / "damaged").mkdir()
    (root / "damaged" / "index.json").write_text("{")
    (root / "file").write_text("")
    sweep = Leftovers(root / "mine", "net", HOUR)
    rounds = 1
    while not sweep.sweep(2):
        rounds += 1
    assert rounds == 5  # two names of each of the four folders, and the end
    assert sorted(path.name for path in root.iterdir()) == ["damaged", "file"]


def test_segments_share_the_room_with_uncovered_rows(make_writer):
    writer = make_writer(reservoir=2, max_count=8, segments=1, per_point=1)
    for value in range(6):
        assert writer.offer(make_row(value)) is None
    assert writer.count == 8
    # A new segment opens the second reservoir, and uncovered rows make room for it.
    assert writer.offer(make_row(7, uncovered=False, segment="b")) is DropReason.CAPTURE_LIMIT
    assert writer.offer(make_row(8, uncovered=False, segment="c")) is None
    captures = [read_capture(path) for path in list_captures(writer.directory)]
    kinds = [capture.kind for capture in captures]
    assert (kinds.count(CaptureKind.UNIFORM), kinds.count(CaptureKind.UNCOVERED)) == (4, 4)
    assert max(c.maxima[0] for c in captures if c.kind is CaptureKind.UNCOVERED) == 5.0


def test_the_names_of_segments_are_not_in_the_index(make_writer):
    writer = make_writer()
    writer.offer(make_row(segment="customer-7"))
    assert "customer" not in (writer.directory / "index.json").read_text()


def test_a_redaction_cannot_change_what_other_rows_hold(make_writer):
    shared = np.ones(4, np.float32)

    def redact(inputs):
        inputs["x"][...] = 0
        return inputs

    writer = make_writer(redact=redact, reservoir=0)
    row = CaptureRow({"x": shared}, np.array([1.0], np.float32), uncovered=True, time_ns=0)
    writer.offer(row)
    (path,) = list_captures(writer.directory)
    assert not read_capture(path).inputs["x"].any()
    assert shared.all()
