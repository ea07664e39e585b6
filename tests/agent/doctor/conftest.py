"""Examinations without a model, and modules of a user."""

import sys
from dataclasses import replace

import pytest

from calidrift_agent._doctor import Examination, Prescription
from calidrift_agent._vocabulary import Instrument, Strategy
from calidrift_agent._watch import AttachReport, CostEstimate, Reference, ReferenceUnits


@pytest.fixture
def found():
    """A service where all is well; keywords change the report, the prescription or the rest."""

    def make(**changes) -> Examination:
        report = AttachReport(
            model="doctor",
            points=("conv:input", "fc:input"),
            observed=("conv:input", "fc:input"),
            skipped={},
            strategy=Strategy.INSTEAD,
            instrument=Instrument.RANGE,
            reference=Reference.OBSERVED,
            active=True,
            sampling_ratio=1.0,
            observed_calls=20,
            state_file=None,
            notes=(),
            cost=CostEstimate(
                2, file_bytes=2**20, copy_bytes=4096, own_seconds=0.004, forward_seconds=0.002
            ),
            references=(ReferenceUnits(1, 4000), ReferenceUnits(1, 4000)),
        )
        examination = Examination(report, Prescription(traffic=50.0), False, {}, {})
        own = {key: changes.pop(key) for key in ("training", "errors", "dropped") if key in changes}
        asked = {key: changes.pop(key) for key in ("traffic", "budget") if key in changes}
        return replace(
            examination,
            report=replace(report, **changes),
            prescription=replace(examination.prescription, **asked),
            **own,
        )

    return make


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of the user into the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = []

    def write(text: str) -> str:
        name = f"user_module_{tmp_path.name}_{len(names)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)
