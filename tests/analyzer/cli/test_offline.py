"""`calidrift coverage --inputs`, as it is typed."""

import io
import json
import re
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_analyzer.offline import _job, _offline


@pytest.fixture
def recorded(shop, monkeypatch):
    """Recorded inputs in the shop; the child's job runs in this process."""
    folder = shop.root / "recorded"
    (folder / "night").mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(folder / "a.npy", rng.normal(size=(64, 4)).astype(np.float32))
    np.save(folder / "night" / "b.npy", 4 * rng.normal(size=(32, 4)))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(job, request, *, progress=None):
        with redirect_stdout(io.StringIO()):  # as the child does with what user code prints
            answer = _job.run(json.loads(json.dumps(request)), progress)
        return json.loads(json.dumps(answer))

    monkeypatch.setattr(_offline, "run_in_child", run)
    yield shop
    sys.modules.pop("shop_code", None)


def offline(shop, *words, inputs="recorded"):
    return shop.run("coverage", "--inputs", str(shop.root / inputs), *words)


def test_before_quantization_in_words(recorded):
    status, out, err = offline(recorded, "--before-quantization", "--segment-by", "folder")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("recorded inputs: 2 files of")
    assert "each row one unit, through the FP32 model" in lines[0]
    assert lines[0].endswith("nothing of this is stored")
    assert lines[1].startswith("drifted_harmful: ")
    assert "of 96 observed units stayed inside" in lines[2]
    assert "worst segment: night" in out
    assert "evidence" in out
    assert "alarm where evidence reaches 10^1.6" in out
    assert "night/b.npy" in out
    for estimator in ("absmax", "percentile", "mse", "kl"):
        assert estimator in out
    assert "the calibration set does NOT suffice for these inputs" in lines[-1]


def test_a_calibration_set_that_suffices(recorded):
    status, out, _ = offline(recorded, "--before-quantization", inputs="recorded/a.npy")
    assert status == 0
    assert "the calibration set suffices for these inputs: 0 of 64 rows leave" in out
    assert "rows outside" not in out


def test_a_loss_that_is_not_by_more_clipping_is_told(recorded):
    """The conclusion says what the table above it shows."""
    rng = np.random.default_rng(1)
    np.save(recorded.root / "weak.npy", 0.05 * rng.normal(size=(64, 4)))
    status, out, _ = offline(recorded, "--before-quantization", inputs="weak.npy")
    assert status == 0
    conclusion = out.splitlines()[-1]
    assert "0 of 64 rows leave its bounds on |x|" in conclusion
    assert "lose less than 1 dB" not in conclusion
    said = re.search(r"predicted SQNR falls by ([\d.]+) to ([\d.]+) dB, most at \S+:", conclusion)
    document = recorded.json(
        "coverage", "--inputs", str(recorded.root / "weak.npy"), "--before-quantization"
    )[1]
    changes = [-one["change_db"] for one in document["estimates"] if one["change_db"] <= -1.0]
    assert [float(one) for one in said.groups()] == pytest.approx(
        [min(changes), max(changes)], abs=0.051
    )
    assert all(one["falling"] and not one["losing"] for one in document["estimators"])


def test_nan_does_not_suffice_whatever_is_predicted(recorded):
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    rows[:16, 0] = np.nan
    np.save(recorded.root / "nan.npy", rows)
    status, out, _ = offline(recorded, "--before-quantization", inputs="nan.npy")
    assert status == 0
    assert "drifted_harmful" in out
    assert "does NOT suffice" in out
    assert "find out where these come from before you quantize" in out
    np.save(recorded.root / "few.npy", np.concatenate([rows[:1], rows[16:]]))
    _, out, _ = offline(recorded, "--before-quantization", inputs="few.npy")
    assert "with NaN or Inf at " in out


def test_one_json_document_and_nothing_stored(recorded):
    before = sorted(recorded.root.rglob("*"))
    inputs = str(recorded.root / "recorded")
    status, document = recorded.json("coverage", "--inputs", inputs, "--before-quantization")
    assert status == 0
    assert document["stored"] is False
    assert document["suffices"] is False
    assert document["inputs"] == inputs
    assert document["models"][0]["units"] == 96
    assert {one["estimator"] for one in document["estimators"]} == {
        "absmax",
        "percentile",
        "mse",
        "kl",
    }
    assert len(document["estimates"]) == 8
    assert document["outside"][0]["source"] == "night/b.npy"
    left = [one for one in sorted(recorded.root.rglob("*")) if "__pycache__" not in one.parts]
    assert left == before, "not even a database"


def test_with_the_profile_that_calibrate_saved_or_a_given_one(recorded):
    saved = recorded.root / "shop.profile.json"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    calibrate(model, [torch.randn(300, 4)]).save(saved)
    status, out, _ = offline(recorded)
    assert status == 0
    assert "compared with shop.profile.json, which `calidrift calibrate` saved" in out
    assert "estimator" not in out
    moved = saved.rename(recorded.root / "other.json")
    status, out, _ = offline(recorded, "--profile", str(moved))
    assert status == 0
    assert f"compared with {moved}" in out


@pytest.mark.parametrize(
    ("words", "inputs", "told"),
    [
        ((), "recorded", "no version in service"),
        (("--before-quantization",), "missing", "does not exist"),
        (("--before-quantization",), "empty", "holds no recorded inputs"),
        (("--before-quantization",), "shop_code.py", "is of another kind"),
        (("--before-quantization",), "broken.npy", "broken.npy cannot be read"),
        (("--before-quantization",), "named.npz", "named.npz holds the inputs picture, but"),
        (("--before-quantization",), "shape.npy", "the model raised RuntimeError"),
        (("--before-quantization",), "dims.npy", "but the model takes 2 dimensions"),
        (("--before-quantization", "--profile", "x"), "recorded", "leave one of them out"),
        (("--profile", "nowhere.json"), "recorded", "nowhere.json"),
        (("--segment-by", "colour"), "recorded", "colour"),
        (("nett", "--before-quantization"), "recorded", "nett"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "nothing",
)
def test_bad_input_is_one_sentence(recorded, words, inputs, told):
    (recorded.root / "empty").mkdir()
    (recorded.root / "broken.npy").write_bytes(b"no array")
    np.savez(recorded.root / "named.npz", picture=np.ones((2, 4)))
    np.save(recorded.root / "shape.npy", np.ones((2, 5)))
    np.save(recorded.root / "dims.npy", np.ones((2, 4, 4)))
    status, out, err = offline(recorded, *words, inputs=inputs)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("--before-quantization",), ("--segment-by", "folder")])
def test_what_is_about_inputs_needs_inputs(shop, words):
    status, _, err = shop.run("coverage", *words)
    assert status == 2
    assert f"{words[0]} is about recorded inputs" in err


def test_without_a_declared_model(recorded):
    recorded.configure("")
    status, out, err = offline(recorded, "--before-quantization")
    assert (status, out) == (2, "")
    assert "model" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_user_code_runs_in_a_child_only(shop):
    """Nothing of it is replaced: what user code prints and imports stays in the child."""
    np.save(shop.root / "a.npy", np.random.default_rng(0).normal(size=(64, 4)).astype("f4"))
    status, out, err = offline(shop, "--before-quantization", inputs="a.npy")
    assert (status, err) == (0, "")
    assert "user code talks" not in out
    assert "the calibration set suffices" in out
    assert "shop_code" not in sys.modules
