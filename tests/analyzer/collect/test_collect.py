import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._capture import CaptureOptions, CaptureRow, CaptureWriter, list_captures
from calidrift_agent._state import (
    StateReader,
    Window,
)
from calidrift_agent._vocabulary import CaptureKind
from calidrift_analyzer.collect import _captures, collect
from calidrift_analyzer.store import Store


def test_reads_everything_once(desk, process):
    first = process().windows(3)
    second = process().windows(2)
    report = desk.run()
    assert (report.windows, report.processes, report.coarse, report.skipped) == (5, 2, 0, ())
    again = desk.run()
    assert (again.windows, again.processes) == (0, 2)
    desk.assert_complete(first, second)
    first.windows(2)
    assert desk.run().windows == 2
    desk.assert_complete(first, second)


def test_no_directory_yet_is_empty(database, tmp_path):
    with Store.open(database) as store:
        report = collect([tmp_path / "nowhere"], store)
    assert (report.windows, report.processes, report.captures) == (0, 0, 0)


def test_a_directory_named_twice_is_read_once(folder, database, desk, process):
    process = process().windows(2)
    with Store.open(database) as store:
        report = collect([folder, folder / ".." / folder.name], store)
    assert report.windows == 2
    assert report.processes == 1
    desk.assert_complete(process)


def test_the_open_window_counts_once_the_process_is_dead(desk, process):
    process = process().windows(2).open_window()
    assert desk.run().windows == 2
    process.die()
    assert desk.run().windows == 1
    assert desk.run().windows == 0
    desk.assert_complete(process)


def test_overwritten_windows_arrive_as_one_coarse_window(database, desk, process):
    process = process(slots=4).windows(3)
    assert desk.run().windows == 3
    process.windows(20)
    report = desk.run()
    assert report.coarse == 1
    assert report.windows < 20
    assert report.skipped == ()
    desk.assert_complete(process)
    assert desk.run().windows == 0
    process.windows(15).open_window().die()
    assert desk.run().coarse == 1
    desk.assert_complete(process)
    with Store.open(database) as store:
        assert store.totals("net", "").coarse_windows == 2


def test_an_analyzer_that_comes_late_for_the_first_time(desk, process):
    process = process(slots=4).windows(20)
    assert desk.run().coarse == 1
    desk.assert_complete(process)


def test_a_damaged_state_file_is_named_and_the_rest_goes_on(folder, desk, process):
    bad = process().windows(1).die()
    good = process().windows(2)
    path = bad.writer.path
    blob = bytearray(path.read_bytes())
    blob[:64] = b"\xff" * 64
    path.write_bytes(blob)
    (folder / "cut.state").write_bytes(b"short")
    report = desk.run()
    assert report.windows == 2
    assert {skipped.path.name for skipped in report.skipped} == {path.name, "cut.state"}
    assert all(skipped.reason for skipped in report.skipped)
    desk.assert_complete(good)


def test_a_damaged_ring_slot_loses_no_count(desk, process):
    """The window is gone, but the cumulative sum has it."""
    process = process().windows(6)
    desk.run()
    process.windows(4)
    with StateReader.open(process.writer.path) as reader:
        needle = reader.windows(after=6).windows[0].requests.tobytes()
    blob = bytearray(process.writer.path.read_bytes())
    place = blob.find(needle)
    assert place > 0
    with process.writer.path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 8)
    report = desk.run()
    assert report.coarse == 1
    assert any(
        "damaged" in skipped.reason or "checksum" in skipped.reason for skipped in report.skipped
    )
    desk.assert_complete(process)


def test_a_hole_that_cannot_be_filled_is_named(desk, process, monkeypatch):
    process = process().windows(2)
    original = StateReader.windows

    def with_hole(self, after=None, already=None):
        found = original(self, after, already)
        return type(found)(
            windows=found.windows,
            overrun=True,
            missing=(7, 9),
            damaged=("slot 3: checksum",),
            final=False,
            last=found.last,
        )

    monkeypatch.setattr(StateReader, "windows", with_hole)
    report = desk.run()
    assert report.windows == 2
    assert any("windows 7 to 9" in skipped.reason for skipped in report.skipped)
    assert any("slot 3" in skipped.reason for skipped in report.skipped)
    desk.assert_complete(process)


def test_sums_that_are_not_part_of_the_file_are_named(captures, desk, process, monkeypatch):
    """A store that holds more than the process ever counted (a restored backup, say)."""
    process = process(slots=4).windows(3)
    desk.run()
    process.windows(20)

    def inflated(self, meta):
        window = Window.empty(len(meta.points), number=2)
        window.requests[:] = 2**50
        return window

    monkeypatch.setattr(Store, "sums", inflated)
    report = desk.run()
    assert (report.windows, report.processes) == (0, 0)
    assert "not a part" in report.skipped[0].reason


# ---- profiles and captures -------------------------------------------------------------------


def test_profiles_are_collected_once_and_damaged_ones_named(traffic, folder, database, desk):
    profile = traffic.profile({"a:input": traffic.rng.normal(size=(40, 8))})
    profiles = folder / "profiles"
    profiles.mkdir()
    profile.save(profiles / f"{profile.digest}.json")
    profile.save(profiles / f"{'0' * 64}.json")
    (profiles / f"{'1' * 64}.json").write_text("{")
    report = desk.run()
    assert report.profiles == 1
    assert {skipped.path.stem[0] for skipped in report.skipped} == {"0", "1"}
    assert desk.run().profiles == 0
    with Store.open(database) as store:
        assert store.profile(profile.digest).to_json() == profile.to_json()


def test_captures_are_listed(database, captures, desk):
    captures(5)
    report = desk.run()
    assert report.captures == 2  # the same row in both stores
    with Store.open(database) as store:
        found = store.captures("net")
    assert {entry.kind for entry in found} == set(CaptureKind)
    assert all(
        (entry.captured_ns, entry.segment, entry.profile, entry.process)
        == (5, "night", "f" * 64, "c" * 32)
        for entry in found
    )
    assert all(Path(entry.path).stat().st_size == entry.size for entry in found)


def test_damaged_captures_are_named_and_the_rest_goes_on(folder, captures, desk):
    captures(5)
    paths = list_captures(folder / "captures")
    paths[0].write_bytes(paths[0].read_bytes()[:40])
    (paths[0].parent / "foreign.safetensors").write_bytes(b"\x00" * 200)
    report = desk.run()
    assert report.captures == 1
    assert {skipped.path.name for skipped in report.skipped} == {
        paths[0].name,
        "foreign.safetensors",
    }


def test_encrypted_captures_are_listed_with_the_key_and_named_without(folder, desk, monkeypatch):
    name = "CALIDRIFT_CAPTURE_KEYS"
    monkeypatch.setenv(name, "QUFB" * 10 + "QUE=")
    options = CaptureOptions(encrypt=True, reservoir=0)
    writer = CaptureWriter(folder / "captures" / ("c" * 32), "net", "", ("fc:input",), options)
    row = {"inputs": {"x": np.zeros((1, 4), np.float32)}, "maxima": np.ones(1, np.float32)}
    writer.offer(CaptureRow(**row, uncovered=True, time_ns=5))
    assert desk.run().captures == 1
    writer.offer(CaptureRow(**row, uncovered=True, time_ns=6))
    monkeypatch.delenv(name)
    report = desk.run()
    assert report.captures == 1  # it was known before
    (skipped,) = report.skipped
    assert name in str(skipped)


@pytest.mark.parametrize("kept", [True, False], ids=["copied", "moved"])
def test_a_folder_that_is_elsewhere_now_is_listed_once(
    kept, tmp_path, folder, database, captures, monkeypatch
):
    """The database keeps whole paths; the files themselves are not read again."""
    for moment in range(5):
        captures(moment)
    with Store.open(database) as store:
        collect([folder], store)
        before = store.captures("net")
        there = tmp_path / "there" / folder.name
        (shutil.copytree if kept else shutil.move)(folder, there)
        monkeypatch.setattr(_captures, "read_capture", None)
        collect([there], store)
        after = store.captures("net")
        listed = store.views.captures("net")

    assert before
    assert [replace(one, path=one.path.replace(str(folder), str(there))) for one in before] == list(
        after
    )
    assert len(listed) == len(before)
    assert all(Path(one.path).is_file() for one in after)


def test_two_folders_with_the_same_captures_list_each_once(tmp_path, folder, database, captures):
    captures(5)
    there = tmp_path / "there"
    shutil.copytree(folder, there)
    with Store.open(database) as store:
        for _ in range(3):
            assert collect([folder, there], store).skipped == ()
            assert len(store.captures("net")) == 2  # one in both stores
        captures(6)
        collect([folder, there], store)
        assert len(store.captures("net")) == 4


def test_captures_that_are_gone_leave_the_listing(folder, database, captures, desk):
    captures(5)
    desk.run()
    paths = list_captures(folder / "captures")
    paths[0].unlink()
    assert desk.run().captures == 1
    with Store.open(database) as store:
        assert [entry.path for entry in store.captures()] == [str(paths[1])]


def test_known_captures_are_not_opened_again(captures, desk, monkeypatch):
    captures(5)
    desk.run()
    monkeypatch.setattr(_captures, "read_capture", None)
    assert desk.run().captures == 2


def test_a_capture_that_vanishes_while_reading_is_no_fault(captures, desk, monkeypatch):
    captures(5)
    real = _captures.read_capture

    def vanishing(path):
        path.unlink()
        return real(path)

    monkeypatch.setattr(_captures, "read_capture", vanishing)
    report = desk.run()
    assert (report.captures, report.skipped) == (0, ())


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_state_directory_that_cannot_be_listed_is_named(tmp_path, database, kind):
    """A mistyped path must not look like a service without traffic."""
    folder = tmp_path / "state dir"
    if kind == "file":
        folder.write_text("", encoding="utf-8")
    with Store.open(database) as store:
        report = collect([folder], store)
    assert report.skipped[0].path == folder
    assert "cannot be listed" in report.skipped[0].reason
    assert "check state_dirs" in report.skipped[0].reason
