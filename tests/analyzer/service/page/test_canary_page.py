"""The page of a job behind its canary keeps the promises of all pages."""

import time

import pytest

from calidrift_analyzer.records import (
    CanaryComparison,
    CanaryLook,
    CanaryMeasure,
    CanaryTrial,
    JobEvent,
    JobState,
    record_document,
)
from calidrift_analyzer.store import Step


@pytest.fixture
def tried(drifted):
    """The service whose model drifted; its job was cancelled behind its canary."""
    trial = CanaryTrial(
        version="000002-" + "b" * 16,
        profile="tried",
        serving="000001-" + "a" * 16,
        peers="serves",
        since_ns=time.time_ns(),
        units=1_000,
        hours=24.0,
    )
    counts = {"canary_bad": 40, "canary_of": 250, "peers_bad": 10, "peers_of": 2_250}
    look = CanaryLook(
        look=1,
        looks=3,
        mark=250,
        units=250,
        peers=2_250,
        comparisons=tuple(
            CanaryComparison(measure=one, p=1e-9 if place else None, **counts)
            for place, one in enumerate(CanaryMeasure)
        ),
        level=0.01 / 9,
    )
    documents = (
        (JobState.CANARY, JobEvent.ENTERED, {"trial": record_document(trial)}),
        (JobState.CANARY, JobEvent.LOOKED, {"look": record_document(look)}),
        (JobState.REFUSED, JobEvent.ENTERED, {}),
    )
    for state, event, document in documents:
        step = Step(job=1, state=state, event=event, sentence="it is so", document=document)
        drifted.run(lambda store, step=step: store.jobs.step(step))
    return drifted


def test_its_table_can_be_read_by_everybody(tried, pages):
    page = pages.read(tried.http.get("/jobs/1"))
    assert "canary beside" not in page.text
    assert "250 of 1,000 units (peers 2,250)" in page.text
    assert "40 of 250 10 of 2,250" in page.text
    assert "units outside — — — not measured" in page.text
    assert "withdrawn at" not in page.text, "it has ended"
    states = [found["class"] for tag, found in page.tags if tag == "li" and "class" in found]
    assert "past" in states
    assert "✓ canary" in page.text
