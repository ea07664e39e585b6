"""A version on canaries: it reaches all, or none but them, whoever dies or meddles on the way."""

import dataclasses
import hashlib
import importlib.util
import json
import time
import types
from pathlib import Path

import numpy as np
import pytest

from calidrift_agent._registry import VersionLayout, read_pointer
from calidrift_agent._state import Window
from calidrift_agent._vocabulary import RequestColumn, Stage
from calidrift_agent.errors import ProfileMismatchError, RegistryError
from calidrift_analyzer.config import CanaryConfig, DeployConfig, Mode
from calidrift_analyzer.errors import RefusedError, StoreError
from calidrift_analyzer.jobs import RealStages, _promotion, cancel, freeze, roll_back, trial_of
from calidrift_analyzer.jobs import _canary as module
from calidrift_analyzer.promote import promote, rollback, withdraw
from calidrift_analyzer.records import JobKind, JobState, Trigger, VersionRow, record_document
from calidrift_analyzer.store import NewJob, Step

SPEC = importlib.util.spec_from_file_location("harness", Path(__file__).parent / "harness.py")
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

SECOND = 10**9
UNITS = 40


def candidate_of(folder, traffic, seed):
    """A candidate with a model and a profile of its own."""
    candidate = harness.make_candidate(folder)
    (folder / "model.pt2").write_bytes(b"int8 %d" % seed * 100)
    values = np.random.default_rng(seed).normal(size=(64, 4))
    traffic.profile({"a:input": values}).save(folder / "profile.json")
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in candidate.files
    }
    return dataclasses.replace(candidate, files=files)


class Trial:
    """A model that serves one version, with a job whose candidate is approved by itself."""

    def __init__(self, bench, traffic, root):
        self.bench, self.traffic, self.root = bench, traffic, root
        bench.told(mode=Mode.AUTO)
        contract = dataclasses.replace(bench.contract, canary=CanaryConfig(units=UNITS))
        bench.config = dataclasses.replace(
            bench.config, models={**bench.config.models, "net": contract}
        )
        bench.stages = RealStages()
        bench.worker = bench.fresh_worker()
        first = harness.make_report(candidate_of(root / "first", traffic, 1))
        self.before = promote(first.candidate, first, contract.registry, "net")
        self.report = harness.make_report(candidate_of(root / "second", traffic, 2))
        self.numbers = 0
        self.processes = {}

    @property
    def pointer(self):
        return read_pointer(VersionLayout(self.bench.contract.registry, "net"))

    @property
    def serving(self):
        return self.pointer.version

    @property
    def canary(self):
        return None if self.pointer.canary is None else self.pointer.canary.version

    def order(self):
        """Queue a job whose candidate passed, and let the worker do what it can."""
        jobs = self.bench.store.jobs
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
        document = {"report": record_document(self.report)}
        jobs.step(
            Step(
                job=self.job,
                state=JobState.AWAITING_APPROVAL,
                sentence="passed",
                document=document,
            )
        )
        self.bench.worker.run_until_idle()
        return self

    def look(self):
        self.bench.worker.look()
        self.bench.worker.run_until_idle()
        return self.row

    @property
    def row(self):
        return self.bench.store.jobs.find(self.job)

    @property
    def record(self):
        return trial_of(self.bench.store.jobs.steps(self.job))

    def window(self, profile, units, outside=0, errors=(0, 0), **figures):
        """Let a process of a profile write one window that begins now."""
        if profile not in self.processes:
            self.processes[profile] = self.traffic.meta(
                points=("a:input",), profile=profile, started_ns=time.time_ns()
            )
        window = Window.empty(1, number=self.numbers, at_ns=time.time_ns())
        self.numbers += 1
        window = dataclasses.replace(window, end_ns=window.start_ns + SECOND)
        counted = {
            "SAMPLED": units,
            "OBSERVED": units,
            "UNITS": units,
            "UNITS_COVERED": units - outside,
            **figures,
        }
        for name, count in counted.items():
            window.requests[RequestColumn[name]] = count
        for stage, count in zip((Stage.TAP, Stage.SHADOW), errors, strict=True):
            window.requests[RequestColumn.ERROR_FIRST + list(Stage).index(stage)] = count
        store = self.bench.store
        store.ingest(self.processes[profile], [window], batch=store.next_batch())

    def show(self, canary=0, peers=0, outside=(0, 0), **figures):
        trial = self.record.trial
        if canary:
            self.window(trial.profile, canary, outside[0], **figures)
        if peers:
            self.window(trial.peers, peers, outside[1])


@pytest.fixture
def trial(bench, traffic, tmp_path):
    return Trial(bench, traffic, tmp_path)


def test_a_candidate_serves_on_canaries_first(trial):
    trial.order()

    assert trial.row.state is JobState.CANARY
    assert trial.serving == trial.before.id
    assert trial.canary == trial.record.trial.version
    assert "until they and their peers have shown 40 units each, for at most 24 hours" in (
        trial.row.sentence
    )
    assert trial.bench.store.outcomes.versions("net") == ()
    assert trial.bench.store.profile(trial.record.trial.profile) is not None
    assert [job.job for job in trial.bench.store.jobs.open_jobs("net")] == [trial.job]


def test_one_that_is_as_good_reaches_all(trial):
    trial.order()
    for _ in range(5):
        trial.show(canary=10, peers=30)
        trial.look()

    assert trial.row.state is JobState.PROMOTED
    assert (trial.serving, trial.canary) == (trial.record.trial.version, None)
    assert "serves from now on: no measure was worse on canaries than on their peers" in (
        trial.row.sentence
    )
    assert "after 40 of 40 units (peers 90)" in trial.row.sentence
    assert [look.mark for look in trial.record.looks] == [10, 20, 40]
    [move] = trial.bench.store.outcomes.versions("net")
    assert (move.action, move.version) == ("promoted", trial.serving)


def test_one_that_is_worse_is_withdrawn_at_the_look_that_shows_it(trial):
    trial.order()
    trial.show(canary=20, peers=60, outside=(15, 2))
    trial.look()

    assert trial.row.state is JobState.REFUSED
    assert (trial.serving, trial.canary) == (trial.before.id, None)
    assert "was withdrawn after 20 of 40 units (peers 60)" in trial.row.sentence
    assert (
        "units outside the observed bounds are 15 of 20 on canaries and 2 of 60 on their peers"
        in trial.row.sentence
    )
    assert len(trial.record.looks) == 1
    assert trial.bench.store.outcomes.versions("net") == ()


def test_errors_of_the_agent_and_other_classes_count_too(trial):
    trial.order()
    trial.show(canary=20, peers=60, errors=(12, 3))
    assert "errors of the agent are 15 of 20 on canaries and 0 of 60" in trial.look().sentence


def test_other_classes_count_only_where_both_sides_were_compared(trial):
    trial.order()
    trial.show(canary=20, COMPARED=20, RANKED=20, AGREED=2)
    trial.show(peers=60)
    trial.look()
    assert trial.row.state is JobState.CANARY
    assert [one.p for one in trial.record.looks[0].comparisons][1] is None


def test_nothing_happens_before_both_sides_have_shown_enough(trial):
    trial.order()
    trial.show(canary=9, peers=500)
    trial.look()
    assert trial.record.looks == ()
    assert trial.row.state is JobState.CANARY


def test_what_peers_showed_before_the_canary_began_does_not_count(trial):
    trial.order()
    trial.show(peers=500)
    time.sleep(0.002)  # the clock moves on
    trial.show(canary=40)
    trial.look()
    assert trial.record.looks == ()


@pytest.mark.parametrize(
    ("canary", "peers", "missing"),
    [
        (0, 50, "no replica with FollowOptions(canary=True) or CALIDRIFT_CANARY=1 showed a unit"),
        (5, 50, "canaries showed 5 of 40 units;"),
        (5, 0, "canaries showed 5 of 40 units and their peers showed 0 of 40 units"),
        (50, 5, "their peers showed 5 of 40 units"),
    ],
)
def test_one_that_nobody_shows_is_withdrawn_in_the_end(trial, canary, peers, missing, monkeypatch):
    trial.order()
    trial.show(canary=canary)
    trial.show(peers=peers)
    trial.look()
    assert trial.row.state is JobState.CANARY
    later = types.SimpleNamespace(time_ns=lambda: trial.record.trial.until_ns)
    monkeypatch.setattr(module, "time", later)
    trial.look()
    assert trial.row.state is JobState.REFUSED
    assert "was withdrawn after 24 hours: " in trial.row.sentence
    assert missing in trial.row.sentence
    assert (trial.serving, trial.canary) == (trial.before.id, None)


def test_an_alarm_of_its_own_traffic_withdraws_it_at_once(trial, traffic):
    trial.order()
    profile = trial.bench.store.profile(trial.record.trial.profile)
    meta = traffic.meta(points=("a:input",), profile=profile.digest)
    bound = profile.points["a:input"].observed_bound.value
    values = [np.full((400, 4), 100.0 * bound)]
    store = trial.bench.store
    window = traffic.unit_window(0, values, [bound], start_ns=time.time_ns())
    store.ingest(meta, [window], batch=store.next_batch())

    trial.look()

    assert trial.row.state is JobState.REFUSED
    assert "was withdrawn: its own traffic raised an alarm" in trial.row.sentence
    assert trial.canary is None


def test_the_first_version_of_a_model_needs_no_canary(trial):
    layout = VersionLayout(trial.bench.contract.registry, "net")
    layout.pointer.unlink()
    trial.order()
    assert trial.row.state is JobState.PROMOTED
    # And one that was killed behind its promotion is not staged beside itself.
    jobs = trial.bench.store.jobs
    assert [step.state.value for step in jobs.steps(trial.job)][-1] == "promoted"


def test_one_with_the_profile_that_serves_is_refused(trial, traffic):
    report = harness.make_report(candidate_of(trial.root / "third", traffic, 1))
    (trial.root / "third" / "profile.json").write_bytes(
        (trial.before.path / "profile.json").read_bytes()
    )
    files = {
        name: hashlib.sha256((trial.root / "third" / name).read_bytes()).hexdigest()
        for name in report.candidate.files
    }
    trial.report = harness.make_report(dataclasses.replace(report.candidate, files=files))
    trial.order()
    assert trial.row.state is JobState.REFUSED
    assert "have the same profile" in trial.row.sentence
    assert "promote it without a canary. Nothing was changed" in trial.row.sentence
    assert trial.canary is None


def test_a_cancelled_one_is_withdrawn_first(trial):
    trial.order()
    said = cancel(trial.bench.store, trial.job, actor="eve", note="not today")
    assert said == "eve wants this job to end: not today"
    trial.bench.worker.run_until_idle()
    assert trial.row.state is JobState.CANCELLED
    assert trial.row.sentence == "eve wants this job to end: not today"
    assert (trial.serving, trial.canary) == (trial.before.id, None)


@pytest.mark.parametrize("move", ["promotion", "rollback"])
def test_whoever_promotes_or_rolls_back_ends_it(trial, move, traffic):
    other = harness.make_report(candidate_of(trial.root / "other", traffic, 3))
    registry = trial.bench.contract.registry
    later = None
    if move == "rollback":
        later = promote(other.candidate, other, registry, "net")
    trial.order()
    if move == "rollback":
        rollback(registry, "net")
    else:
        later = promote(other.candidate, other, registry, "net")
    trial.look()
    assert trial.row.state is JobState.CANCELLED
    assert "somebody promoted or rolled back meanwhile, which ended the canary" in (
        trial.row.sentence
    )
    assert trial.serving == (trial.before.id if move == "rollback" else later.id)


def test_somebody_who_puts_the_canary_into_service_completes_it(trial):
    trial.order()
    version = trial.canary
    rollback(trial.bench.contract.registry, "net", version)
    trial.look()
    assert trial.row.state is JobState.PROMOTED
    assert trial.row.sentence == f"version {version} serves from now on"


def test_frozen_it_waits_and_thawed_it_goes_on(trial):
    trial.order()
    freeze(trial.bench.store, "net", frozen=True, actor="ann")
    trial.show(canary=50, peers=50)
    trial.look()
    assert trial.row.state is JobState.CANARY
    assert trial.record.decision == "complete"
    assert trial.serving == trial.before.id

    freeze(trial.bench.store, "net", frozen=False, actor="ann")
    trial.look()
    assert trial.row.state is JobState.PROMOTED


def test_frozen_or_not_what_is_worse_is_withdrawn(trial):
    trial.order()
    freeze(trial.bench.store, "", frozen=True, actor="ann")
    trial.show(canary=50, peers=50, outside=(50, 0))
    trial.look()
    assert trial.row.state is JobState.REFUSED
    assert trial.canary is None


def test_other_models_do_not_wait_for_it(trial):
    trial.order()
    jobs = trial.bench.store.jobs
    other = jobs.add(
        NewJob(
            model="other",
            kind=JobKind.RECALIBRATION,
            trigger=Trigger.API,
            cause="",
            actor="ann",
            sentence="q",
        )
    )
    trial.bench.worker.wake()
    trial.bench.worker.run_until_idle()
    assert jobs.find(other).state.finished  # nothing was recorded about it
    assert trial.row.state is JobState.CANARY


@pytest.mark.parametrize("broken", ["complete", "withdraw"])
def test_a_process_that_dies_behind_its_decision_is_followed_by_one_that_does_it(
    trial, monkeypatch, broken
):
    """Killed between the decision and the move, and between the move and its record."""
    trial.order()
    trial.show(canary=50, peers=50, outside=(50 if broken == "withdraw" else 0, 0))
    done = getattr(module, broken)

    class KilledError(BaseException):
        pass

    def before(*arguments, **named):
        raise KilledError

    def behind(*arguments, **named):
        done(*arguments, **named)
        raise KilledError

    for die in (before, behind):
        monkeypatch.setattr(module, broken, die)
        with pytest.raises(KilledError):
            trial.look()
        trial.bench.worker = trial.bench.fresh_worker()
        assert trial.row.state is JobState.CANARY
    monkeypatch.setattr(module, broken, done)
    trial.bench.worker.run_until_idle()

    expected = JobState.PROMOTED if broken == "complete" else JobState.REFUSED
    assert trial.row.state is expected
    steps = trial.bench.store.jobs.steps(trial.job)
    assert [step.state for step in steps].count(expected) == 1
    assert trial.canary is None
    assert len(trial.bench.store.outcomes.versions("net")) == (broken == "complete")


def test_a_registry_that_cannot_be_read_for_a_while_ends_nothing(trial, monkeypatch):
    trial.order()
    trial.show(canary=50, peers=50)
    done = module.complete

    def fails(*arguments, **named):
        raise RegistryError("the disk is full")

    monkeypatch.setattr(module, "complete", fails)
    trial.look()
    assert trial.row.state is JobState.CANARY
    monkeypatch.setattr(module, "complete", done)
    trial.look()
    assert trial.row.state is JobState.PROMOTED


def test_somebody_who_is_quicker_than_the_completion_ends_it(trial, monkeypatch):
    trial.order()
    trial.show(canary=50, peers=50)

    def refused(*arguments, **named):
        raise RefusedError("it is no longer tried")

    monkeypatch.setattr(module, "complete", refused)
    trial.look()
    assert (trial.row.state, trial.row.sentence) == (JobState.CANCELLED, "it is no longer tried")


def test_a_model_that_is_no_longer_configured_fails_and_says_what_goes_on(trial):
    trial.order()
    config = dataclasses.replace(trial.bench.config, models={})
    trial.bench.config = config
    trial.bench.worker = trial.bench.fresh_worker()
    trial.bench.worker.run_until_idle()
    assert trial.row.state is JobState.FAILED
    assert "its canaries go on with their version" in trial.row.sentence


def test_looking_often_does_not_make_looks(trial):
    trial.order()
    trial.show(canary=12, peers=30)
    for _ in range(20):
        trial.look()
    assert len(trial.record.looks) == 1
    document = json.loads(trial.bench.store.jobs.steps(trial.job)[-1].document)
    assert document["look"]["units"] == 12


def test_hooks_run_when_it_is_completed_and_not_before(trial):
    contract = trial.bench.contract
    hooked = dataclasses.replace(contract, deploy=DeployConfig(command=("true",)))
    trial.bench.config = dataclasses.replace(trial.bench.config, models={"net": hooked})
    trial.bench.worker = trial.bench.fresh_worker()
    trial.order()
    assert trial.bench.store.deployments.newest("net") is None
    trial.show(canary=50, peers=50)
    trial.look()
    told = trial.bench.store.deployments.newest("net")
    assert (told.version, told.previous) == (trial.serving, trial.before.id)


def test_each_move_is_published(trial, faulty):
    contract = trial.bench.contract
    remote = dataclasses.replace(contract, registry_url="faulty://bucket/models")
    trial.bench.config = dataclasses.replace(trial.bench.config, models={"net": remote})
    trial.bench.worker = trial.bench.fresh_worker()
    trial.order()

    def named():
        found = json.loads(faulty.objects["/bucket/models/net/current"])
        return found["version"], found.get("canary", {}).get("version")

    assert named() == (trial.before.id, trial.canary)
    assert f"; {trial.before.id} is at faulty://bucket/models" in trial.row.sentence
    cancel(trial.bench.store, trial.job, actor="eve")
    trial.look()
    assert named() == (trial.before.id, None)


def test_a_registry_that_stays_broken_fails_the_job_in_the_end(trial, monkeypatch):
    trial.order()
    trial.show(canary=50, peers=50)

    def fails(*arguments, **named):
        raise RegistryError("the disk is full")

    monkeypatch.setattr(module, "complete", fails)
    later = types.SimpleNamespace(time_ns=lambda: trial.record.trial.until_ns)
    trial.look()
    monkeypatch.setattr(module, "time", later)
    trial.look()
    assert (trial.row.state, trial.row.sentence) == (JobState.FAILED, "the disk is full")


def test_a_profile_that_does_not_fit_what_canaries_show_withdraws_it(trial, monkeypatch):
    trial.order()
    trial.show(canary=1)

    def fails(*arguments, **named):
        raise ProfileMismatchError("it has other points")

    monkeypatch.setattr(module, "assess_stored", fails)
    trial.look()
    assert trial.row.state is JobState.REFUSED
    assert "was withdrawn: it has other points" in trial.row.sentence


def test_a_database_that_is_away_ends_nothing(trial, monkeypatch):
    trial.order()
    trial.show(canary=1)

    def fails(*arguments, **named):
        raise StoreError("it is away")

    monkeypatch.setattr(module, "assess_stored", fails)
    with pytest.raises(StoreError, match="it is away"):
        trial.look()
    assert trial.row.state is JobState.CANARY


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("meddled", ["no", "rollback", "promotion"])
def test_a_process_that_dies_before_its_record_stages_once(trial, monkeypatch, traffic, meddled):
    other = harness.make_report(candidate_of(trial.root / "other", traffic, 3))
    registry = trial.bench.contract.registry
    promote(other.candidate, other, registry, "net")
    done = _promotion.stage

    def dies(*arguments, **named):
        done(*arguments, **named)
        raise KilledError

    monkeypatch.setattr(_promotion, "stage", dies)
    with pytest.raises(KilledError):
        trial.order()
    monkeypatch.setattr(_promotion, "stage", done)
    assert trial.row.state is JobState.AWAITING_APPROVAL
    version = trial.canary
    if meddled == "rollback":
        roll_back(trial.bench.worker._database, trial.bench.contract, None, actor="eve")
    elif meddled == "promotion":
        third = harness.make_report(candidate_of(trial.root / "third", traffic, 4))
        promote(third.candidate, third, registry, "net")
    serving = trial.serving

    trial.bench.worker = trial.bench.fresh_worker()
    trial.bench.worker.run_until_idle()

    assert trial.record.trial.version == version
    assert trial.serving == serving
    ended = meddled != "no"
    assert trial.row.state is (JobState.CANCELLED if ended else JobState.CANARY)
    assert trial.canary == (None if ended else version)


def test_a_rollback_of_long_ago_is_no_reason_to_leave_it(trial, monkeypatch):
    """Killed between the version and the pointer, where the last move was a rollback."""
    database = trial.bench.worker._database
    row = VersionRow(
        model="net",
        version=trial.before.id,
        action="rolled_back",
        created_ns=time.time_ns() - 3600 * SECOND,
        profile="",
        document="{}",
    )
    trial.bench.store.outcomes.record_version(row)
    contract, report = trial.bench.contract, trial.report
    version, _ = _promotion.stage_once(database, contract, report, 1)
    withdraw(contract.registry, "net", version.id)

    again, pointer = _promotion.stage_once(database, contract, report, 1)
    assert (again.id, pointer.canary.version) == (version.id, version.id)
    withdraw(contract.registry, "net", version.id)
    assert _promotion.promote_once(database, contract, report, 1).id == version.id
    assert trial.serving == version.id


def test_a_cancelled_one_that_cannot_be_withdrawn_now_is_withdrawn_later(trial, monkeypatch):
    trial.order()
    done, tries = module.withdraw, []

    def fails(*arguments, **named):
        tries.append(arguments)
        raise RegistryError("the disk is full")

    monkeypatch.setattr(module, "withdraw", fails)
    cancel(trial.bench.store, trial.job, actor="eve")
    trial.bench.worker.run_until_idle()
    assert len(tries) == 1, "not again and again"
    assert trial.row.state is JobState.CANARY
    monkeypatch.setattr(module, "withdraw", done)
    trial.look()
    assert trial.row.state is JobState.CANCELLED
