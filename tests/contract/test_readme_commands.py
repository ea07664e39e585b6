"""The commands that README.md lists beside an alarm: each one runs as it stands there."""

import io
import json
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._command_line import run
from calidrift_analyzer.offline import _job, _offline

README = Path(__file__).resolve().parents[2] / "README.md"
HEADING = "Before, beside and after an alarm"
CONFIG = """
[models.resnet]
factory = "readme_shop:build"
example_inputs = "readme_shop:examples"
calibration = "readme_shop:calibration"
evaluate = "readme_shop:evaluate"
"""
CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 2))

def examples():
    return (torch.zeros(2, 4),)

def calibration():
    yield torch.randn(300, 4, generator=torch.Generator().manual_seed(0))

def evaluate(model, split):
    raise RuntimeError("nobody asks for this")
"""


def section() -> str:
    parts = re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in parts if part.startswith(f"{HEADING}\n")]
    return found


def lines() -> list[list[str]]:
    (block,) = re.findall(r"^```console\n(.*?)^```", section(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in block.splitlines()]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model, its profile and recorded inputs; the child's job runs here."""
    (tmp_path / "calidrift.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "readme_shop.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "recorded" / "day").mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "recorded" / "day" / "a.npy", rng.normal(size=(64, 4)))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    calibrate(model, [torch.randn(300, 4)]).save(tmp_path / "resnet.profile.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run_here(job, request, *, progress=None):
        with redirect_stdout(io.StringIO()):
            return json.loads(json.dumps(_job.run(request, progress)))

    monkeypatch.setattr(_offline, "run_in_child", run_here)
    yield tmp_path
    sys.modules.pop("readme_shop", None)


def test_they_run_one_after_the_other(place, capsys):
    typed = lines()
    assert len(typed) == 7
    said = []
    for words in typed:
        assert words[0] == "calidrift"
        assert run(words[1:]) == 0, words
        said.append(" ".join(capsys.readouterr().out.split()))
    ahead, offline, marked, muted, listed, unmuted, marks = said
    assert "the calibration set suffices" in ahead
    assert "worst segment: day" in offline
    assert marked.startswith("resnet: marked")
    assert "layer4.* is muted until" in muted
    assert "new camera, retraining is planned" in listed
    assert "layer4.* is no longer muted" in unmuted
    assert "deployed preprocessing 2.3" in marks


def test_what_is_promised_beside_them_is_what_options_are_called():
    for word in ("--inputs", "--before-quantization", ".safetensors", ".npz", ".npy"):
        assert word in section()
