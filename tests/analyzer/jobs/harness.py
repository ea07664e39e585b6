"""One process that leads jobs on, as the service does; it is killed while it does so.

    python harness.py ROOT HOLD

HOLD is a state, or a step of the promotion, at which it waits to be killed (`-` for none). The file
ROOT/at-work appears when it has come there. It ends when no job can go on.
"""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

from calidrift_agent._profile import CalibrationProfile, Fingerprint, ObservedBound, PointProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument
from calidrift_analyzer.config import AnalyzerConfig, Mode, ModelContract, ServiceConfig
from calidrift_analyzer.jobs import (
    DirectDatabase,
    Order,
    RealStages,
    StageResult,
    Worker,
    _promotion,
    job_folder,
    order_job,
)
from calidrift_analyzer.ranges import Estimator
from calidrift_analyzer.records import (
    Candidate,
    Gate,
    GateName,
    HeldOutCoverage,
    JobState,
    KernelReport,
    LayerKernels,
    LayerKind,
    Sizes,
    Source,
    Trigger,
    ValidationReport,
    record_document,
)
from calidrift_analyzer.store import Store


def configured(root: Path) -> AnalyzerConfig:
    contract = ModelContract(
        name="net",
        root=root,
        factory="user:factory",
        example_inputs="user:example_inputs",
        calibration="user:calibration",
        evaluate="user:evaluate",
        registry=root / "registry",
    )
    return AnalyzerConfig(
        database=root / "calidrift.duckdb",
        state_dirs=(),
        models={"net": contract},
        service=ServiceConfig(mode=Mode.AUTO),
    )


def make_candidate(folder: Path) -> Candidate:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pt2").write_bytes(b"int8" * 1000)
    values = np.random.default_rng(1).normal(size=(8, 16))
    sketch = MagnitudeSketch()
    sketch.update(values.astype(np.float32).ravel())
    point = PointProfile(
        name="a:input",
        observed_bound=ObservedBound.from_absmax(np.abs(values).max(axis=1), rank=1),
        sketch=sketch,
    )
    CalibrationProfile(
        points={"a:input": point},
        units=8,
        instrument=Instrument.RANGE,
        fingerprint=Fingerprint(),
        created="2030-01-01T00:00:00+00:00",
    ).save(folder / "profile.json")
    return Candidate(
        id="samples-mse",
        model="net",
        source=Source.SAMPLES,
        estimator=Estimator.MSE,
        path=folder,
        units=8,
        layers=("a",),
        worst_point="a:input",
        worst_sqnr_db=40.0,
        files={
            file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
            for file in ("model.pt2", "profile.json")
        },
    )


def make_report(candidate: Candidate) -> ValidationReport:
    return ValidationReport(
        model="net",
        created="2030-01-01T00:00:00+00:00",
        candidate=candidate,
        scores=(),
        labelled=False,
        gates=(Gate(GateName.SIZE, True, 3.95, 3.9, "the size is what it is"),),
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


class Stages:
    """Select, recalibrate and validate in an instant; promote in earnest."""

    def __init__(self, root: Path, hold: str) -> None:
        self.root = root
        self.hold = hold

    def wait(self, name: str) -> None:
        if name == self.hold:
            (self.root / "at-work").touch()
            time.sleep(600)

    def run(self, work):
        state = work.job.state
        with (self.root / "begun.log").open("a") as log:
            log.write(f"{state}\n")
        self.wait(state.value)
        if state is JobState.SELECTING:
            return StageResult(state=JobState.RECALIBRATING, sentence="selected", document={})
        if state is JobState.RECALIBRATING:
            make_candidate(job_folder(work.contract, work.job.job))
            return StageResult(state=JobState.VALIDATING, sentence="made", document={})
        if state is JobState.VALIDATING:
            report = make_report(make_candidate(job_folder(work.contract, work.job.job)))
            return StageResult(
                state=JobState.AWAITING_APPROVAL,
                sentence="passed",
                document={"report": record_document(report)},
            )
        return RealStages().run(work)

    def promote(self, candidate, report, registry, model):
        version = PROMOTE(candidate, report, registry, model, on_step=self.wait)
        self.wait("not yet recorded")
        return version


PROMOTE = _promotion.promote


def main(root: Path, hold: str) -> None:
    stages = Stages(root, hold)
    _promotion.promote = stages.promote
    config = configured(root)
    with Store.open(config.database) as store:
        order = Order(
            model="net", trigger=Trigger.ALERTMANAGER, cause="", actor="am", key="the alert"
        )
        order_job(store, order, config.service)  # told again by each process, as alerts are
        stages.wait("queued")
        Worker(DirectDatabase(store), config, stages).run_until_idle()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
