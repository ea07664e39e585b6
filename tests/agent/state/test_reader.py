from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from calidrift_agent._state import (
    NO_WINDOW,
    StateOptions,
    StateReader,
    StateWriter,
    Window,
    _layout,
    _slots,
    scan,
)
from calidrift_agent._state._codec import WindowEncoder
from calidrift_agent._state._layout import BLANK, HEADER_BYTES, RECORD_BYTES, RecordHead, checksum
from calidrift_agent._vocabulary import WindowFlag
from calidrift_agent.errors import ConfigurationError, StateError, StateFormatError

SECOND = 1_000_000_000


class Recorder:
    """A writer with its buffer, and a plain list of everything that it closed."""

    def __init__(self, folder, meta, buffer, fill, slots=4):
        self.writer = StateWriter.create(folder, meta, StateOptions(slots=slots))
        self.buffer = buffer
        self.fill = fill
        self.windows = []
        self.now = 20 * SECOND

    def close_window(self, count=1):
        for _ in range(count):
            self.fill(self.buffer, len(self.windows))
            window = self.buffer.close(self.now)
            self.now += 10 * SECOND
            self.windows.append(window)
            self.writer.write_closed(window)
            self.writer.write_cumulative(self.buffer.cumulative())

    def write_live(self, seed=1000):
        self.fill(self.buffer, seed)
        self.writer.write_open(self.buffer, self.now - 5 * SECOND)
        return self.buffer.open_window(self.now - 5 * SECOND)

    def sum(self, first=0, last=None):
        total = Window.empty(3)
        for window in self.windows[first:last]:
            total = total.plus(window)
        return total


@pytest.fixture
def recorder(tmp_path, make_meta, make_buffer, fill):
    made = Recorder(tmp_path, make_meta(), make_buffer(), fill)
    yield made
    made.writer.close()


@pytest.fixture
def reader(recorder):
    with StateReader.open(recorder.writer.path) as opened:
        yield opened


def numbers(result):
    return [window.number for window in result.windows]


def test_a_fresh_file_has_nothing(reader):
    result = reader.windows()
    assert (result.windows, result.last, result.overrun, result.final) == ((), -1, False, False)
    assert reader.cumulative() is None
    assert reader.live() is None
    assert reader.total().is_empty
    assert reader.total().start_ns == 12 * SECOND


def test_each_window_comes_once_and_bit_for_bit(recorder, reader):
    recorder.close_window(2)
    first = reader.windows()
    assert all(a.equals(b) for a, b in zip(first.windows, recorder.windows, strict=True))
    assert (first.last, first.overrun, first.missing, first.damaged) == (1, False, None, ())
    assert reader.windows(after=1).windows == ()
    assert reader.windows(after=1).last == 1
    recorder.close_window()
    assert numbers(reader.windows(after=1)) == [2]


def test_cumulative_and_live_and_total(recorder, reader, assert_same):
    recorder.close_window(6)
    live = recorder.write_live()
    assert_same(reader.cumulative(), recorder.sum())
    assert reader.live().equals(live)
    assert_same(reader.total(), recorder.sum().plus(live))
    recorder.close_window()
    assert_same(reader.total(), recorder.sum())
    assert reader.live().number == reader.cumulative().number


@pytest.mark.parametrize("had", [0, 1, 3])
def test_an_overrun_becomes_one_exact_coarse_window(recorder, reader, assert_same, had):
    recorder.close_window(had)
    already = Window.empty(3)
    for window in reader.windows().windows:
        already = already.plus(window)
    recorder.close_window(10)
    result = reader.windows(already=already)
    assert result.overrun
    assert result.missing is None
    coarse, *rest = result.windows
    assert coarse.flags == WindowFlag.COARSE
    assert coarse.number == had + 10 - 4 - 1
    assert numbers(result) == [coarse.number, *range(coarse.number + 1, had + 10)]
    assert coarse.end_ns == rest[0].start_ns
    assert coarse.start_ns == (12 * SECOND if had == 0 else already.end_ns)
    whole = already
    for window in result.windows:
        whole = whole.plus(window)
    assert_same(whole, recorder.sum())


def test_an_overrun_without_sums_is_named(recorder, reader):
    recorder.close_window(10)
    result = reader.windows(after=1)
    assert result.overrun
    assert result.missing == (2, 5)
    assert numbers(result) == [6, 7, 8, 9]


def test_sums_of_another_file_are_refused(recorder, reader):
    recorder.close_window(10)
    twice = replace(recorder.sum().plus(recorder.sum()), number=1)
    with pytest.raises(StateFormatError, match="not a part of the sum"):
        reader.windows(already=twice)


def test_after_must_agree_with_the_sums(reader):
    with pytest.raises(ConfigurationError, match="both must name the same window"):
        reader.windows(after=3, already=Window.empty(3))
    assert reader.windows(after=NO_WINDOW, already=Window.empty(3)).windows == ()


def test_the_open_window_of_a_dead_process_comes_last(recorder, reader):
    recorder.close_window(2)
    live = recorder.write_live()
    assert numbers(reader.windows()) == [0, 1]
    recorder.writer.close()
    result = reader.windows()
    assert result.final
    assert numbers(result) == [0, 1, 2]
    assert result.windows[-1].equals(live)
    assert WindowFlag.EARLY in result.windows[-1].flags
    again = reader.windows(after=result.last)
    assert (again.windows, again.last, again.final) == ((), 2, True)


def test_a_dead_process_that_closed_everything_has_no_extra_window(recorder, reader):
    recorder.write_live()
    recorder.close_window()
    recorder.writer.write_open(recorder.buffer, recorder.now)
    recorder.writer.close()
    assert numbers(reader.windows()) == [0]


def test_a_process_killed_between_ring_and_sum_loses_nothing(recorder, reader, assert_same):
    recorder.close_window(3)
    recorder.write_live()
    recorder.writer.write_closed(recorder.buffer.close(recorder.now))
    recorder.writer.close()
    result = reader.windows()
    assert numbers(result) == [0, 1, 2, 3]
    assert result.missing is None


def corrupt(path, offset, length=1):
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in old))


@pytest.mark.parametrize("inside", [0, 8, 20, 27, 28, RECORD_BYTES, RECORD_BYTES + 500])
def test_a_damaged_ring_slot_is_named_and_made_up(recorder, reader, assert_same, inside):
    recorder.close_window(4)
    layout = recorder.writer._layout
    corrupt(recorder.writer.path, layout.ring(1) + inside)
    result = reader.windows()
    assert len(result.damaged) == 1
    assert result.damaged[0].startswith("ring slot 1: ")
    assert numbers(result) == [0, 1, 2, 3]
    assert result.windows[1].flags == WindowFlag.COARSE
    assert (result.windows[1].start_ns, result.windows[1].end_ns) == (12 * SECOND, 30 * SECOND)
    whole = Window.empty(3)
    for window in result.windows:
        whole = whole.plus(window)
    assert_same(whole, recorder.sum())


@pytest.mark.parametrize("what", ["live", "cumulative"])
def test_one_damaged_slot_of_two_leaves_the_older_one(recorder, reader, what):
    recorder.close_window(2)
    recorder.write_live()
    recorder.write_live()
    newest = getattr(recorder.writer, f"_{what}_sequence")
    slots = getattr(recorder.writer._layout, what)
    before = getattr(reader, what)()
    corrupt(recorder.writer.path, slots[newest % 2] + RECORD_BYTES + 100)
    found = getattr(reader, what)()
    assert int(found.requests.sum()) < int(before.requests.sum())
    corrupt(recorder.writer.path, slots[(newest + 1) % 2] + 3)
    with pytest.raises(StateFormatError, match=f"no {what} slot holds a whole record.*slot [AB]"):
        getattr(reader, what)()
    recorder.writer.close()
    assert any(what in sentence for sentence in reader.windows().damaged)


def test_without_any_sum_the_hole_is_named(recorder, reader):
    recorder.close_window(4)
    layout = recorder.writer._layout
    for slot in (*layout.cumulative, layout.ring(1)):
        corrupt(recorder.writer.path, slot)
    assert numbers(reader.windows()) == [0], "later ones wait for the next sum"
    recorder.writer.close()
    result = reader.windows()
    assert numbers(result) == [0, 2, 3]
    assert result.missing == (1, 1)


def test_a_length_beyond_the_slot_is_damage(recorder, reader, monkeypatch):
    recorder.close_window(1)
    recorder.write_live()
    layout = recorder.writer._layout
    head = RecordHead(1, 0, 10**9, 0, 1, 0).pack()
    with recorder.writer.path.open("r+b") as file:
        file.seek(layout.ring(0))
        file.write(head)
    assert "larger than the slot" in reader.windows().damaged[0]


def test_a_record_that_is_no_window_is_damage(recorder, reader):
    recorder.close_window(1)
    payload = b"nonsense"
    head = RecordHead(1, 0, len(payload), 0, 1, checksum(payload)).pack()
    with recorder.writer.path.open("r+b") as file:
        file.seek(recorder.writer._layout.ring(0))
        file.write(head + payload)
    assert "ring slot 0: a window of 3 points" in reader.windows().damaged[0]


@pytest.mark.parametrize("number", [-5, 7, 10**15])
def test_a_record_of_another_window_than_it_says_is_damage(recorder, reader, number):
    recorder.close_window(1)
    payload = bytes(WindowEncoder(3).encode(recorder.windows[0]))
    head = RecordHead(9, number, len(payload), 0, 1, checksum(payload)).pack()
    with recorder.writer.path.open("r+b") as file:
        for offset in (recorder.writer._layout.ring(3), recorder.writer._layout.live[0]):
            file.seek(offset)
            file.write(head + payload)
    result = reader.windows()
    assert numbers(result) == [0]
    assert (result.last, result.missing) == (0, None)
    assert number < 0 or f"it holds window 0, not {number}" in result.damaged[0]
    recorder.writer.close()
    with pytest.raises(StateFormatError, match="it holds window 0"):
        reader.live()


def forged(path, *, points=1, slots=4, description=None):
    """A file whose checksums all fit, with a header as told."""
    meta = b'{"no": "description"}' if description is None else description
    plan = _layout.Layout.plan(points, len(meta), None, 0)
    layout = replace(plan, slots=slots)
    path.write_bytes(layout.pack(meta))
    os.truncate(path, layout.total_bytes)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"slots": 65}, "at most 64"),
        ({"slots": 2**22}, "at most 64"),
        ({"description": b"\xff" * 9}, "decode"),
        ({"description": b"[" * 100_000}, "cannot be read"),
        ({"points": 2}, "header says 2 points, its description names 3"),
    ],
)
def test_a_forged_header_is_refused(tmp_path, make_meta, header, message):
    if "points" in header:
        header = {**header, "description": make_meta(points=3).to_json().encode()}
    path = forged(tmp_path / "forged.state", **header)
    with pytest.raises(StateFormatError, match=message):
        StateReader.open(path)
    with pytest.raises(StateError, match="null"):
        StateReader.open("a\0b")


@pytest.mark.parametrize("offset", [*range(12, HEADER_BYTES, 7), HEADER_BYTES - 1])
def test_a_damaged_header_is_refused(recorder, offset):
    corrupt(recorder.writer.path, offset)
    with pytest.raises(StateFormatError, match="header is damaged"):
        StateReader.open(recorder.writer.path)


def test_a_damaged_description_is_refused(recorder):
    corrupt(recorder.writer.path, HEADER_BYTES + 40)
    with pytest.raises(StateFormatError, match="description is damaged"):
        StateReader.open(recorder.writer.path)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "a.state"
    for content in (b"", b"hello", b"\x7fELF" * 100):
        path.write_bytes(content)
        with pytest.raises(StateFormatError, match="not a calidrift state file"):
            StateReader.open(path)
    with pytest.raises(StateFormatError):
        StateReader.open(tmp_path)
    with pytest.raises(StateError, match="cannot be opened"):
        StateReader.open(tmp_path / "absent.state")


def test_a_newer_version_is_named(recorder):
    with recorder.writer.path.open("r+b") as file:
        file.seek(8)
        file.write(b"\x04\0\0\0")
    with pytest.raises(StateFormatError, match=r"newer calidrift .format 4, .* up to 3"):
        StateReader.open(recorder.writer.path)


def test_other_columns_are_refused(tmp_path, make_meta, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_layout, "COLUMNS", _layout.COLUMNS._replace(counts=99))
        writer = StateWriter.create(tmp_path, make_meta())
    with pytest.raises(StateFormatError, match="columns are those of another"):
        StateReader.open(writer.path)
    writer.close()


@pytest.mark.parametrize("keep", [0, 4, 60, HEADER_BYTES, HEADER_BYTES + 100, 5000, -1])
def test_a_truncated_file_is_refused(recorder, tmp_path, keep):
    recorder.close_window(2)
    copy = tmp_path / "copy.state"
    shutil.copy(recorder.writer.path, copy)
    os.truncate(copy, keep if keep >= 0 else copy.stat().st_size - 1)
    with pytest.raises(StateFormatError):
        StateReader.open(copy)


def test_a_file_truncated_under_an_open_reader_is_named(recorder, tmp_path):
    recorder.close_window(2)
    copy = tmp_path / "copy.state"
    shutil.copy(recorder.writer.path, copy)
    with StateReader.open(copy) as reader:
        os.truncate(copy, recorder.writer._layout.ring(0))
        result = reader.windows()
        assert "somebody cut it short" in result.damaged[0]
        os.truncate(copy, 100)
        with pytest.raises(StateFormatError, match="somebody cut it short"):
            reader.cumulative()


def test_scan_opens_what_it_can_and_names_the_rest(recorder, tmp_path, make_meta):
    second = StateWriter.create(tmp_path, make_meta())
    (tmp_path / "broken.state").write_bytes(b"CALIDRFT")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".half.state").write_text("x")
    named = []
    readers = scan(tmp_path, lambda path, error: named.append((path.name, str(error))))
    assert {reader.path for reader in readers} == {recorder.writer.path, second.path}
    assert [name for name, _ in named] == ["broken.state"]
    assert "cut short" in named[0][1]
    for reader in readers + scan(tmp_path):
        reader.close()
        reader.close()
    second.close()


def test_scan_of_a_directory_that_does_not_exist_is_empty(tmp_path):
    assert scan(tmp_path / "absent") == []


def test_a_pipe_in_the_directory_does_not_hang_the_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe.state")
    assert scan(tmp_path) == []


def test_files_of_the_living_are_not_removed(recorder, reader):
    with pytest.raises(StateError, match="living process"):
        reader.remove()
    recorder.writer.close()
    reader.remove()
    assert not recorder.writer.path.exists()
    reader.remove()


def test_a_file_that_cannot_be_removed_is_named(recorder, reader, monkeypatch):
    recorder.writer.close()
    monkeypatch.setattr(type(reader.path), "unlink", _refuse)
    with pytest.raises(StateError, match="cannot be removed"):
        reader.remove()


def _refuse(self, missing_ok=False):
    raise PermissionError(1, "not permitted")


def test_two_readers_do_not_take_each_other_for_the_writer(recorder):
    recorder.writer.close()
    with (
        StateReader.open(recorder.writer.path) as one,
        StateReader.open(recorder.writer.path) as other,
    ):
        assert not one.alive
        assert not other.alive


def test_total_gives_up_when_slots_never_meet(recorder, reader):
    recorder.close_window(1)
    recorder.buffer.close(recorder.now)
    recorder.write_live()
    with pytest.raises(StateFormatError, match="do not meet"):
        reader.total()


def test_slots_that_are_cleared_one_after_the_other_hold_a_window(recorder, monkeypatch):
    """A reader that is interrupted between the two slots can find each of them blank."""
    recorder.write_live()
    reader = StateReader.open(recorder.writer.path)
    real, blanks = os.pread, [2]

    def pread(descriptor, length, offset):
        if length == RECORD_BYTES and blanks[0]:
            blanks[0] -= 1
            return BLANK
        return real(descriptor, length, offset)

    with reader, monkeypatch.context() as patch:
        patch.setattr(_slots.os, "pread", pread)
        assert reader.live() is not None
    assert blanks == [0]
