"""Arguments of a wrong kind: one clear sentence, whatever they are."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from calidrift_agent import CaptureOptions, WatchOptions, watch
from calidrift_agent.errors import CalidriftError, ConfigurationError, ProfileError


class Unshowable:
    """Has no text, and no path."""

    def __repr__(self):
        raise RuntimeError

    def __fspath__(self):
        raise RuntimeError


class Endless:
    """Has a very long text."""

    def __repr__(self):
        return "x" * 10_000


def refuse(model, name_of_argument, **given):
    """The sentence with which `watch` refuses; nothing was attached."""
    with pytest.raises(CalidriftError, match=name_of_argument) as caught:
        watch(model, **{"name": "net", **given})
    assert isinstance(caught.value, TypeError | ValueError)
    assert "forward" not in model.__dict__
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize("disabled", [False, True], ids=["on", "off"])
@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("options", {}, "WatchOptions"),
        ("options", {"budget": None}, "WatchOptions"),
        ("options", WatchOptions, "WatchOptions"),
        ("options", CaptureOptions(), "WatchOptions"),
        ("capture", True, "CaptureOptions"),
        ("capture", False, "CaptureOptions"),
        ("capture", "yes", "CaptureOptions"),
        ("sample_rate", "a", "from 0 to 1"),
        ("sample_rate", None, "from 0 to 1"),
        ("sample_rate", True, "from 0 to 1"),
        ("sample_rate", math.nan, "from 0 to 1"),
        ("sample_rate", -0.1, "from 0 to 1"),
        ("sample_rate", 1.1, "from 0 to 1"),
        ("sample_rate", 1j, "from 0 to 1"),
        ("sample_rate", [0.1], "from 0 to 1"),
        ("profile", 3, "CalibrationProfile"),
        ("profile", b"profile.json", "CalibrationProfile"),
        ("profile", "", "CalibrationProfile"),
        ("profile", Unshowable(), "CalibrationProfile"),
        ("profile", Endless(), "CalibrationProfile"),
        ("state_dir", 5, "path of a folder"),
        ("state_dir", b"/run", "path of a folder"),
        ("state_dir", "", "path of a folder"),
        ("state_dir", "a\0b", "path of a folder"),
        ("state_dir", ["/run"], "path of a folder"),
        ("reference", 3, r"torch\.nn\.Module"),
        ("reference", torch.relu, r"torch\.nn\.Module"),
        ("name", "", "printable"),
        ("name", "  ", "printable"),
        ("name", None, "printable"),
        ("name", 7, "printable"),
        ("name", "a\nb", "printable"),
        ("name", "a\0b", "printable"),
        ("name", "\ud800", "printable"),
        ("name", "x" * 300, "256"),
    ],
)
def test_arguments_of_a_wrong_kind(net, monkeypatch, argument, value, allowed, disabled):
    if disabled:
        monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    text = refuse(net, allowed, **{argument: value})
    assert text.startswith(argument)


@pytest.mark.parametrize("kind", ["missing", "folder", "text"])
def test_profiles_that_are_none(net, tmp_path, kind):
    path = tmp_path / "profile.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    with pytest.raises(ProfileError, match=r"profile\.json") as caught:
        watch(net, name="net", profile=path)
    assert "give " in str(caught.value) or "restore " in str(caught.value)
    assert "forward" not in net.__dict__


def test_a_state_dir_that_is_a_file(net, tmp_path):
    path = tmp_path / "state"
    path.write_text("")
    with pytest.raises(ConfigurationError, match="must be a folder"):
        watch(net, name="net", state_dir=path)
    assert "forward" not in net.__dict__


@pytest.mark.parametrize(
    "given",
    [
        {"budget": "1 %"},
        {"budget": True},
        {"budget": 0},
        {"budget": math.nan},
        {"window_seconds": "10"},
        {"window_seconds": None},
        {"window_seconds": math.inf},
        {"drain_seconds": "1"},
        {"drain_seconds": True},
        {"seed": -1},
        {"seed": 0.5},
        {"seed": np.int64(3)},
        {"seed": "x"},
        {"outputs": 1},
        {"outputs": "yes"},
        {"inputs": "image"},
        {"inputs": 5},
        {"inputs": (3,)},
        {"retention_seconds": "1h"},
        {"retention_seconds": -1},
        {"retention_seconds": math.nan},
        {"steps_per_request": 1.0},
        {"steps_per_request": True},
        {"steps_per_request": 63},
        {"steps_per_request": "16"},
        {"key_salt": b"salt"},
        {"key_salt": "x" * 65},
        {"key_salt": "\ud800"},
    ],
    ids=lambda given: "-".join(f"{key}-{value!r}" for key, value in given.items()),
)
def test_watch_options_of_a_wrong_kind(given):
    with pytest.raises(ConfigurationError, match=f"^{next(iter(given))} ") as caught:
        WatchOptions(**given)
    assert "must be" in str(caught.value) or " is a share " in str(caught.value)


def test_numbers_of_other_kinds_are_taken(net, x, tmp_path):
    options = WatchOptions(budget=1, window_seconds=10, seed=3, inputs=None)
    with watch(
        net, name=" net 1 ", sample_rate=np.float32(1.0), state_dir=Path(tmp_path), options=options
    ) as one:
        with torch.no_grad():
            net(x)
        assert one.report().observed_calls == 1
