"""A move that nobody recorded is recorded once, and with what is known of it."""

import importlib.util
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from calidrift_agent._registry import VersionLayout
from calidrift_analyzer.jobs import Order, notice_move, order_job
from calidrift_analyzer.promote import promote, rollback
from calidrift_analyzer.records import JobKind, Trigger
from calidrift_analyzer.store import Store

SPEC = importlib.util.spec_from_file_location("harness", Path(__file__).parent / "harness.py")
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)


@pytest.fixture
def site(tmp_path):
    """A configuration, its database, and a way to move its model beside it."""
    config = harness.configured(tmp_path)
    contract = config.models["net"]
    report = harness.make_report(harness.make_candidate(tmp_path / "candidate"))
    with Store.open(config.database) as store:
        site = type("Site", (), {})()
        site.store, site.contract, site.config = store, contract, config
        site.promote = lambda: promote(report.candidate, report, contract.registry, "net").id
        site.notice = lambda settled=0.0: notice_move(store, contract, settled_seconds=settled)
        site.moves = lambda: [
            (row.version, row.action) for row in reversed(store.outcomes.versions("net"))
        ]
        yield site


def test_promotions_and_rollbacks_are_recorded_once(site):
    assert site.notice() is None, "nothing was promoted"
    first = site.promote()
    assert first in site.notice()
    second = site.promote()
    assert f"{second} serves in place of {first}" in site.notice()
    rollback(site.contract.registry, "net")
    assert site.notice() is not None

    assert site.notice() is None
    assert site.moves() == [(first, "promoted"), (second, "promoted"), (first, "rolled_back")]
    [last, *_] = site.store.jobs.audit()
    assert (last.actor, last.action, last.subject) == ("somebody", "rollback", first)
    assert {row.profile for row in site.store.outcomes.versions("net")} <= set(
        site.store.profile_digests()
    )


def test_the_moment_of_the_move_is_kept(site):
    site.promote()
    pointer = VersionLayout(site.contract.registry, "net").pointer
    os.utime(pointer, ns=(10**18, 10**18))

    site.notice()

    assert site.store.outcomes.versions("net")[0].created_ns == 10**18


def test_a_young_move_is_left_to_whoever_made_it(site):
    site.promote()

    assert site.notice(settled=600.0) is None
    assert site.moves() == []


def test_a_move_from_the_future_is_recorded_all_the_same(site):
    site.promote()
    ahead = time.time() + 86_400
    os.utime(VersionLayout(site.contract.registry, "net").pointer, (ahead, ahead))

    assert site.notice(settled=600.0) is not None


def test_a_job_records_its_own_promotion(site):
    site.notice()
    order = Order(
        model="net",
        kind=JobKind.RECALIBRATION,
        trigger=Trigger.COMMAND,
        cause="",
        actor="eve",
    )
    order_job(site.store, order, site.config.service)
    job = site.store.jobs.open_jobs()[0]
    site.promote()
    open_jobs = site.store.jobs.open_jobs

    assert job.approved_by is None
    site.store.jobs.open_jobs = lambda: (replace(job, approved_by="eve"),)
    assert site.notice() is None
    site.store.jobs.open_jobs = open_jobs
    assert site.notice() is not None


def test_a_damaged_version_is_left_to_whoever_loads_it(site):
    identity = site.promote()
    layout = VersionLayout(site.contract.registry, "net")
    (layout.version(identity) / "model.pt2").write_bytes(b"")

    assert site.notice() is None
