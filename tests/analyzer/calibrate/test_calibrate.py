"""The stage: the job in this process, and what a silent point looks like."""

import sys

import torch
from torch import nn

from calidrift_agent import CalibrationProfile
from calidrift_analyzer.calibrate import Calibrated, _job
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.records import record_document


class Detour(nn.Module):
    """A model with a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 2)
        self.unused = nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)


def build():
    return Detour()


def example():
    return (torch.zeros(1, 3),)


def calibration():
    return [torch.full((4, 3), float(value)) for value in (1, 2, 3)]


def evaluate(model, split):
    raise AssertionError("calibration does not evaluate")


def test_the_job_saves_a_profile_and_reports_every_batch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "detour_code", sys.modules[__name__])
    contract = ModelContract(
        name="detour",
        root=tmp_path,
        factory="detour_code:build",
        example_inputs="detour_code:example",
        calibration="detour_code:calibration",
        evaluate="detour_code:evaluate",
        registry=tmp_path / "registry",
    )
    monkeypatch.setattr("sys.path", list(sys.path))
    steps = []
    target = tmp_path / "deep/er/profile.json"

    answer = _job.run(
        {"contract": record_document(contract), "target": str(target), "rank": 1},
        lambda *step: steps.append(step),
    )

    saved = Calibrated(path=target, profile=CalibrationProfile.load(target))
    assert answer == {"digest": saved.profile.digest}
    assert steps == [("calibrating", 1, 0), ("calibrating", 2, 0), ("calibrating", 3, 0)]
    assert saved.profile.points["used:input"].observed_bound.value == 3.0
    assert saved.unobserved == ("unused:input",)
