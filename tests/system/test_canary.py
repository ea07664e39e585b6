"""Two serving processes, one of them a canary: what is good reaches both, what is bad neither."""

import dataclasses
import hashlib
import importlib.util
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from calidrift_agent import CalibrateOptions, calibrate
from calidrift_analyzer.collect import collect
from calidrift_analyzer.config import CanaryConfig, Mode
from calidrift_analyzer.jobs import DirectDatabase, RealStages, Worker, cancel
from calidrift_analyzer.promote import promote
from calidrift_analyzer.records import JobKind, JobState, Trigger, record_document
from calidrift_analyzer.store import NewJob, Step, Store

SPEC = importlib.util.spec_from_file_location(
    "harness", Path(__file__).parents[1] / "analyzer" / "jobs" / "harness.py"
)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

pytestmark = pytest.mark.slow
DEADLINE = 120.0
UNITS = 200

NETWORK = """
import torch

def network():
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
    return torch.nn.Sequential(*layers).eval()
"""
REPLICA = NETWORK + textwrap.dedent(
    """
    import json, sys, threading, time
    from pathlib import Path
    from calidrift_agent import CalibrationProfile, FollowOptions, WatchOptions, follow, watch

    torch.set_num_threads(1)
    root, name = Path(sys.argv[1]), sys.argv[2]
    model, lock, watched = network(), threading.Lock(), []

    def load(version):
        return CalibrationProfile.load(version.profile_path)

    def swap(version, profile):
        with lock:  # between two requests
            if watched:
                watched.pop().close()
            options = WatchOptions(budget=None, window_seconds=0.25, drain_seconds=0.05)
            watched.append(
                watch(
                    model,
                    name="net",
                    profile=profile,
                    state_dir=root / "state",
                    sample_rate=1.0,
                    options=options,
                )
            )

    torch.manual_seed(len(name))
    def request(*_):
        with lock:
            model(torch.randn(8, 4))

    def tell(status):
        said = {"serving": status.serving, "trial": status.trial, "problem": status.problem}
        partial = root / f"{name}.partial"
        partial.write_text(json.dumps(said))
        partial.replace(root / f"{name}.json")

    options = FollowOptions(poll_seconds=0.05, canary=True if name == "canary" else None)
    told, until = None, time.monotonic() + 900.0
    with follow(
        root / "registry", "net", load=load, swap=swap, run=request, options=options
    ) as follower:
        while not (root / "stop").exists() and time.monotonic() < until:
            request()
            status = follower.status
            if status != told:
                told = status
                tell(status)
            time.sleep(0.002)
    with lock:
        watched.pop().close()
    """
)


def network():
    names = {}
    exec(NETWORK, names)
    return names["network"]()


@pytest.fixture(scope="module")
def profile_of():
    """Profiles calibrated on traffic of a scale; like that of the replicas where it is 1."""

    def make(scale, seed):
        torch.manual_seed(seed)
        batches = [scale * torch.randn(64, 4) for _ in range(32)]
        return calibrate(network(), batches, options=CalibrateOptions())

    return make


def report_on(folder, profile, text, planned=0):
    """What a candidate came to; with INT8 kernels that replicas, which run in float, miss."""
    candidate = harness.make_candidate(folder)
    (folder / "model.pt2").write_bytes(text)
    profile.save(folder / "profile.json")
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in candidate.files
    }
    report = harness.make_report(dataclasses.replace(candidate, files=files))
    layers = report.kernels.layers[:planned]
    return dataclasses.replace(report, kernels=dataclasses.replace(report.kernels, layers=layers))


class Fleet:
    """Two replicas of one model, and the analyzer that judges them."""

    def __init__(self, root, store):
        self.root, self.store = root, store
        (root / "state").mkdir()
        config = harness.configured(root)
        contract = dataclasses.replace(
            config.models["net"], canary=CanaryConfig(units=UNITS, hours=1.0)
        )
        self.config = dataclasses.replace(config, models=MappingProxyType({"net": contract}))
        assert self.config.service.mode is Mode.AUTO
        self.worker = Worker(DirectDatabase(store), self.config, RealStages())
        self.replicas = {}

    def start(self):
        script = self.root / "replica.py"
        script.write_text(REPLICA)
        for name in ("canary", "peer"):
            self.replicas[name] = subprocess.Popen(
                [sys.executable, str(script), str(self.root), name]
            )

    def stop(self):
        (self.root / "stop").touch()
        ended = []
        for replica in self.replicas.values():
            try:
                ended.append(replica.wait(DEADLINE))
            except subprocess.TimeoutExpired:
                replica.kill()
                ended.append(replica.wait())
        assert not any(ended), ended

    def status(self, name):
        path = self.root / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {"serving": None}

    def until(self, condition, what):
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, (what, self.status("canary"), self.status("peer"))
            for replica in self.replicas.values():
                assert replica.poll() is None, "a replica died"
            collect([self.root / "state"], self.store)
            self.worker.look()
            self.worker.run_until_idle()
            time.sleep(0.05)

    def both_serve(self, version):
        self.until(
            lambda: all(self.status(name)["serving"] == version for name in self.replicas),
            f"both serve {version}",
        )

    def order(self, report):
        jobs = self.store.jobs
        self.job = jobs.add(
            NewJob(
                model="net",
                kind=JobKind.RECALIBRATION,
                trigger=Trigger.API,
                cause="",
                actor="ann",
                sentence="q",
            )
        )
        jobs.step(
            Step(
                job=self.job,
                state=JobState.AWAITING_APPROVAL,
                sentence="passed",
                document={"report": record_document(report)},
            )
        )
        self.worker.run_until_idle()
        assert self.row.state is JobState.CANARY, self.row.sentence

    @property
    def row(self):
        return self.store.jobs.find(self.job)


@pytest.fixture
def fleet(tmp_path):
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        fleet = Fleet(tmp_path, store)
        yield fleet
        fleet.stop()


@pytest.fixture
def serving(fleet, profile_of, tmp_path):
    """A fleet of which both replicas serve the first version."""

    def start():
        report = report_on(tmp_path / "first", profile_of(2.0, 1), b"first")
        registry = fleet.config.models["net"].registry
        version = promote(report.candidate, report, registry, "net").id
        fleet.start()
        fleet.both_serve(version)
        return version

    return start


def test_a_good_version_serves_on_the_canary_and_then_on_both(fleet, serving, profile_of, tmp_path):
    before = serving()
    fleet.order(report_on(tmp_path / "second", profile_of(2.0, 2), b"second"))
    fleet.until(lambda: fleet.status("canary").get("trial"), "the canary serves it")
    assert fleet.status("peer")["serving"] == before

    fleet.until(lambda: fleet.row.state is not JobState.CANARY, "it is decided")

    assert fleet.row.state is JobState.PROMOTED, fleet.row.sentence
    assert "no measure was worse on canaries than on their peers" in fleet.row.sentence
    [move] = fleet.store.outcomes.versions("net")
    fleet.both_serve(move.version)
    assert not fleet.status("canary")["trial"]


def test_a_version_with_bounds_that_do_not_fit_is_withdrawn_and_the_canary_goes_back(
    fleet, serving, profile_of, tmp_path
):
    before = serving()
    fleet.order(report_on(tmp_path / "second", profile_of(0.5, 2), b"second"))
    fleet.until(lambda: fleet.row.state is not JobState.CANARY, "it is decided")

    assert fleet.row.state is JobState.REFUSED, fleet.row.sentence
    assert "was withdrawn" in fleet.row.sentence
    fleet.both_serve(before)

    # And one without its kernels here is never served at all.
    fleet.order(report_on(tmp_path / "third", profile_of(2.0, 3), b"third", planned=1))
    fleet.until(
        lambda: "0 of 1 validated INT8 kernels" in (fleet.status("canary")["problem"] or ""),
        "the canary refuses it",
    )
    assert fleet.status("canary")["serving"] == before
    cancel(fleet.store, fleet.job, actor="ann")
    fleet.until(lambda: fleet.row.state is JobState.CANCELLED, "it is withdrawn")
    fleet.until(lambda: fleet.status("canary")["problem"] is None, "the canary goes back")
    assert fleet.store.outcomes.versions("net") == ()
