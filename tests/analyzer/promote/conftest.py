"""A candidate and its report, made by hand: no model has to be trained or compiled."""

import dataclasses
import hashlib

import numpy as np
import pytest

from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import (
    Candidate,
    Gate,
    GateName,
    HeldOutCoverage,
    KernelReport,
    LayerKernels,
    LayerKind,
    Sizes,
    Source,
    ValidationReport,
)


def gate(passed=True):
    return Gate(GateName.SIZE, passed, 3.95 if passed else 1.0, 3.9, "the size is what it is")


@pytest.fixture
def make_candidate(tmp_path, traffic):
    def make(text="model one", name="samples-mse"):
        path = tmp_path / "candidates" / hashlib.sha256(text.encode()).hexdigest()[:8]
        path.mkdir(parents=True)
        (path / "model.pt2").write_bytes(text.encode() * 1000)
        rng = np.random.default_rng(1)
        traffic.profile({"a:input": rng.normal(size=(8, 16))}).save(path / "profile.json")
        return Candidate(
            id=name,
            model="net",
            source=Source.SAMPLES,
            estimator=Estimator.MSE,
            path=path,
            units=8,
            layers=("a",),
            worst_point="a:input",
            worst_sqnr_db=40.0,
            files={
                file: hashlib.sha256((path / file).read_bytes()).hexdigest()
                for file in ("model.pt2", "profile.json")
            },
        )

    return make


@pytest.fixture
def candidate(make_candidate):
    return make_candidate()


@pytest.fixture
def report_on():
    def make(candidate, *, passed=True, **changes):
        report = ValidationReport(
            model="net",
            created="2030-01-01T00:00:00+00:00",
            candidate=candidate,
            scores=(),
            labelled=False,
            gates=(gate(passed),),
            accuracy=None,
            agreement=1.0,
            sqnr_db=40.0,
            bulk_sqnr_db=40.0,
            parity_db=80.0,
            sizes=Sizes(1000, 3950, 2000, 5000),
            kernels=KernelReport((LayerKernels("a", LayerKind.LINEAR, 1, 1),), in_code=1),
            coverage=HeldOutCoverage(100, 100, 1.0, 0.97, "", 100),
            latency=None,
            seconds=1.0,
        )
        return dataclasses.replace(report, **changes)

    return make
