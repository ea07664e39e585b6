"""What jobs and rollbacks say of publishing, and that a store that is away undoes nothing."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import pytest

from calidrift_analyzer.jobs import DirectDatabase, RealStages, StageWork, take_back
from calidrift_analyzer.records import JobKind, JobState, Trigger, record_document
from calidrift_analyzer.store import NewJob, Step

SPEC = importlib.util.spec_from_file_location("harness", Path(__file__).parent / "harness.py")
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

URL = "faulty://bucket/models"


@pytest.fixture
def contract(bench):
    return dataclasses.replace(bench.contract, registry_url=URL)


@pytest.fixture
def promoted(bench, contract, tmp_path):
    """Promote a candidate as a job does; give the result of the stage."""

    def promote(newest=0):
        report = harness.make_report(harness.make_candidate(tmp_path / "candidate"))
        job = bench.store.jobs.add(
            NewJob(
                model="net",
                kind=JobKind.RECALIBRATION,
                trigger=Trigger.API,
                cause="",
                actor="ann",
                sentence="q",
            )
        )
        bench.store.jobs.step(Step(job=job, state=JobState.AWAITING_APPROVAL, sentence="there"))
        return RealStages().run(
            StageWork(
                job=bench.store.jobs.find(job),
                contract=contract,
                document={"report": record_document(report)},
                newest=newest,
                database=DirectDatabase(bench.store),
                progress=lambda what, done, total: None,
            )
        )

    return promote


def named(faulty):
    return json.loads(faulty.objects["/bucket/models/net/current"])["version"]


def test_a_job_publishes_what_it_promotes(promoted, faulty):
    result = promoted()
    version = result.document["version"]
    assert (result.state, named(faulty)) == (JobState.PROMOTED, version)
    assert result.sentence == (
        f"version {version} (samples-mse) serves from now on; {version} is at {URL}"
    )


def test_a_store_that_is_away_is_told_and_the_job_is_promoted_all_the_same(promoted, faulty):
    faulty.fail_at, faulty.stays_down = 1, True
    result = promoted()
    assert result.state is JobState.PROMOTED
    assert f"; it is not yet at {URL}: {URL} cannot be read" in result.sentence
    assert "it is not yet" in result.document["publication"]

    faulty.fail_at = math.inf
    faulty.stays_down = False
    again = promoted()  # as after a kill: the same version is found, and now published
    assert again.document["version"] == result.document["version"] == named(faulty)


def test_a_rollback_is_published_and_kept(bench, contract, promoted, faulty):
    first = promoted().document["version"]
    second = promoted(newest=1).document["version"]
    assert named(faulty) == second

    said = take_back(DirectDatabase(bench.store), contract, None, actor="eve")

    assert named(faulty) == first
    assert said == f"{first} serves again; {first} is at {URL}"
    kept = {(one.actor, one.action, one.subject) for one in bench.store.jobs.audit()}
    assert {("eve", "rollback", first), ("eve", "publish", first)} <= kept


def test_without_a_url_a_rollback_says_no_more_than_before(bench, contract, promoted, faulty):
    first = promoted().document["version"]
    promoted(newest=1)
    before = dict(faulty.objects)
    assert take_back(DirectDatabase(bench.store), bench.contract, None, actor="eve") == (
        f"{first} serves again"
    )
    assert faulty.objects == before
