"""What the service does by itself, and what it keeps of it."""

import dataclasses
import json
import threading
import time

import pytest

from calidrift_analyzer.config import Mode, RetentionConfig
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import Mute
from calidrift_analyzer.service._metrics import analyzer_registry
from calidrift_analyzer.service._schedule import Schedule, Task

DEADLINE = 30.0


def wait_until(holds):
    pause = threading.Event()
    for _ in range(3_000):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it never came to it")


def test_drift_that_does_harm_becomes_one_job(site, traffic):
    site.record(traffic)

    sentence = site.service.tasks.assess()
    for _ in range(3):
        site.service.tasks.assess()
    site.wait("awaiting_approval")

    assert sentence == "models assessed: 1"
    [job] = site.get("/jobs").json()["items"]
    assert (job["trigger"], job["actor"], job["model"]) == ("alarm", "service", "net")
    assert job["cause"].startswith("traffic left the calibrated range")


def test_the_same_alarm_is_one_job_for_ever_also_after_a_restart(site, traffic):
    site.record(traffic)
    site.service.tasks.assess()
    site.wait("awaiting_approval")
    site.post("/jobs/1/cancel")

    site.service.tasks.assess()

    assert len(site.get("/jobs").json()["items"]) == 1


def test_calm_traffic_becomes_none(site, traffic):
    site.record(traffic, drift=0.9)

    site.service.tasks.assess()

    assert site.get("/models/net").json()["verdict"] == "not_drifted"
    assert site.get("/jobs").json()["items"] == []


def test_a_muted_alarm_becomes_none_until_the_mute_ends(site, traffic):
    site.record(traffic)
    now = time.time_ns()
    mute = Mute(
        model="net", point=None, created_ns=now, until_ns=now + 10**13, reason="r", author="eve"
    )
    site.run(lambda store: store.annotations.mute(mute))

    site.service.tasks.assess()
    assert site.get("/jobs").json()["items"] == []

    site.run(lambda store: store.annotations.unmute(mute, author="eve"))
    site.service.tasks.assess()
    assert len(site.get("/jobs").json()["items"]) == 1


def test_where_recalibration_is_off_the_alarm_stays_an_alarm(make_site, traffic):
    site = make_site(mode=Mode.OFF)
    site.record(traffic)

    site.service.tasks.assess()
    site.service.tasks.assess()

    assert site.get("/jobs").json()["items"] == []
    [told] = site.get("/audit").json()["items"]
    assert (told["outcome"], told["actor"]) == ("refused", "service")
    assert "recalibration is off" in told["sentence"]


def test_where_only_alerts_may_ask_its_own_alarm_orders_nothing(make_site, traffic):
    site = make_site(own_alarms=False)
    site.record(traffic)

    site.service.tasks.assess()

    assert site.get("/models/net").json()["alarm"] is not None
    assert site.get("/jobs").json()["items"] == []
    assert site.get("/audit").json()["items"] == []
    answer = site.post("/jobs", {"model": "net"})
    assert answer.status_code == 202


def test_an_assessment_that_says_nothing_new_is_not_kept_each_time(site, traffic):
    site.record(traffic, drift=0.9)

    for _ in range(4):
        site.service.tasks.assess()

    assert len(site.get("/models/net/assessments").json()["items"]) == 1
    assert site.get("/models/net").json()["assessed"] is not None


def test_nothing_is_judged_again_where_nothing_came_in_between(site, traffic, monkeypatch):
    from calidrift_analyzer.service import _tasks

    meta, _, windows = site.record(traffic, drift=0.9)
    judged = []

    def counted(store, model, **more):
        judged.append(model)
        return original(store, model, **more)

    original = _tasks.assess_stored
    monkeypatch.setattr(_tasks, "assess_stored", counted)

    for _ in range(3):
        site.service.tasks.assess()
    assert judged == ["net"]

    late = dataclasses.replace(windows[-1], number=windows[-1].number + 1)
    site.run(lambda store: store.ingest(meta, [late], batch=store.next_batch()))
    site.service.tasks.assess()
    assert judged == ["net", "net"]
    assert site.get("/models/net").json()["units"] == 280


def test_a_new_alarm_is_kept_at_once_though_the_verdict_is_the_same(site, traffic):
    meta, profile, windows = site.record(traffic, drift=0.9)
    site.service.tasks.assess()

    values = [traffic.rng.uniform(-4, 4, (80, 16)), traffic.rng.uniform(-0.5, 0.5, (80, 16))]
    bounds = [profile.points[name].observed_bound.value for name in ("a:input", "b:input")]
    for number, order in ((6, values), (7, values[::-1])):
        window = traffic.unit_window(number, order, bounds, start_ns=windows[0].start_ns)
        site.run(lambda store, w=window: store.ingest(meta, [w], batch=store.next_batch()))
        site.service.tasks.assess()

    alarms = site.run(lambda store: store.outcomes.alarms("net", profile.digest))
    assert {alarm.point for alarm in alarms} == {"a:input", "b:input"}


def test_a_model_that_cannot_be_judged_does_not_hide_the_others(site, traffic):
    site.record(traffic, drift=0.9)
    meta = traffic.meta(model="other", profile="ab" * 32)

    def work(store):
        store.ingest(meta, [traffic.random_window(0)], batch=store.next_batch())

    site.run(work)
    site.run(lambda store: store.put_profile(traffic.profile({"zzz": traffic.rng.random((9, 4))})))

    row = site.service.schedule.run_now("assess")

    assert site.get("/models/net").json()["verdict"] == "not_drifted"
    assert site.get("/models/other").json()["verdict"] in (None, "no_reference")
    assert isinstance(row.sentence, str)


def test_state_directories_are_read(site, traffic, tmp_path):
    row = site.service.schedule.run_now("ingest")
    assert row.succeeded
    assert "could not be read" in row.sentence  # the folder does not exist yet

    from calidrift_agent._state import StateWriter

    (tmp_path / "state").mkdir()
    writer = StateWriter.create(tmp_path / "state", traffic.meta(started_ns=1))
    writer.close()
    row = site.service.schedule.run_now("ingest")
    assert row.succeeded, row.sentence


def test_retention_runs_and_says_what_it_did(site, traffic):
    site.record(traffic)

    row = site.service.schedule.run_now("retention")

    assert row.succeeded, row.sentence
    assert "records were folded into" in row.sentence


def test_a_database_that_cannot_be_held_to_its_limit_is_a_failure(make_site, traffic):
    site = make_site(retention=RetentionConfig(max_database_bytes=1))
    site.record(traffic)

    row = site.service.schedule.run_now("retention")

    assert not row.succeeded
    assert "raise the limit" in row.sentence


def test_what_serves_is_measured_again_only_where_something_serves(site):
    nothing = site.service.schedule.run_now("revalidation")
    pointer = site.root / "registry" / "net" / "current"
    pointer.parent.mkdir(parents=True)
    pointer.write_text(json.dumps({}))

    ordered = site.service.schedule.run_now("revalidation")

    assert nothing.sentence == "nothing was promoted yet"
    assert ordered.sentence == "net: job 1 is queued"
    assert site.get("/jobs/1").json()["job"]["kind"] == "revalidation"


def test_outcomes_and_the_last_success_are_kept(site):
    site.service.schedule.run_now("assess")
    good = site.get("/tasks").json()[0]
    site.service.tasks.board.show(site.service.board.figures())
    site.service.owner._available = False
    bad = site.service.schedule.run_now("assess")
    site.service.owner._available = True
    site.service.schedule.run_now("assess")
    after = site.get("/tasks").json()[0]

    assert good["task"] == "assess"
    assert good["succeeded"]
    assert good["last_success"] is not None
    assert not bad.succeeded
    assert (after["runs"], after["failures"]) == (2, 0), "one could not be kept"


class Clock:
    def __init__(self, fails=False):
        self.ran = threading.Semaphore(0)
        self.fails = fails

    def __call__(self):
        self.ran.release()
        if self.fails:
            raise StoreError("not today")
        return "done"


@pytest.fixture
def schedule(site):
    made = []

    def make(*tasks):
        _, durations = analyzer_registry(site.service.board)
        one = Schedule(tasks, site.service.owner, durations)
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()


def test_tasks_run_at_the_start_and_then_in_time(schedule):
    clock = Clock()
    one = schedule(Task(name="t", run=clock, seconds=0.02))

    one.start()

    for _ in range(3):
        assert clock.ran.acquire(timeout=DEADLINE)


def test_a_failure_is_kept_and_the_next_run_comes_all_the_same(schedule, site):
    clock = Clock(fails=True)
    one = schedule(Task(name="t", run=clock, seconds=0.02))

    one.start()

    for _ in range(3):
        assert clock.ran.acquire(timeout=DEADLINE)
    [row] = site.get("/tasks").json()
    assert (row["succeeded"], row["sentence"], row["last_success"]) == (False, "not today", None)


def test_never_is_never(schedule):
    clock = Clock()
    one = schedule(Task(name="never", run=clock, seconds=0))
    one.start()

    assert one._scheduler.get_jobs() == []


def test_a_long_period_outlives_the_service(schedule, site):
    """What is due once a week runs once a week, however often the service starts."""
    clock = Clock()
    task = Task(name="weekly", run=clock, seconds=604_800.0, at_start=False)
    fresh = schedule(task)
    fresh.start()
    first = fresh._scheduler.get_job("weekly").next_run_time.timestamp()
    fresh.run_now("weekly")
    again = schedule(task)
    again.start()
    second = again._scheduler.get_job("weekly").next_run_time.timestamp()

    assert first == pytest.approx(time.time() + 604_800, abs=600)
    assert second == pytest.approx(time.time() + 604_800, abs=600)


def test_what_was_due_while_the_service_was_down_runs_at_once(schedule, site):
    from calidrift_analyzer.records import TaskRow

    long_ago = time.time_ns() - 10**18
    row = TaskRow(
        task="weekly",
        started_ns=long_ago,
        ended_ns=long_ago,
        succeeded=True,
        sentence="",
        last_success_ns=None,
        runs=0,
        failures=0,
    )
    site.run(lambda store: store.jobs.record_task(row))
    clock = Clock()

    schedule(Task(name="weekly", run=clock, seconds=604_800.0, at_start=False)).start()

    assert clock.ran.acquire(timeout=DEADLINE)


def test_memory_is_given_back_once_nothing_comes_any_more(site, traffic, monkeypatch):
    from calidrift_analyzer.store import Store

    released = []
    monkeypatch.setattr(Store, "release_memory", lambda self: released.append(self))
    site.record(traffic)
    runs = []
    for _ in range(4):
        site.service.tasks.assess()
        runs.append(len(released))

    assert runs == [0, 1, 1, 1], "the second run finds nothing new"
    site.record(traffic)
    site.service.tasks.assess()
    assert len(released) == 1
    site.service.tasks.assess()
    assert len(released) == 2
