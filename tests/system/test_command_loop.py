"""The commands one after the other, as an operator types them, on a model of one's own.

Calibrate, serve, look, select, recalibrate, validate, promote, roll back: real user code in real
child processes, real INT8 kernels, one folder.
"""

import json
import sys
import textwrap

import pytest
import torch

from calidrift_agent import CaptureOptions, WatchOptions, open_version, request_context, watch
from calidrift_agent._command_line import run

CODE = """
import torch
from torch import nn

from calidrift_analyzer.recalibrate import Evaluation

torch.set_num_threads(1)
SEEDS = {"select": 100, "gate": 101, "report": 102}

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Linear(32, 16)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x))
        return self.last(x.mean((2, 3)))

def build():
    torch.manual_seed(0)
    return Network()

def images(count, seed, loudness):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator) * loudness

def example():
    return (images(4, 0, 0.3),)

def calibration():
    return [images(16, seed, 0.3) for seed in range(8)]

def evaluate(model, split):
    x = images(128, SEEDS[split], 2.0)
    expected = build().eval()(x).argmax(1)
    return Evaluation(correct=(model(x).argmax(1) == expected).numpy())
"""

CONFIG = """
[analyzer]
state_dirs = ["state"]

[models.loop]
factory = "loop_code:build"
example_inputs = "loop_code:example"
calibration = "loop_code:calibration"
evaluate = "loop_code:evaluate"
coverage_target = 0.5
max_accuracy_drop = 0.2
min_size_ratio = 3.0
select_budget = 8
"""


@pytest.fixture
def operator(tmp_path, capsys, monkeypatch):
    """Type a command in the folder of the model; give its status and its JSON document."""
    (tmp_path / "loop_code.py").write_text(textwrap.dedent(CODE), encoding="utf-8")
    (tmp_path / "calidrift.toml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    threads = torch.get_num_threads()

    def type_(*words):
        status = run([*words, "--json"])
        written = capsys.readouterr()
        return status, json.loads(written.out)

    yield type_
    torch.set_num_threads(threads)
    sys.modules.pop("loop_code", None)


def serve(folder):
    """Calm traffic, then loud traffic, under a watch that looks at every call."""
    import loop_code

    model = loop_code.build().eval()
    watched = watch(
        model,
        name="loop",
        profile=folder / "loop.profile.json",
        state_dir=folder / "state",
        sample_rate=1.0,
        capture=CaptureOptions(seed=0),
        options=WatchOptions(budget=1.0, seed=0),
    )
    with watched, torch.no_grad():
        for number in range(240):
            loud = number >= 40
            with request_context(segment="loud" if loud else "calm"):
                model(loop_code.images(4, 1000 + number, 2.0 if loud else 0.3))


@pytest.mark.slow
def test_the_loop_from_calibration_to_rollback(operator, tmp_path):
    assert operator("calibrate")[0] == 0
    serve(tmp_path)

    status, seen = operator("status")
    assert (status, seen["models"][0]["verdict"]) == (0, "drifted_harmful")
    status, coverage = operator("coverage")
    assert status == 0
    assert coverage["models"]

    status, selection = operator("select")
    assert status == 0
    assert selection["selected_by"] == {"loud": 8}

    status, made = operator("recalibrate", "--estimator", "mse", "--estimator", "absmax")
    assert status == 0, made
    assert {one["id"] for one in made["candidates"]} == {
        "samples-mse",
        "samples-absmax",
        "sketch-mse",
        "sketch-absmax",
    }

    status, report = operator("validate")
    assert (status, report["passed"]) == (0, True), report

    registry = tmp_path / "registry"
    promoted = []
    for _ in range(2):
        status, document = operator("promote")
        assert status == 0, document
        promoted.append(open_version(registry, "loop").id)
    status, document = operator("rollback")
    assert status == 0, document
    assert open_version(registry, "loop").id == promoted[0] != promoted[1]


def test_each_step_names_the_one_that_is_missing(operator):
    for command, told in (
        ("status", "no data"),
        ("select", "nothing was recorded about model 'loop'"),
        ("validate", "run `calidrift recalibrate loop`"),
        ("promote", "run `calidrift validate loop`"),
        ("rollback", "no version of loop was promoted"),
    ):
        status, document = operator(command)
        text = json.dumps(document).replace("_", " ")
        assert (status, told in text) == (0 if command == "status" else 2, True), document
