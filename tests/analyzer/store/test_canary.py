"""What the database says of canaries: windows of both sides, and what counts as in service."""

import dataclasses
import json
from datetime import timedelta

import numpy as np
import pytest

from calidrift_agent._state import Window
from calidrift_agent._vocabulary import Instrument, RequestColumn, Stage
from calidrift_analyzer.records import (
    CanaryTrial,
    JobKind,
    JobState,
    ObservedModel,
    Trigger,
    record_document,
)
from calidrift_analyzer.store import Landmarks, NewJob, Retention, Step

SECOND = 10**9
START = 1_800_000_000 * SECOND
TRIAL = CanaryTrial(
    version="000002-" + "b" * 16,
    profile="tried",
    serving="000001-" + "a" * 16,
    peers="serves",
    since_ns=START,
    units=100,
    hours=1.0,
)
FIGURES = ("SEEN", "SAMPLED", "OBSERVED", "UNITS", "UNITS_COVERED", "COMPARED", "RANKED", "AGREED")


def window(number, start_ns, errors=(0, 0, 0), **figures):
    found = Window.empty(1, number=number, at_ns=start_ns)
    for name, count in figures.items():
        found.requests[RequestColumn[name]] = count
    for stage, count in zip((Stage.SAMPLE, Stage.TAP, Stage.SHADOW), errors, strict=True):
        found.requests[RequestColumn.ERROR_FIRST + list(Stage).index(stage)] = count
    return dataclasses.replace(found, end_ns=start_ns + SECOND)


@pytest.fixture
def ingest(store, traffic):
    """Store one window of a process of a profile."""
    metas = {}

    def one(profile, *windows, model="net"):
        key = model, profile
        if key not in metas:
            metas[key] = traffic.meta(points=("a:input",), model=model, profile=profile)
        store.ingest(metas[key], windows, batch=store.next_batch())

    return one


def test_both_sides_come_in_the_order_of_arrival(store, ingest):
    ingest("tried", window(0, START + 5 * SECOND, UNITS=10, UNITS_COVERED=7, SAMPLED=12))
    ingest("serves", window(0, START, UNITS=30, UNITS_COVERED=30, SAMPLED=30))
    ingest("other", window(0, START, UNITS=99, UNITS_COVERED=0))
    ingest("tried", window(0, START, UNITS=99, UNITS_COVERED=0), model="another")
    ingest("serves", window(1, START + 9 * SECOND, (1, 2, 3), UNITS=4, UNITS_COVERED=4, SAMPLED=9))

    found = store.canaries.windows("net", TRIAL)

    assert found.canary.tolist() == [True, False, False]
    assert (found.started_ns - START).tolist() == [5 * SECOND, 0, 9 * SECOND]
    assert found.units.tolist() == [10, 30, 4]
    assert found.bad.tolist() == [[3, 0, 0], [0, 0, 0], [0, 0, 6]]
    assert found.of.tolist() == [[10, 0, 12], [30, 0, 30], [4, 0, 9]]


def test_what_began_before_the_trial_does_not_count(store, ingest):
    ingest("tried", window(0, START - 1, UNITS=10), window(1, START, UNITS=20))
    assert store.canaries.windows("net", TRIAL).units.tolist() == [20]


def test_other_classes_count_in_windows_that_count_by_classes_alone(store, ingest):
    ingest(
        "tried",
        window(0, START, UNITS=5, COMPARED=5, RANKED=5, AGREED=3),
        window(1, START, UNITS=5, COMPARED=5, RANKED=4, AGREED=1),
    )
    found = store.canaries.windows("net", TRIAL)
    assert found.bad[:, 1].tolist() == [2, 0]
    assert found.of[:, 1].tolist() == [5, 0]


def test_bad_is_never_above_of(store, ingest):
    ingest("tried", window(0, START, (9, 9, 9), SAMPLED=5, COMPARED=3, RANKED=3, AGREED=9))
    found = store.canaries.windows("net", TRIAL)
    assert found.bad.tolist() == [[0, 0, 5]]
    assert np.all(found.bad <= found.of)


def test_nothing_was_recorded(store):
    found = store.canaries.windows("net", TRIAL)
    assert found.units.shape == (0,)
    assert found.bad.shape == found.of.shape == (0, 3)


def test_windows_that_were_folded_still_count_once(store, ingest):
    windows = [window(n, START + n * SECOND, UNITS=10, UNITS_COVERED=9) for n in range(120)]
    ingest("tried", *windows)
    before = store.canaries.windows("net", TRIAL)
    long = timedelta(days=3_000)
    ladder = Retention(windows=timedelta(hours=1), minutes=long, hours=long, days=long)
    store.retain(ladder, lambda *_: Landmarks(), now_ns=START + 10**15)
    after = store.canaries.windows("net", TRIAL)
    assert after.units.size < before.units.size
    assert after.units.sum() == before.units.sum() == 1_200
    assert after.bad[:, 0].sum() == 120


def observed(profile, last_ns):
    return ObservedModel("net", profile, Instrument.RANGE, 1, last_ns, last_ns)


@pytest.fixture
def job(store):
    """Put a job of `net` into a state behind its canary; gives when."""

    def come(*states):
        number = store.jobs.add(
            NewJob(
                model="net",
                kind=JobKind.RECALIBRATION,
                trigger=Trigger.API,
                cause="",
                actor="ann",
                sentence="q",
            )
        )
        document = {"trial": record_document(TRIAL)}
        for state in (JobState.CANARY, *states):
            store.jobs.step(Step(job=number, state=state, sentence="s", document=document))
        return store.jobs.find(number).updated_ns

    return come


def test_without_a_trial_the_most_recent_is_in_service(store):
    found = [observed("new", 9), observed("old", 5)]
    assert store.canaries.in_service(found).profile == "new"


def test_what_is_tried_is_not_in_service(store, job):
    job()
    assert store.canaries.in_service([observed("tried", 9), observed("old", 5)]).profile == "old"
    assert store.canaries.in_service([observed("old", 9), observed("tried", 5)]).profile == "old"
    assert store.canaries.in_service([observed("tried", 9)]).profile == "tried", "nothing else is"


def test_one_that_was_promoted_is_in_service(store, job):
    job(JobState.PROMOTED)
    assert store.canaries.in_service([observed("tried", 9), observed("old", 5)]).profile == "tried"


def test_one_that_was_withdrawn_is_so_only_minutes_later(store, job):
    at = job(JobState.REFUSED)
    late = [observed("tried", at + 10**9), observed("old", at)]
    assert store.canaries.in_service(late).profile == "old", "the last windows that it wrote"
    again = [observed("tried", at + 301 * 10**9), observed("old", at)]
    assert store.canaries.in_service(again).profile == "tried", "somebody rolled to it"


def test_a_job_behind_its_canary_is_open(store, job):
    job()
    assert [one.state for one in store.jobs.open_jobs("net")] == [JobState.CANARY]
    document = json.loads(store.jobs.steps(1)[-1].document)
    assert document["trial"]["profile"] == "tried"
