"""A small served model with everything a cycle needs, and stages that do not start children."""

import dataclasses
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch import nn

from calidrift_agent import CaptureOptions, WatchOptions, calibrate, request_context, watch
from calidrift_analyzer.config import AnalyzerConfig, ModelContract
from calidrift_analyzer.cycle import _cycle
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import (
    Candidate,
    Gate,
    GateName,
    HeldOutCoverage,
    KernelReport,
    LayerKernels,
    LayerKind,
    PromotedVersion,
    Sizes,
    Source,
    ValidationReport,
)


class Site:
    """A folder with a service in it: `serve` sends traffic, `config` is what the analyzer reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        self._generator = generator
        self.profile = calibrate(self.model, [torch.rand(400, 4, generator=generator)])
        contract = ModelContract(
            name="net",
            root=root,
            factory="user:factory",
            example_inputs="user:example_inputs",
            calibration="user:calibration",
            evaluate="user:evaluate",
            registry=root / "registry",
            select_budget=8,
        )
        self.config = AnalyzerConfig(
            database=root / "calidrift.duckdb",
            state_dirs=(root / "state",),
            models=MappingProxyType({"net": contract}),
        )

    @property
    def contract(self) -> ModelContract:
        return self.config.models["net"]

    def serve(self, scale=1.0, requests=60, *, capture=True, profile=None, segment="day"):
        with watch(
            self.model,
            name="net",
            profile=profile or self.profile,
            state_dir=self.root / "state",
            sample_rate=1.0,
            capture=CaptureOptions(seed=0) if capture else None,
            options=WatchOptions(budget=None, window_seconds=3600.0, seed=0),
        ) as watching:
            for turn in range(requests):
                with request_context(segment=segment):
                    self.model(scale * torch.rand(1, 4, generator=self._generator))
                if turn % 10 == 9:
                    watching.flush()

    def configured(self, **changes) -> AnalyzerConfig:
        contract = dataclasses.replace(self.contract, **changes)
        return dataclasses.replace(self.config, models=MappingProxyType({"net": contract}))


@pytest.fixture
def site(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Site(tmp_path)
    torch.set_num_threads(threads)


class Stages:
    """Stand-ins for the stages that start child processes; they note what they were given."""

    def __init__(self) -> None:
        self.passed = True
        self.production = None
        self.samples = None
        self.estimators = None
        self.busy: list[bool] = []
        self.promoted = 0

    def recalibrate(
        self, contract, directory, *, production=None, samples=(), estimators=(), progress=None
    ):
        self.production, self.samples, self.estimators = production, samples, estimators
        self.busy.append(holds(contract.root / "calidrift.duckdb"))
        path = directory / "sketch-mse"
        path.mkdir(parents=True, exist_ok=True)
        return (
            Candidate(
                id="sketch-mse",
                model=contract.name,
                source=Source.SKETCH,
                estimator=Estimator.MSE,
                path=path,
                units=9,
                layers=("0",),
                worst_point="0:input",
                worst_sqnr_db=30.0,
                files={},
            ),
        )

    def validate(self, contract, candidates, *, progress=None):
        self.busy.append(holds(contract.root / "calidrift.duckdb"))
        sentence = "accuracy is what it should be" if self.passed else "accuracy fell by 3 points"
        return ValidationReport(
            model=contract.name,
            created="2030-01-01T00:00:00+00:00",
            candidate=candidates[0],
            scores=(),
            labelled=True,
            gates=(Gate(GateName.ACCURACY, self.passed, 0.0, 0.01, sentence),),
            accuracy=None,
            agreement=1.0,
            sqnr_db=40.0,
            bulk_sqnr_db=40.0,
            parity_db=80.0,
            sizes=Sizes(1000, 3950, 2000, 5000),
            kernels=KernelReport((LayerKernels("0", LayerKind.LINEAR, 1, 1),), in_code=1),
            coverage=HeldOutCoverage(100, 100, 1.0, 0.97, "", 100),
            latency=None,
            seconds=1.0,
        )

    def promote(self, candidate, report, registry, model):
        if not report.passed:
            raise RefusedError("nobody asks for this")
        self.promoted += 1
        path = Path(registry) / model / "versions" / "000001-abc"
        path.mkdir(parents=True)
        self.profile.save(path / "profile.json")
        return PromotedVersion(
            model=model,
            id="000001-abc",
            parent=None,
            path=path,
            manifest="{}",
            profile=self.profile.digest,
        )


def holds(database: Path) -> bool:
    """Whether a process (this one, too) has the database open."""
    held = {str(path.resolve()) for path in Path("/proc/self/fd").iterdir() if path.exists()}
    return str(database.resolve()) in held


@pytest.fixture
def stages(monkeypatch, site):
    made = Stages()
    made.profile = site.profile
    for name in ("recalibrate", "validate", "promote"):
        monkeypatch.setattr(_cycle, name, getattr(made, name))
    return made


@pytest.fixture
def is_held():
    return holds
