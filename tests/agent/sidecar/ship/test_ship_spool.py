"""What waits while the analyzer is away: in the ring, in the spool, in the state files."""

from __future__ import annotations

import errno
import os

import pytest

from calidrift_agent._sidecar._ship_figures import PushFailure
from calidrift_agent._vocabulary import WindowFlag


def test_an_outage_waits_in_the_ring_then_in_the_spool(site, process):
    one = process()
    one.close_windows(1)
    site.look()
    site.analyzer.down = True
    one.close_windows(1)
    site.look()
    assert not site.spool.processes(), "one window may wait in the ring"
    for _ in range(10):
        one.close_windows(2)
        site.look()
    assert site.spool.processes() == {one.meta.process}
    assert site.figures.spool_bytes == site.spool.size_bytes > 0
    site.analyzer.down = False
    site.restart()
    site.look_until_done()
    site.check(one)
    kept = site.analyzer.windows[one.meta.process]
    assert [window.number for window in kept] == list(range(22)), "each window, none coarse"
    assert site.figures.spool_bytes == 0


def test_a_dead_process_is_in_the_spool_before_its_file_goes(site, process):
    one = process()
    one.close_windows(6)
    one.die(open_requests=5)
    site.analyzer.down = True
    error = site.look()
    assert error.kind is PushFailure.UNAVAILABLE
    assert error.retry_seconds == 7.0
    assert site.round.secured == {one.meta.process}
    site.sweep_secured()
    assert not list(site.folder.glob("*.state"))
    site.restart()
    site.analyzer.down = False
    site.look_until_done()
    assert site.analyzer.has_all_of(one.meta, one.last)
    assert site.figures.lost == 0
    assert not site.spool.processes()
    site.look()
    assert site.ledger.processes() == ()


def test_a_full_spool_keeps_counts_and_gives_up_windows(site, process):
    one = process()
    one.close_windows(3)
    site.look()
    site.analyzer.down = True
    site.spool_bytes = 12_000
    site.restart()
    for _ in range(30):
        one.close_windows(2)
        site.look()
        assert site.figures.spool_bytes <= 12_000
    site.analyzer.down = False
    site.look_until_done()
    site.check(one)
    kept = site.analyzer.windows[one.meta.process]
    assert sum(bool(window.flags & WindowFlag.COARSE) for window in kept) == 1
    assert 4 < len(kept) < 60, "the newest are still windows of their own"


def test_without_any_room_the_loss_of_a_swept_process_is_counted(site, process):
    one = process()
    one.close_windows(3)
    site.analyzer.down = True
    site.spool_bytes = 10
    site.restart()
    one.die()
    site.look()
    assert site.round.secured == frozenset(), "its file is the only place"
    assert site.figures.lost == 0
    next(site.folder.glob("*.state")).unlink()
    site.look()
    assert site.figures.lost == 3


def test_a_full_disk_leaves_windows_in_the_state_files(site, process, monkeypatch, caplog):
    one = process()
    site.analyzer.down = True

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("calidrift_agent._sidecar._ship_spool.replace_file", full)
        patched.setattr("calidrift_agent._sidecar._ship_ledger.replace_file", full)
        for _ in range(4):
            one.close_windows(2)
            site.look()
    assert site.figures.failures[PushFailure.SPOOL] > 0
    assert sum("No space left" in record.message for record in caplog.records) == 1
    assert not site.spool.processes()
    site.analyzer.down = False
    site.look_until_done()
    site.check(one)


@pytest.mark.parametrize(
    "spoilt", [b"", b"{", b"[]", b'{"version":1,"url":3}'], ids=["empty", "half", "list", "other"]
)
def test_a_spoilt_ledger_does_no_harm(site, process, spoilt):
    one = process()
    one.close_windows(7)
    site.look()
    (site.folder / ".push" / "ledger.json").write_bytes(spoilt)
    site.restart()
    one.close_windows(6)
    site.look()
    site.check(one)


def test_spoilt_files_in_the_spool_are_named_and_counted(site, process, caplog):
    one = process()
    site.analyzer.down = True
    one.close_windows(3)
    one.die()
    site.look()
    site.sweep_secured()
    for path in (site.folder / ".push").glob("*.push"):
        path.write_bytes(b"spoilt")
    (site.folder / ".push" / ".x.push.tmp").write_bytes(b"half")
    (site.folder / ".push" / "abc.push").write_bytes(b"of somebody else")
    site.restart()
    assert not (site.folder / ".push" / ".x.push.tmp").exists()
    site.analyzer.down = False
    site.look()
    assert not site.spool.processes()
    assert site.figures.lost >= 3
    assert "no push of version 1" in caplog.text or "at least" in caplog.text


@pytest.mark.parametrize("has_file", [True, False], ids=["file", "swept"])
def test_a_hole_in_the_spool(site, process, has_file):
    one = process()
    site.analyzer.down = True
    for _ in range(3):
        one.close_windows(2)
        site.look()
    if not has_file:
        one.die()
        site.look()
        site.sweep_secured()
        next((site.folder / ".push").glob("*.total-5.push")).unlink()
    next((site.folder / ".push").glob("*.0-1.push")).unlink()
    site.restart()
    site.analyzer.down = False
    site.look_until_done()
    if has_file:
        site.check(one)  # its sum fills the hole
    else:
        assert site.figures.lost == 2
        assert [one.number for one in site.analyzer.windows[one.meta.process]] == [2, 3, 4, 5]


@pytest.mark.parametrize("place", [1, 2, 3], ids=["windows", "sums", "sum"])
def test_what_is_refused_out_of_the_spool_is_counted(site, process, place):
    one = process()
    site.analyzer.down = True
    one.close_windows(2)
    site.look()
    one.close_windows(9)
    site.look()
    one.die()
    site.look()
    site.sweep_secured()
    site.restart()
    site.analyzer.down = False
    site.analyzer.plan = [200] * place + [422]
    site.look_until_done()
    assert site.figures.failures[PushFailure.REFUSED] == 1
    assert site.figures.lost > 0
    assert not site.spool.processes()
