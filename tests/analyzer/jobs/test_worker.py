"""The worker leads jobs on, and ends each of them in a state with a reason."""

import threading

import pytest

from calidrift_analyzer.config import Mode
from calidrift_analyzer.errors import ChildError, NoDataError, RefusedError, StoreError
from calidrift_analyzer.jobs import (
    Order,
    StageResult,
    Worker,
    approve,
    cancel,
    freeze,
    job_folder,
    order_job,
)
from calidrift_analyzer.jobs._database import DirectDatabase
from calidrift_analyzer.records import JobEvent, JobKind, JobState, Trigger
from calidrift_analyzer.store import Step

DEADLINE = 30.0


def ask(bench, model="net", kind=JobKind.RECALIBRATION):
    order = Order(model=model, trigger=Trigger.API, cause="", actor="ann", kind=kind)
    answer = order_job(bench.store, order, bench.config.service)
    assert answer.new, answer.sentence
    return answer.job


def told(bench, job=1):
    return [(step.state.value, step.event.value) for step in bench.store.jobs.steps(job)]


def test_a_job_goes_its_way_and_waits_for_a_person(bench):
    ask(bench)

    bench.worker.run_until_idle()

    assert bench.stages.states == ["selecting", "recalibrating", "validating"]
    assert bench.state() == "awaiting_approval"
    assert bench.ended == []
    approve(bench.store, bench.contract, 1, actor="eve", note="looks good")
    bench.worker.run_until_idle()
    assert bench.state() == "promoted"
    assert [job.job for job in bench.ended] == [1]
    assert told(bench) == [
        ("queued", "entered"),
        ("selecting", "entered"),
        ("recalibrating", "entered"),
        ("validating", "entered"),
        ("awaiting_approval", "entered"),
        ("awaiting_approval", "approved"),
        ("promoted", "entered"),
    ]
    last = bench.store.jobs.audit()[0]
    assert (last.actor, last.action, last.outcome) == ("eve", "promoted", "done")


def test_each_state_is_given_what_the_one_before_left(bench):
    ask(bench)

    bench.worker.run_until_idle()

    assert [dict(work.document) for work in bench.stages.seen] == [
        {},
        {"after": "selecting"},
        {"after": "recalibrating"},
    ]


def test_in_automatic_mode_nobody_is_asked(bench):
    bench.told(mode=Mode.AUTO)
    ask(bench)

    bench.worker.run_until_idle()

    assert bench.state() == "promoted"
    assert bench.store.jobs.find(1).approved_by == "auto"


def test_in_automatic_mode_a_freeze_keeps_the_candidate_waiting(bench):
    bench.told(mode=Mode.AUTO)
    ask(bench)
    bench.stages.fails[JobState.VALIDATING] = StoreError("not now")
    with pytest.raises(StoreError):
        bench.worker.run_until_idle()
    freeze(bench.store, "", frozen=True, actor="eve")

    bench.worker.run_until_idle()
    assert bench.state() == "awaiting_approval"

    freeze(bench.store, "", frozen=False, actor="eve")
    bench.worker.run_until_idle()
    assert bench.state() == "promoted"


def test_a_frozen_model_keeps_its_queued_job_waiting(bench):
    ask(bench)
    freeze(bench.store, "net", frozen=True, actor="eve")

    bench.worker.run_until_idle()

    assert bench.state() == "queued"
    assert bench.stages.seen == []


def test_a_revalidation_only_measures(bench):
    ask(bench, kind=JobKind.REVALIDATION)

    bench.worker.run_until_idle()

    assert bench.stages.states == ["validating"]
    assert bench.state() == "confirmed"


@pytest.mark.parametrize(
    ("error", "state", "sentence"),
    [
        (RefusedError("the gate said no"), "refused", "the gate said no"),
        (NoDataError("there is nothing"), "failed", "there is nothing"),
        (ChildError("the child was killed"), "failed", "the child was killed"),
        (ZeroDivisionError("oh"), "failed", "it failed by a defect (ZeroDivisionError: oh)"),
    ],
    ids=["refused", "no-data", "child", "defect"],
)
def test_a_stage_that_fails_ends_the_job_with_its_reason(error, state, sentence, bench):
    ask(bench)
    bench.stages.fails[JobState.RECALIBRATING] = error

    bench.worker.run_until_idle()

    assert bench.state() == state
    assert bench.store.jobs.find(1).sentence == sentence
    audited = bench.store.jobs.audit()[0]
    assert (audited.action, audited.outcome, audited.sentence) == (state, "refused", sentence)
    assert ask(bench) == 2, "the model is free for the next one"


def test_a_store_that_is_away_ends_no_job(bench):
    ask(bench)
    bench.stages.fails[JobState.SELECTING] = StoreError("not now")

    with pytest.raises(StoreError):
        bench.worker.run_until_idle()
    assert bench.state() == "selecting"

    bench.worker.run_until_idle()
    assert bench.state() == "awaiting_approval"
    assert bench.store.jobs.find(1).attempts == 1


def test_a_model_that_is_no_longer_configured_fails(bench):
    ask(bench)
    bench.config = type(bench.config)(
        database=bench.config.database, state_dirs=(), models={}, service=bench.config.service
    )

    bench.fresh_worker().run_until_idle()

    assert bench.state() == "failed"
    assert "no longer configured" in bench.store.jobs.find(1).sentence


def test_after_a_kill_the_state_begins_anew_but_not_for_ever(bench):
    ask(bench)
    for _ in range(2):
        bench.stages.fails[JobState.SELECTING] = KeyboardInterrupt()  # what ends a process
        with pytest.raises(KeyboardInterrupt):
            bench.fresh_worker().run_until_idle()
    assert told(bench)[1:] == [("selecting", "entered"), ("selecting", "resumed")]

    bench.stages.fails[JobState.SELECTING] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.fresh_worker().run_until_idle()
    bench.fresh_worker().run_until_idle()

    assert bench.state() == "failed"
    assert "ended 3 times while this job was selecting" in bench.store.jobs.find(1).sentence


def test_a_job_that_waits_is_cancelled_at_once(bench):
    ask(bench)

    assert cancel(bench.store, 1, actor="eve", note="wrong model") == (
        "cancelled by eve: wrong model"
    )
    bench.worker.run_until_idle()

    assert bench.state() == "cancelled"
    assert bench.stages.seen == []


def test_a_candidate_that_waits_can_be_turned_down(bench):
    ask(bench)
    bench.worker.run_until_idle()

    cancel(bench.store, 1, actor="eve")

    assert bench.state() == "cancelled"
    with pytest.raises(RefusedError, match="only a job that awaits approval"):
        approve(bench.store, bench.contract, 1, actor="ann")


def test_a_running_job_ends_at_its_next_step(bench):
    ask(bench)
    run = bench.stages.run

    def meanwhile(work):
        if work.job.state is JobState.RECALIBRATING:
            cancel(bench.store, 1, actor="eve")
            bench.worker.unwant(1)
        return run(work)

    bench.stages.run = meanwhile
    bench.worker.run_until_idle()

    assert bench.state() == "cancelled"
    assert told(bench)[-2:] == [
        ("recalibrating", "cancel_requested"),
        ("cancelled", "entered"),
    ]


def test_a_job_that_shall_end_does_so_even_where_the_service_was_killed_first(bench):
    ask(bench)
    bench.stages.fails[JobState.SELECTING] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.worker.run_until_idle()
    cancel(bench.store, 1, actor="eve")

    bench.fresh_worker().run_until_idle()

    assert bench.state() == "cancelled"


def test_what_a_stage_brings_is_dropped_where_somebody_ended_the_job_meanwhile(bench):
    ask(bench)
    recorded = []
    run = bench.stages.run

    def meanwhile(work):
        result = run(work)
        bench.store.jobs.step(Step(job=1, state=JobState.CANCELLED, sentence="by somebody else"))
        return StageResult(
            state=result.state,
            sentence=result.sentence,
            document=result.document,
            record=lambda store: recorded.append(1),
        )

    bench.stages.run = meanwhile
    bench.worker.run_until_idle()

    assert bench.state() == "cancelled"
    assert recorded == []


@pytest.mark.parametrize("state", [JobState.PROMOTED, JobState.REFUSED, JobState.FAILED])
def test_nothing_can_be_done_to_a_finished_job(state, bench):
    ask(bench)
    bench.store.jobs.step(Step(job=1, state=state, sentence="over"))

    with pytest.raises(RefusedError, match=f"job 1 has finished: it was {state}"):
        cancel(bench.store, 1, actor="eve")
    with pytest.raises(RefusedError, match="can be approved"):
        approve(bench.store, bench.contract, 1, actor="eve")
    assert [row.outcome for row in bench.store.jobs.audit()[:2]] == ["refused", "refused"]


def test_a_candidate_is_approved_once(bench):
    ask(bench)
    bench.worker.run_until_idle()
    approve(bench.store, bench.contract, 1, actor="eve")

    with pytest.raises(RefusedError, match="was approved by eve"):
        approve(bench.store, bench.contract, 1, actor="ann")
    with pytest.raises(RefusedError, match="is being promoted"):
        cancel(bench.store, 1, actor="ann")


def test_a_frozen_model_is_not_approved(bench):
    ask(bench)
    bench.worker.run_until_idle()
    freeze(bench.store, "", frozen=True, actor="eve")

    with pytest.raises(RefusedError, match="every model was frozen by eve"):
        approve(bench.store, bench.contract, 1, actor="ann")
    assert bench.state() == "awaiting_approval"


def test_there_are_no_jobs_but_those_that_there_are(bench):
    for act in (
        lambda: cancel(bench.store, 9, actor="eve"),
        lambda: approve(bench.store, bench.contract, 9, actor="eve"),
    ):
        with pytest.raises(NoDataError, match="there is no job 9"):
            act()


def test_the_folder_of_a_job_goes_with_it(bench):
    ask(bench)
    folder = job_folder(bench.contract, 1)
    folder.mkdir(parents=True)
    (folder / "model.pt2").write_bytes(b"x")
    bench.worker.run_until_idle()
    assert folder.exists(), "an approval still needs the candidate"

    cancel(bench.store, 1, actor="eve")
    approved = ask(bench)
    bench.stages.fails[JobState.SELECTING] = NoDataError("nothing")
    job_folder(bench.contract, approved).mkdir(parents=True)
    bench.worker.run_until_idle()

    assert not job_folder(bench.contract, approved).exists()


def test_on_its_own_thread_it_wakes_up_and_stops(bench):
    waiting, running = threading.Event(), threading.Event()
    run = bench.stages.run

    def slowly(work):
        running.set()
        assert waiting.wait(DEADLINE)
        return run(work)

    bench.stages.run = slowly
    database = DirectDatabase(bench.store)
    worker = Worker(database, bench.config, bench.stages)
    ask(bench)
    worker.start()
    assert running.wait(DEADLINE)
    assert worker.live() is None
    waiting.set()
    idle = threading.Event()
    for _ in range(3_000):
        if database.run(lambda store: bench.state()) == "awaiting_approval":
            break
        idle.wait(0.01)
    worker.stop(DEADLINE)

    assert bench.state() == "awaiting_approval"


def test_a_job_that_is_under_way_when_the_service_ends_goes_on_with_the_next(bench):
    ask(bench)
    run = bench.stages.run

    def stopped(work):
        if len(bench.stages.seen) == 1:
            bench.worker.stop()
        return run(work)

    bench.stages.run = stopped
    bench.worker.run_until_idle()
    assert bench.state() == "recalibrating"

    bench.fresh_worker().run_until_idle()
    assert bench.state() == "awaiting_approval"
    assert [s.event for s in bench.store.jobs.steps(1)].count(JobEvent.RESUMED) == 1


class Flaky:
    """A database that is away for some calls."""

    def __init__(self, store, error):
        self.inner = DirectDatabase(store)
        self.error = error
        self.away = 0

    def run(self, work):
        if self.away:
            self.away -= 1
            raise self.error
        return self.inner.run(work)


@pytest.mark.parametrize("error", [StoreError("not now"), ZeroDivisionError("a defect")], ids=str)
def test_its_thread_outlives_a_database_that_is_away_and_a_defect(error, bench, monkeypatch):
    monkeypatch.setattr("calidrift_analyzer.jobs._worker._RETRY_SECONDS", 0.01)
    ask(bench)
    database = Flaky(bench.store, error)
    database.away = 2
    worker = Worker(database, bench.config, bench.stages)

    worker.start()

    wait_for(database, bench, "awaiting_approval")
    worker.stop(DEADLINE)


def test_what_minutes_of_work_came_to_waits_for_the_database(bench, monkeypatch):
    """A full disk while the outcome is kept: the work is not done again."""
    monkeypatch.setattr("calidrift_analyzer.jobs._worker._RETRY_SECONDS", 0.01)
    ask(bench)
    database = Flaky(bench.store, StoreError("the disk is full"))
    worker = Worker(database, bench.config, bench.stages)
    run = bench.stages.run

    def full(work):
        result = run(work)
        if work.job.state is JobState.VALIDATING:
            database.away = 3
        return result

    bench.stages.run = full
    worker.start()

    wait_for(database, bench, "awaiting_approval")
    worker.stop(DEADLINE)
    assert bench.stages.states.count("validating") == 1


def wait_for(database, bench, state):
    pause = threading.Event()
    for _ in range(3_000):
        if database.inner.run(lambda store: bench.state()) == state:
            return
        pause.wait(0.01)
    raise AssertionError(f"the job never came to {state}")
