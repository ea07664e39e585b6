"""What is told besides windows, the thread that pushes, and the sweep beside it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from calidrift_agent._capture import CaptureRow, CaptureWriter
from calidrift_agent._command_line import run
from calidrift_agent._export import CATALOGUE, Emitter
from calidrift_agent._sidecar import ShipOptions
from calidrift_agent._sidecar._ship import Backoff, Shipper
from calidrift_agent._sidecar._ship_delivery import MOST_ROWS
from calidrift_agent._sidecar._ship_figures import PushFailure, ShipFigures
from calidrift_agent._state import (
    PointMeta,
    SweepOptions,
    sweep,
)


def test_captures_are_told_without_their_tensors(site, process):
    one = process()
    one.close_windows(1)
    writer = CaptureWriter(
        site.folder / "captures" / one.meta.process, "net", "", ("conv:input", "fc:input")
    )
    row = {"x": np.full((1, 3), 77.0, np.float32)}
    for segment in ("night", ""):
        writer.offer(
            CaptureRow(row, np.ones(2, np.float32), uncovered=True, time_ns=5, segment=segment)
        )
    try:
        site.look()
        told = site.analyzer.captures[one.meta.process]
        names = {path.name for path in site.folder.glob("captures/*/*.safetensors")}
        assert {capture.name for capture in told} == names
        assert {capture.segment for capture in told} == {"night", None}
        asked = site.analyzer.asked
        site.look()
        assert site.analyzer.asked == asked, "nothing new: nothing is told"
        next(site.folder.glob("captures/*/*.safetensors")).unlink()
        site.look()
        assert len(site.analyzer.captures[one.meta.process]) == len(names) - 1
    finally:
        writer.release()


def test_a_profile_goes_along_where_it_is_not_known(site, process, worker):
    digest = "ab12" * 16
    one = process(profile=digest)
    one.close_windows(1)
    site.look()
    assert site.analyzer.profiles == {}, "it is not here"
    (site.folder / "profiles").mkdir()
    (site.folder / "profiles" / f"{digest}.json").write_text("{}")
    two = process(profile=digest)
    two.close_windows(1)
    site.look()
    assert site.analyzer.profiles == {digest: "{}"}
    site.check(one, two)


def test_a_profile_is_named_by_hexadecimal_digits_alone(site, process):
    (site.folder / "secret.json").write_text("{}")
    one = process(profile="../secret")
    one.close_windows(1)
    site.look()
    assert site.analyzer.profiles == {}


def test_figures_are_those_of_the_catalogue(site, process):
    names = {family.name for family in site.figures.families()}
    assert "calidrift_agent_push_age_seconds" not in names, "not yet: no figure, not 0"
    process().close_windows(2)
    site.look()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in site.figures.families()
        for sample in family.samples
    }
    assert found["calidrift_agent_pushed_windows_total",] == 2
    assert found["calidrift_agent_push_failures_total", "refused"] == 0
    assert 0 <= found["calidrift_agent_push_age_seconds",] < 30
    known = {entry.name for entry in CATALOGUE if entry.emitter is Emitter.SIDECAR}
    assert {name for name, *_ in found} <= known


def test_a_sweep_waits_for_a_look_and_spares_what_is_needed(site, process, analyzer, tmp_path):
    one = process()
    one.close_windows(2)
    one.die()
    options = ShipOptions(analyzer.url, interval_seconds=3_600.0)
    shipper = Shipper(options, (tmp_path,), site.figures)
    shipper.start()
    try:
        needed = shipper.needed(30.0)
        assert needed is not None
        assert not needed(one.meta.process)
        assert needed("another")
        assert analyzer.has_all_of(one.meta, one.total())
    finally:
        shipper.stop(30.0)
    assert not shipper._thread.is_alive()


def test_a_sweep_of_what_is_needed_takes_it_last(tmp_path, process):
    one, other = process(), process()
    for each in (one, other):
        each.close_windows(1)
        each.die()
    size = max(path.stat().st_size for path in tmp_path.glob("*.state"))
    options = SweepOptions(retention_seconds=10**6, dead_bytes=size)
    report = sweep(tmp_path, options, needed=lambda name: name == one.meta.process)
    assert report.merged == 1
    [left] = tmp_path.glob("*.state")
    assert left.name.startswith(one.meta.process)


def test_an_outage_ends_and_the_last_push_comes_at_the_end(site, process, analyzer, tmp_path):
    one = process()
    one.close_windows(1)
    analyzer.plan = ["reset", "reset"]
    options = ShipOptions(analyzer.url, interval_seconds=0.1, timeout_seconds=20.0)
    quick = Backoff(lambda low, high: 0.01)
    shipper = Shipper(options, (tmp_path,), site.figures, quick)
    shipper.start()
    until = time.monotonic() + 30.0
    while not analyzer.has_all_of(one.meta, one.total()) and time.monotonic() < until:
        time.sleep(0.01)
    one.close_windows(1)
    shipper.stop(30.0)
    assert not shipper._thread.is_alive()
    assert analyzer.has_all_of(one.meta, one.total())
    assert site.figures.failures[PushFailure.UNREACHABLE] == 2


def test_bodies_stay_small_whatever_has_piled_up(site, process):
    """Of many points few windows go into one body, and of the spool one file is read at a time."""
    points = tuple(PointMeta(f"layer{number}:input") for number in range(400))
    one = process(points=points)
    site.analyzer.down = True
    for _ in range(3):
        one.close_windows(2)
        site.look()
    site.analyzer.down = False
    site.look_until_done()
    site.check(one)
    assert max(count * len(points) for count, _ in site.analyzer.bodies) <= MOST_ROWS


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--push-token-file", "t"], "--push-token-file needs --push URL"),
        (["--push-spool-bytes", "5"], "--push-spool-bytes needs --push URL"),
        (["--push", "analyzer"], "must be http://HOST:PORT"),
        (["--push", "http://a", "--push-token-file", "/nowhere"], "cannot be read"),
        (["--push", "http://a", "--once"], "leave --push away"),
    ],
    ids=["token", "bytes", "url", "file", "once"],
)
def test_a_command_that_cannot_be_is_one_sentence(tmp_path, capsys, words, told):
    assert run(["sidecar", "--port", "0", "--state-dir", str(tmp_path), *words]) == 2
    assert told in capsys.readouterr().err


def test_a_token_over_plain_http_to_elsewhere_is_warned_of(tmp_path, caplog):
    (tmp_path / "token").write_text("word")
    for host, warned in (("127.0.0.1", 0), ("analyzer", 1)):
        options = ShipOptions(f"http://{host}:1", token_file=tmp_path / "token")
        Shipper(options, (tmp_path,), ShipFigures())
        assert caplog.text.count("unencrypted") == warned
