"""What each state brings to the next one; the children are stood in for."""

import dataclasses
import importlib.util
import time
from pathlib import Path

import pytest

from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.jobs import DirectDatabase, RealStages, StageWork, _stages, job_folder
from calidrift_analyzer.promote import promote
from calidrift_analyzer.records import (
    Gate,
    GateName,
    JobKind,
    JobState,
    Marker,
    Mute,
    Trigger,
    record_document,
)
from calidrift_analyzer.store import NewJob, Step

SPEC = importlib.util.spec_from_file_location("harness", Path(__file__).parent / "harness.py")
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)


@pytest.fixture
def work(bench):
    """Make the work of a state."""

    def make(state, document=None, kind=JobKind.RECALIBRATION):
        job = bench.store.jobs.add(
            NewJob(model="net", kind=kind, trigger=Trigger.API, cause="", actor="ann", sentence="q")
        )
        bench.store.jobs.step(Step(job=job, state=state, sentence="there"))
        return StageWork(
            job=bench.store.jobs.find(job),
            contract=bench.contract,
            document=document or {},
            newest=0,
            database=DirectDatabase(bench.store),
            progress=lambda what, done, total: None,
        )

    return make


@pytest.fixture
def recorded(bench, traffic):
    """Drifted traffic of `net`, without a captured request."""
    calm = {"a:input": traffic.rng.uniform(-1, 1, (200, 8))}
    profile = traffic.profile(calm)
    meta = traffic.meta(points=("a:input",), profile=profile.digest)
    values = [traffic.rng.uniform(-4, 4, (60, 8))]
    start = time.time_ns() - 10**12
    bench.store.put_profile(profile)
    bench.store.ingest(meta, [traffic.unit_window(0, values, [1.0], start_ns=start)], batch=1)
    return profile


class Children:
    """Stand in for the two stages that start processes."""

    def __init__(self, monkeypatch, root):
        self.calls = []
        self.misses = []
        self.passed = True
        self.candidate = harness.make_candidate(root / "made")
        monkeypatch.setattr(_stages, "recalibrate", self.recalibrate)
        monkeypatch.setattr(_stages, "validate", self.validate)

    def recalibrate(self, contract, folder, *, production=None, samples=(), **more):
        self.calls.append((production, tuple(samples), more["estimators"]))
        if production is not None and self.misses:
            raise NoDataError(self.misses.pop())
        assert folder.is_dir()
        assert list(folder.iterdir()) == [], "what a killed try left is gone"
        return (self.candidate,)

    def validate(self, contract, candidates, *, progress):
        self.calls.append(candidates)
        report = harness.make_report(candidates[0])
        if self.passed:
            return report
        gate = Gate(GateName.SIZE, False, 1.0, 3.9, "it is too large")
        return dataclasses.replace(report, gates=(gate,))


@pytest.fixture
def children(monkeypatch, tmp_path):
    return Children(monkeypatch, tmp_path)


def test_without_captures_the_calibration_set_stands_alone(work, recorded):
    result = RealStages().run(work(JobState.SELECTING))

    assert result.state is JobState.RECALIBRATING
    assert result.sentence.startswith("nothing was selected: there are no captured requests")
    assert result.document["profile"] == recorded.digest
    assert result.document["verdict"] == "drifted_harmful"
    assert (result.document["samples"], result.document["selection"]) == ([], None)


def test_what_people_muted_and_marked_stands_beside_what_is_selected(work, recorded, bench):
    """The assessment of a job is the one that `status` shows."""
    now = time.time_ns()
    bench.store.annotations.mute(
        Mute(
            model="net",
            point="a:*",
            created_ns=now,
            until_ns=now + 3_600 * 10**9,
            reason="a new camera",
            author="eve",
        )
    )
    bench.store.annotations.mark(
        Marker(model="net", at_ns=now - 10**12, text="deployed 2.3", author="eve")
    )

    result = RealStages().run(work(JobState.SELECTING))

    [muted] = result.document["muted"]
    assert muted.startswith("a:* is muted until")
    assert muted in result.sentence
    assert result.document["markers"] == ["deployed 2.3"]
    assert result.document["verdict"] == "drifted_harmful"


def test_nothing_recorded_is_nothing_to_select_from(work):
    with pytest.raises(NoDataError, match="nothing was recorded"):
        RealStages().run(work(JobState.SELECTING))


def test_ranges_come_from_production_and_from_samples_that_are_still_there(
    bench, work, recorded, children, tmp_path
):
    (tmp_path / "there").write_bytes(b"x")
    document = {
        "profile": recorded.digest,
        "samples": [str(tmp_path / "there"), str(tmp_path / "replaced")],
    }
    todo = work(JobState.RECALIBRATING, document)
    left = job_folder(bench.contract, todo.job.job)
    left.mkdir(parents=True)
    (left / "half a candidate").write_bytes(b"x")

    result = RealStages().run(todo)

    [(production, samples, estimators)] = children.calls
    assert production.units == 60
    assert samples == (tmp_path / "there",)
    assert len(estimators) == 4
    assert result.state is JobState.VALIDATING
    assert result.sentence == "1 candidates, from 1 selected requests"
    assert result.document["candidates"] == [record_document(children.candidate)]


def test_a_point_without_production_values_leaves_the_samples(work, recorded, children):
    children.misses = ["the point flatten:input has no finite values"]

    result = RealStages().run(
        work(JobState.RECALIBRATING, {"profile": recorded.digest, "samples": []})
    )

    assert [call[0] is None for call in children.calls] == [False, True]
    assert result.sentence == (
        "1 candidates, from 0 selected requests; none from production sketches: the point "
        "flatten:input has no finite values"
    )


def test_without_any_figures_the_reason_is_told(work, children, monkeypatch):
    def nothing(*given, **more):
        raise NoDataError("there is no calibration set")

    monkeypatch.setattr(_stages, "recalibrate", nothing)

    with pytest.raises(NoDataError, match="no calibration set"):
        RealStages().run(work(JobState.RECALIBRATING, {"profile": "", "samples": []}))


def test_what_passes_waits_and_its_report_is_kept(bench, work, children):
    document = {"candidates": [record_document(children.candidate)]}

    result = RealStages().run(work(JobState.VALIDATING, document))
    result.record(bench.store)

    assert result.state is JobState.AWAITING_APPROVAL
    assert result.sentence == "candidate samples-mse passed every gate and waits for an approval"
    assert [row.accepted for row in bench.store.outcomes.validations("net")] == [True]


def test_what_a_gate_refuses_changes_nothing(bench, work, children):
    children.passed = False
    document = {"candidates": [record_document(children.candidate)]}

    result = RealStages().run(work(JobState.VALIDATING, document))
    result.record(bench.store)

    assert result.state is JobState.REFUSED
    assert result.sentence == (
        "candidate samples-mse was refused, nothing was changed: it is too large"
    )
    assert [row.accepted for row in bench.store.outcomes.validations("net")] == [False]


@pytest.mark.parametrize(
    ("passed", "state", "told"),
    [
        (True, JobState.CONFIRMED, "what serves (samples-mse) passes every gate as before"),
        (False, JobState.REFUSED, "what serves no longer passes, nothing was changed"),
    ],
    ids=["passes", "fails"],
)
def test_what_serves_is_measured_as_it_stands_in_the_registry(
    passed, state, told, bench, work, children
):
    report = harness.make_report(children.candidate)
    version = promote(children.candidate, report, bench.contract.registry, "net")
    children.passed = passed

    result = RealStages().run(work(JobState.VALIDATING, kind=JobKind.REVALIDATION))

    [[candidate]] = children.calls
    assert candidate.path == version.path
    assert result.state is state
    assert result.sentence.startswith(told)


def test_there_is_no_work_in_a_state_that_waits(work):
    with pytest.raises(ValueError, match="no work in the state queued"):
        RealStages().run(work(JobState.QUEUED))
