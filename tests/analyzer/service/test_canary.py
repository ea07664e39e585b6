"""What the service tells of a version on canaries: API, metrics, schedule and page."""

import dataclasses
import time
from pathlib import Path

import pytest

from calidrift_agent._state import Window
from calidrift_agent._vocabulary import RequestColumn
from calidrift_analyzer.jobs import StageResult
from calidrift_analyzer.records import (
    CanaryComparison,
    CanaryLook,
    CanaryMeasure,
    CanaryTrial,
    JobEvent,
    JobKind,
    JobState,
    Trigger,
    record_document,
)
from calidrift_analyzer.service import LocalDesk
from calidrift_analyzer.store import NewJob, Step, Store

SECOND = 10**9


def look(bad=0, number=1):
    rows = [(CanaryMeasure.UNITS_OUTSIDE, bad, 250, 10, 2_250, 1e-9 if bad else 1.0)]
    rows += [(CanaryMeasure.OTHER_CLASS, 0, 0, 0, 0, None)]
    rows += [(CanaryMeasure.AGENT_ERRORS, 1, 250, 9, 2_250, 0.65)]
    names = ("measure", "canary_bad", "canary_of", "peers_bad", "peers_of", "p")
    return CanaryLook(
        look=number,
        looks=3,
        mark=250,
        units=250,
        peers=2_250,
        comparisons=tuple(CanaryComparison(**dict(zip(names, row, strict=True))) for row in rows),
        level=0.01 / 9,
    )


@pytest.fixture
def trial():
    return CanaryTrial(
        version="000002-" + "b" * 16,
        profile="tried",
        serving="000001-" + "a" * 16,
        peers="serves",
        since_ns=time.time_ns() - 60 * SECOND,
        units=1_000,
        hours=24.0,
    )


@pytest.fixture
def tried(make_site, trial, traffic):
    """A service with job 1 behind its canary, which the stages leave there."""
    site = make_site()
    site.looked = []
    run = site.stages.run

    def stay(work):
        if work.job.state is not JobState.CANARY:
            return run(work)
        site.looked.append(work.job.job)
        if work.job.cancel_requested:
            return StageResult(state=JobState.CANCELLED, sentence="withdrawn", document={})
        return None

    site.stages.run = stay
    metas = {name: traffic.meta(profile=name) for name in ("tried", "serves")}

    def write(store):
        job = store.jobs.add(
            NewJob(
                model="net",
                kind=JobKind.RECALIBRATION,
                trigger=Trigger.API,
                cause="",
                actor="ann",
                sentence="q",
            )
        )
        entered = {"trial": record_document(trial)}
        store.jobs.step(
            Step(
                job=job,
                state=JobState.AWAITING_APPROVAL,
                event=JobEvent.APPROVED,
                actor="ann",
                sentence="approved by ann",
            )
        )
        store.jobs.step(
            Step(job=job, state=JobState.CANARY, sentence="it serves on canaries", document=entered)
        )
        for name, units in (("tried", 512), ("serves", 9_000)):
            window = Window.empty(2, number=0, at_ns=trial.since_ns + SECOND)
            window.requests[RequestColumn.UNITS] = units
            window.requests[RequestColumn.UNITS_COVERED] = units
            window = dataclasses.replace(window, end_ns=window.start_ns + SECOND)
            store.ingest(metas[name], [window], batch=store.next_batch())

    site.run(write)
    return site


def take(site, taken, decision=""):
    step = Step(
        job=1,
        state=JobState.CANARY,
        event=JobEvent.LOOKED,
        sentence="looked",
        document={"look": record_document(taken), "decision": decision},
    )
    site.run(lambda store: store.jobs.step(step))


def test_a_job_tells_how_far_its_canary_is(tried, trial):
    found = tried.get("/jobs/1").json()
    assert found["job"]["state"] == "canary"
    progress = found["job"]["progress"]
    assert (progress["what"], progress["done"], progress["total"]) == (
        "units on canaries (peers 9,000)",
        512,
        1_000,
    )
    canary = found["canary"]
    assert (canary["version"], canary["serving"]) == (trial.version, trial.serving)
    assert (canary["units"], canary["peers"], canary["wanted"]) == (512, 9_000, 1_000)
    assert (canary["look"], canary["looks"], canary["measures"]) == (0, 3, [])


def test_the_last_look_is_told_with_its_figures(tried):
    take(tried, look())
    take(tried, look(bad=40, number=2), "withdraw")
    canary = tried.get("/jobs/1").json()["canary"]
    assert canary["look"] == 2
    outside, other, errors = canary["measures"]
    assert outside == {
        "measure": "units_outside",
        "canary_bad": 40,
        "canary_of": 250,
        "peers_bad": 10,
        "peers_of": 2_250,
        "p": 1e-9,
        "worse": True,
    }
    assert (other["p"], other["worse"]) == (None, False)
    assert (errors["measure"], errors["worse"]) == ("agent_errors", False)


def test_after_the_end_the_units_are_those_of_the_last_look(tried):
    take(tried, look())
    tried.run(
        lambda store: store.jobs.step(
            Step(job=1, state=JobState.REFUSED, sentence="it was withdrawn")
        )
    )
    found = tried.get("/jobs/1").json()
    assert found["job"]["progress"] is None
    assert (found["canary"]["units"], found["canary"]["peers"]) == (250, 2_250)


def test_a_document_of_another_version_hides_the_canary_and_not_the_job(tried):
    take(tried, look())
    step = Step(
        job=1,
        state=JobState.CANARY,
        event=JobEvent.LOOKED,
        sentence="looked",
        document={"look": {"of": "another version"}},
    )
    tried.run(lambda store: store.jobs.step(step))
    found = tried.get("/jobs/1").json()
    assert (found["job"]["state"], found["canary"]) == ("canary", None)


def test_jobs_without_one_have_none(site):
    site.post("/jobs", {"model": "net"})
    assert site.wait("awaiting_approval")["canary"] is None


def test_the_task_has_the_worker_look(tried):
    row = tried.service.schedule.run_now("canary")
    assert (row.succeeded, row.sentence) == (True, "net: it serves on canaries")
    until = time.monotonic() + 30.0
    while not tried.looked:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_task_has_nothing_to_say_without_any(site):
    assert site.service.schedule.run_now("canary").sentence == "nothing is tried on canaries"


def test_the_state_is_counted(tried):
    tried.service.tasks.refresh()
    text = tried.http.get("/metrics").text
    assert 'calidrift_analyzer_open_jobs{model="net",state="canary"} 1.0' in text


def test_it_can_be_cancelled(tried):
    answer = tried.post("/jobs/1/cancel", {"note": "not today"})
    assert answer.status_code == 200
    assert tried.wait("cancelled")["job"]["sentence"] == "withdrawn"


def test_another_job_has_to_wait(tried):
    answer = tried.post("/jobs", {"model": "net"})
    assert answer.status_code == 409
    assert "job 1 of net is on canaries; one job at a time" in answer.json()["detail"]


def test_the_model_is_judged_by_what_its_peers_serve(tried):
    tried.service.tasks.assess()
    assert tried.get("/models/net").json()["profile"] == "serves"


def test_the_page_shows_a_table(tried):
    page = tried.http.get("/jobs/1").text
    assert "Canaries beside their peers" in page
    assert "512 of 1,000 units (peers 9,000)" in page
    assert "Nothing was compared yet." in page
    assert 'href="/jobs/1/cancel"' in page

    take(tried, look(bad=40))
    page = tried.http.get("/jobs/1").text
    assert "Look 1 of 3." in page
    for text in ("<td>40 of 250</td>", "<td>10 of 2,250</td>", "worse</span>", "not measured"):
        assert text in page


def test_the_page_of_a_job_without_canaries_names_none(site):
    site.post("/jobs", {"model": "net"})
    site.wait("awaiting_approval")
    assert "canar" not in site.http.get("/jobs/1").text


def test_commands_show_it(tmp_path, tried):
    config = tried.config
    tried.service.stop()
    with Store.open(Path(config.database)) as store:
        found = LocalDesk(config, store, "ann").read("job", job=1)
    assert found["canary"]["units"] == 512
