"""Captures that the analyzer asks for: those, only those, and only where they may leave."""

from __future__ import annotations

import pytest

from calidrift_agent._command_line import run
from calidrift_agent._sidecar import _ship_requested
from calidrift_agent._sidecar._ship_client import _names
from calidrift_agent._sidecar._ship_figures import PushFailure


@pytest.fixture
def captured(site, process):
    """A process with two captures beside it; gives it and their bytes by name."""
    one = process()
    one.close_windows(1)
    folder = site.folder / "captures" / one.meta.process
    folder.mkdir(parents=True)
    blobs = {name: name.encode() * 100 for name in ("a.safetensors", "b c.safetensors.fernet")}
    for name, blob in blobs.items():
        (folder / name).write_bytes(blob)
    return one, blobs


def files(site, one):
    return {
        name: sent for (process, name), sent in site.analyzer.files.items()
        if process == one.meta.process
    }  # fmt: skip


def counted(site):
    """Captures and bytes as `/metrics` shows them."""
    shown = {
        sample.name: sample.value
        for family in site.figures.families()
        for sample in family.samples
        if not sample.labels
    }
    return tuple(
        shown[f"calidrift_agent_pushed_{what}_total"] for what in ("captures", "capture_bytes")
    )


def test_what_is_asked_for_is_sent_and_nothing_else(site, captured):
    one, blobs = captured
    site.analyzer.wanted = ["b c.safetensors.fernet"]
    assert site.look() is None
    sent = files(site, one)
    assert set(sent) == {"b c.safetensors.fernet"}
    assert set(sent["b c.safetensors.fernet"]) == {blobs["b c.safetensors.fernet"]}
    taken = len(sent["b c.safetensors.fernet"])
    assert counted(site) == (taken, taken * len(blobs["b c.safetensors.fernet"]))
    site.check(one)
    site.analyzer.wanted = []
    count = len(sent["b c.safetensors.fernet"])
    one.close_windows(2)
    site.look()
    assert len(files(site, one)["b c.safetensors.fernet"]) == count, "it is not asked for any more"


def test_nothing_is_sent_where_captures_may_not_leave(site, captured):
    one, _ = captured
    site.captures = False
    site.restart()
    site.analyzer.wanted = ["a.safetensors"]
    assert site.look() is None
    assert not site.analyzer.files
    assert counted(site) == (0, 0)
    site.check(one)


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/passwd", "", ".", "gone.safetensors", "a", "x/../a.safetensors"],
)
def test_no_other_file_can_be_asked_for(site, captured, name):
    one, _ = captured
    (site.folder / "captures" / "a.safetensors").write_bytes(b"of nobody")
    site.analyzer.wanted = [name]
    assert site.look() is None
    assert not site.analyzer.files
    site.check(one)


def test_what_fails_is_sent_again_and_windows_do_not_wait(site, captured):
    one, blobs = captured
    site.analyzer.wanted = sorted(blobs)
    site.analyzer.plan = [200, 200, 503]
    first = site.look()
    assert first is not None
    assert first.kind is PushFailure.UNAVAILABLE
    assert site.analyzer.has_all_of(one.meta, one.total()), "windows come first"
    site.look_until_done()
    assert set(files(site, one)) == set(blobs)
    site.check(one)


def test_what_is_refused_is_not_sent_again(site, captured, caplog):
    one, _ = captured
    site.analyzer.wanted = ["a.safetensors"]
    site.analyzer.plan = [200, 200, 400]
    for _ in range(3):
        assert site.look() is None
        one.close_windows(1)
    assert not site.analyzer.files
    assert caplog.text.count("will not take it") == 1
    assert counted(site) == (0, 0)
    site.look_until_done()
    site.check(one)


def test_a_capture_that_is_too_large_stays(site, captured, monkeypatch):
    one, _ = captured
    monkeypatch.setattr(_ship_requested, "MOST_CAPTURE_BYTES", 10)
    site.analyzer.wanted = ["a.safetensors"]
    assert site.look() is None
    assert not site.analyzer.files
    site.check(one)


def test_whatever_an_answer_asks_for_is_a_few_names():
    assert _names(None) == _names({"a": 1}) == _names("abc") == ()
    assert _names(["a", 1, None, "b"]) == ("a", "b")
    assert len(_names(["a"] * 1_000)) == 64


def test_the_command_needs_an_analyzer_to_send_them_to(tmp_path, capsys):
    assert run(["sidecar", "--state-dir", str(tmp_path), "--push-captures"]) == 2
    assert "--push-captures needs --push URL" in capsys.readouterr().err
