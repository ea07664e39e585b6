"""A muted alarm does not start a repair; everything else about it goes on."""

import time

from calidrift_analyzer.cycle import CycleOptions, run_cycle
from calidrift_analyzer.records import Mute, Verdict
from calidrift_analyzer.store import Store

DRIFT = 3.0
HOUR = 3_600 * 10**9


def mute(site, point, hours=1.0):
    now = time.time_ns()
    with Store.open(site.config.database) as store:
        store.annotations.mute(
            Mute(
                model="net",
                point=point,
                created_ns=now - 2 * HOUR,
                until_ns=now + round(hours * HOUR),
                reason="retraining is planned",
                author="eve",
            )
        )


def test_muted_points_alone_start_no_repair(site, stages):
    site.serve(DRIFT)
    mute(site, "*")

    outcome = run_cycle(site.config)

    assert stages.busy == [], "no stage was started"
    assert outcome.version is None
    assert outcome.assessment.verdict is Verdict.DRIFTED_HARMFUL
    assert outcome.assessment.alarm is not None
    assert outcome.sentence.endswith("is muted, so nothing is repaired until a mute ends")
    with Store.open(site.config.database) as store:
        (row,) = store.outcomes.assessments("net")
        assert '"retraining is planned"' in row.document
        assert store.outcomes.alarms("net", site.profile.digest), "the alarm is kept"


def test_a_point_that_is_not_muted_is_repaired_as_ever(site, stages):
    site.serve(DRIFT)
    mute(site, "2:input")

    outcome = run_cycle(site.config)

    harmful = {
        one.name
        for one in outcome.assessment.points
        if one.verdict is Verdict.DRIFTED_HARMFUL and one.muted is None
    }
    assert harmful == {"0:input"}
    assert outcome.version is not None


def test_when_the_mute_ends_the_repair_starts_by_itself(site, stages):
    site.serve(DRIFT)
    mute(site, None, hours=-1.0)

    assert run_cycle(site.config).version is not None


def test_evidence_keeps_counting_under_a_mute(site, stages):
    site.serve(DRIFT, requests=20)
    mute(site, None)
    before = run_cycle(site.config).assessment
    site.serve(DRIFT, requests=40)
    after = run_cycle(site.config).assessment
    assert after.point("0:input").log10_evidence > before.point("0:input").log10_evidence
    assert after.point("0:input").muted is not None


def test_a_person_may_force_a_repair_all_the_same(site, stages):
    site.serve(DRIFT)
    mute(site, None)

    assert run_cycle(site.config, options=CycleOptions(force=True)).version is not None
