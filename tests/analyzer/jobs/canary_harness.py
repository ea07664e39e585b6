"""One process that leads a job behind its canary, as the service does; it is killed while it does.

    python canary_harness.py ROOT HOLD

As `harness.py`, with a model that serves a version already, and with canaries and peers that show
enough whenever the job is looked at.
"""

import dataclasses
import hashlib
import importlib.util
import sys
import time
from pathlib import Path
from types import MappingProxyType

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._registry import VersionLayout
from calidrift_agent._state import PointMeta, StateMeta, Window
from calidrift_agent._vocabulary import Instrument, RequestColumn, Strategy
from calidrift_analyzer.config import CanaryConfig
from calidrift_analyzer.jobs import DirectDatabase, Order, Worker, _promotion, order_job, trial_of
from calidrift_analyzer.jobs import _canary as module
from calidrift_analyzer.promote import complete, promote, stage
from calidrift_analyzer.records import JobState, Trigger
from calidrift_analyzer.store import Store

SPEC = importlib.util.spec_from_file_location("harness", Path(__file__).parent / "harness.py")
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

UNITS = 30


class Stages(harness.Stages):
    """Stage and complete in earnest, and show the canary and its peers before each look."""

    def run(self, work):
        if work.job.state is JobState.CANARY:
            work.database.run(lambda store: show(store, work.job.job))
        return super().run(work)

    def stage(self, *arguments, **named):
        version = stage(*arguments, **named, on_step=lambda step: self.wait(f"stage {step}"))
        self.wait("staged, not recorded")
        return version

    def complete(self, *arguments, **named):
        version = complete(*arguments, **named, on_step=lambda step: self.wait(f"complete {step}"))
        self.wait("completed, not recorded")
        return version


def show(store, job):
    trial = trial_of(store.jobs.steps(job)).trial
    for profile in (trial.profile, trial.peers):
        meta = StateMeta(
            process=f"{time.time_ns():032x}",
            boot="b" * 32,
            pid=1,
            started_ns=time.time_ns(),
            model="net",
            profile=profile,
            instrument=Instrument.RANGE,
            strategy=Strategy.INSTEAD,
            agent_version="0.1.0",
            window_seconds=10.0,
            points=(PointMeta("a:input", 1.0, -1.0, 1.0),),
        )
        window = Window.empty(1, number=0, at_ns=time.time_ns())
        for column in (RequestColumn.SAMPLED, RequestColumn.UNITS, RequestColumn.UNITS_COVERED):
            window.requests[column] = UNITS
        store.ingest(meta, [window], batch=store.next_batch())


def serve_first(contract):
    """Promote a first version with a profile of its own, once."""
    if VersionLayout(contract.registry, "net").pointer.exists():
        return
    folder = contract.root / "first"
    candidate = harness.make_candidate(folder)
    profile = CalibrationProfile.load(folder / "profile.json")
    dataclasses.replace(profile, units=9).save(folder / "profile.json")
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in candidate.files
    }
    report = harness.make_report(dataclasses.replace(candidate, files=files))
    promote(report.candidate, report, contract.registry, "net")


def main(root: Path, hold: str) -> None:
    stages = Stages(root, hold)
    _promotion.stage, module.complete = stages.stage, stages.complete
    config = harness.configured(root)
    contract = dataclasses.replace(config.models["net"], canary=CanaryConfig(units=UNITS))
    config = dataclasses.replace(config, models=MappingProxyType({"net": contract}))
    serve_first(contract)
    with Store.open(config.database) as store:
        order = Order(
            model="net", trigger=Trigger.ALERTMANAGER, cause="", actor="am", key="the alert"
        )
        order_job(store, order, config.service)
        Worker(DirectDatabase(store), config, stages).run_until_idle()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
