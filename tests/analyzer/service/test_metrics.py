"""`/metrics`: names of the catalogue, figures of the API, and no sample where nothing is known."""

import dataclasses
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from calidrift_agent._export import CATALOGUE, Emitter
from calidrift_analyzer.records import (
    Breach,
    DeployAction,
    DeploymentRow,
    DeployState,
    HarmBreach,
    HarmLoss,
    Interval,
    JobKind,
    JobState,
    MeasuredHarm,
    Mute,
    ServiceLevel,
    Trigger,
)
from calidrift_analyzer.service._board import Board
from calidrift_analyzer.store import NewJob, Step


def end_deployment(site):
    """Have a move been told."""

    def work(store):
        move = DeploymentRow(
            model="net",
            version="000001-a",
            previous=None,
            action=DeployAction.PROMOTE,
            registry="registry",
            manifest_sha256="0",
            created_ns=time.time_ns(),
        )
        store.deployments.tried(store.deployments.add(move), DeployState.DELIVERED, "told")

    site.run(work)
    site.service.tasks.refresh()


def scrape(site):
    answer = site.http.get("/metrics")
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found[sample.name, labels] = sample.value
    return found


def named(found, name):
    return {labels: value for (one, labels), value in found.items() if one == name}


def test_before_there_are_data_there_are_no_samples(site):
    assert scrape(site) == {}


def test_figures_are_those_of_the_assessment(site, traffic):
    site.record(traffic)
    site.service.tasks.assess()
    points = site.get("/models/net/points").json()

    found = scrape(site)

    for name, key in (
        ("calidrift_coverage_ratio", "coverage"),
        ("calidrift_sqnr_db", "sqnr_db"),
        ("calidrift_sqnr_change_db", "sqnr_change_db"),
        ("calidrift_clipped_energy_ratio", "clipped_energy"),
    ):
        values = named(found, name)
        assert len(values) == 2
        for point in points:
            labels = (("model", "net"), ("point", point["point"]))
            assert values[labels] == pytest.approx(point[key])
    assert found["calidrift_drift_alarm", (("model", "net"),)] == 1.0
    overview = site.get("/models/net").json()
    assert found["calidrift_request_coverage_ratio", (("model", "net"),)] == pytest.approx(
        overview["request_coverage"]
    )
    assert all(value > 1 for value in named(found, "calidrift_drift_evidence").values())


def test_calm_traffic_has_an_alarm_that_is_0(site, traffic):
    site.record(traffic, drift=0.9)
    site.service.tasks.assess()

    assert scrape(site)["calidrift_drift_alarm", (("model", "net"),)] == 0.0


def level(segment, *, broken):
    return ServiceLevel(
        segment=segment,
        units=400,
        outside=40 if broken else 1,
        share=Interval(0.1, 0.05, 0.2),
        declared=0.01,
        tolerance=0.01,
        log10_evidence=4.0 if broken else 0.0,
        log10_threshold=1.6,
        breach=Breach(1_900_000_000 * 10**9, 60, 6) if broken else None,
        changes_ns=(),
        units_to_breach=2_000,
    )


def harm(*, broken):
    return MeasuredHarm(
        loss=HarmLoss.DISAGREEMENT,
        units=100,
        total=20.0,
        mean=Interval(0.2, 0.1, 0.3),
        recent=None,
        tolerance=0.05,
        log10_evidence=2.0,
        log10_threshold=1.3,
        breach=HarmBreach(1_900_000_000 * 10**9, 60, 12.0) if broken else None,
        units_to_breach=294,
    )


def assessed(site, traffic, **changes):
    """The newest assessment, changed, on the board."""
    site.record(traffic, drift=0.9)
    site.service.tasks.assess()
    _, found = site.service.board.latest()["net"]
    changed = dataclasses.replace(found, **changes)
    site.service.board.put(changed)
    return changed


ALARMS = ("calidrift_service_level_alarm", "calidrift_segment_alarm", "calidrift_harm_alarm")


@pytest.mark.parametrize("what", ["all traffic", "segment", "harm"])
def test_each_kind_of_alarm_has_a_figure_of_its_own(what, site, traffic):
    assessed(
        site,
        traffic,
        service_levels=(
            level(None, broken=what == "all traffic"),
            level("night", broken=what == "segment"),
            level("day", broken=False),
        ),
        harm=harm(broken=what == "harm"),
    )

    found = scrape(site)

    model = (("model", "net"),)
    night, day = (("model", "net"), ("segment", "night")), (("model", "net"), ("segment", "day"))
    told = {labels: value for name in ALARMS[:2] for labels, value in named(found, name).items()}
    assert told == {model: what == "all traffic", night: what == "segment", day: 0.0}
    assert named(found, ALARMS[2]) == {model: what == "harm"}
    assert found["calidrift_drift_alarm", model] == 0.0


def test_what_is_not_judged_has_no_figure(site, traffic):
    assessed(site, traffic, service_levels=(), harm=None)

    found = scrape(site)

    assert [named(found, name) for name in ALARMS] == [{}, {}, {}]


def test_a_segment_about_which_nothing_is_promised_has_no_figure(site, traffic):
    """It cannot break, whatever comes: 0 would look like calm."""
    small = dataclasses.replace(level("night", broken=False), tolerance=1.0)
    assessed(site, traffic, service_levels=(level(None, broken=False), small))

    found = scrape(site)

    assert named(found, "calidrift_segment_alarm") == {}
    assert named(found, "calidrift_service_level_alarm") == {(("model", "net"),): 0.0}


def test_a_mute_of_the_model_takes_its_alarms_and_one_of_a_point_does_not(site, traffic):
    mute = Mute(model="net", point=None, created_ns=0, until_ns=2**62, reason="known", author="eve")
    broken = {
        "service_levels": (level(None, broken=True), level("night", broken=True)),
        "harm": harm(broken=True),
    }
    one = assessed(site, traffic, **broken)
    point = dataclasses.replace(one.points[0], muted=dataclasses.replace(mute, point="a:input"))
    site.service.board.put(dataclasses.replace(one, points=(point, *one.points[1:])))
    of_a_point = [value for name in ALARMS for value in named(scrape(site), name).values()]
    site.service.board.put(dataclasses.replace(one, muted=mute))
    of_the_model = [value for name in ALARMS for value in named(scrape(site), name).values()]

    assert of_a_point == [1.0, 1.0, 1.0]
    assert of_the_model == [0.0, 0.0, 0.0]


def test_segments_without_end_do_not_become_series_without_end(site, traffic):
    many = tuple(level(f"tenant{number}", broken=False) for number in range(1_000))
    assessed(site, traffic, service_levels=(level(None, broken=False), *many))

    assert len(named(scrape(site), "calidrift_segment_alarm")) == 64


def test_the_time_to_detection_is_that_of_the_traffic_of_now(site, traffic):
    """Not of months of recorded traffic, as soon as there are two assessments to compare."""
    minute = 60 * 10**9
    one = assessed(site, traffic, units_to_detect=600, seconds_to_detect=9_000.0)
    recorded = scrape(site)["calidrift_detection_seconds", (("model", "net"),)]
    busy = dataclasses.replace(one, units=one.units + 120, last_ns=one.last_ns + minute)
    site.service.board.put(busy)
    now = scrape(site)["calidrift_detection_seconds", (("model", "net"),)]

    assert recorded == 9_000.0
    assert now == pytest.approx(300.0)  # 600 units at 2 a second


@pytest.fixture
def judged(site, traffic):
    return assessed(site, traffic, units_to_detect=600, seconds_to_detect=9_000.0)


def test_traffic_of_more_than_an_hour_ago_does_not_count(judged):
    board, minute = Board(), 60 * 10**9
    for number, units in enumerate((0, 10_000, *(10_000 + 60 * one for one in range(1, 71)))):
        board.put(
            dataclasses.replace(
                judged, units=judged.units + units, last_ns=judged.last_ns + number * minute
            )
        )

    assert board.seconds_to_detect("net") == pytest.approx(600.0)


def test_without_traffic_there_is_no_time_to_detection(judged):
    board = Board()
    assert board.seconds_to_detect("net") is None
    board.put(judged)
    board.put(dataclasses.replace(judged, last_ns=judged.last_ns + 3_600 * 10**9))
    assert board.seconds_to_detect("net") is None


def test_a_new_profile_begins_to_count_anew(judged):
    board, minute = Board(), 60 * 10**9
    board.put(judged)
    board.put(
        dataclasses.replace(
            judged, profile="another", units=judged.units + 60, last_ns=judged.last_ns + minute
        )
    )

    assert board.seconds_to_detect("net") == 9_000.0


def end_revalidation(site, state, kind=JobKind.REVALIDATION):
    def work(store):
        job = store.jobs.add(
            NewJob(
                model="net",
                kind=kind,
                trigger=Trigger.SCHEDULE,
                cause="",
                actor="service",
                sentence="queued",
            )
        )
        store.jobs.step(Step(job=job, state=state, sentence="there"))

    site.run(work)
    site.service.tasks.refresh()


def test_the_last_re_validation_has_its_outcome_and_its_time(site):
    name = "calidrift_analyzer_revalidation_timestamp_seconds"
    assert named(scrape(site), name) == {}
    before = time.time()
    told = []
    for state in (JobState.CONFIRMED, JobState.REFUSED, JobState.CANCELLED, JobState.FAILED):
        end_revalidation(site, state)
        [(labels, at)] = named(scrape(site), name).items()
        told.append(dict(labels)["outcome"])
        assert before - 1 <= at <= time.time() + 1
    end_revalidation(site, JobState.REFUSED, kind=JobKind.RECALIBRATION)
    [(labels, _)] = named(scrape(site), name).items()

    assert told == ["confirmed", "refused", "refused", "failed"], "a cancelled one found nothing"
    assert dict(labels)["outcome"] == "failed"


def test_every_name_is_one_of_the_catalogue_and_nothing_of_it_is_missing(site, traffic):
    site.record(traffic)
    site.service.schedule.run_now("assess")
    site.service.board.count_rows("net", 6)
    site.service.board.count_dated_back("net", 1)
    site.wait("awaiting_approval")
    site.post("/jobs/1/approve")
    site.wait("promoted")
    site.post("/jobs", {"model": "net"})
    site.wait("awaiting_approval", job=2)
    end_revalidation(site, JobState.CONFIRMED)
    end_deployment(site)
    _, found = site.service.board.latest()["net"]
    more = {"harm": harm(broken=False), "seconds_to_detect": 60.0}
    levels = (level(None, broken=False), level("night", broken=False))
    site.service.board.put(dataclasses.replace(found, service_levels=levels, **more))

    names = {name for name, _ in scrape(site)}

    wanted = {one.name for one in CATALOGUE if one.emitter is Emitter.ANALYZER}
    bare = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names
    }
    bare = {name for name in bare if not name.endswith("_created")}
    assert bare == wanted


def test_jobs_are_counted_by_their_outcome_and_survive_a_restart(site):
    for job, end in ((1, "approve"), (2, "cancel")):
        site.post("/jobs", {"model": "net"})
        site.wait("awaiting_approval", job=job)
        site.post(f"/jobs/{job}/{end}")
        site.wait("promoted" if end == "approve" else "cancelled", job=job)
    site.service.tasks.refresh()

    values = named(scrape(site), "calidrift_recalibrations_total")

    assert values == {
        (("model", "net"), ("outcome", "promoted")): 1.0,
        (("model", "net"), ("outcome", "cancelled")): 1.0,
    }


def test_open_jobs_tasks_and_the_store_have_their_figures(site, traffic):
    site.record(traffic)
    site.stages.hold = JobState.VALIDATING
    site.post("/jobs", {"model": "net"})
    site.wait("validating")
    before = time.time()
    site.service.schedule.run_now("assess")
    site.service.tasks.refresh()

    found = scrape(site)
    site.stages.hold = None

    labels = (("model", "net"), ("state", "validating"))
    assert found["calidrift_analyzer_open_jobs", labels] == 1.0
    task = (("task", "assess"),)
    assert found["calidrift_analyzer_task_last_success_timestamp_seconds", task] >= before - 1
    runs = named(found, "calidrift_analyzer_task_runs_total")
    assert runs[("outcome", "done"), ("task", "assess")] == 1.0
    assert found["calidrift_analyzer_store_bytes", ()] > 0
    assert 0 < found["calidrift_analyzer_ingest_lag_seconds", (("model", "net"),)] < 3_600
    durations = named(found, "calidrift_analyzer_job_duration_seconds_count")
    assert durations == {(("task", "assess"),): 1.0}


def test_a_scrape_never_waits_for_the_database(site, traffic):
    site.record(traffic)
    site.service.tasks.assess()
    site.service.owner._available = False

    assert scrape(site)
    assert site.http.get("/readyz").status_code == 503
    assert site.http.get("/healthz").status_code == 200


def test_the_newer_form_is_given_to_who_asks_for_it(site, traffic):
    site.record(traffic)
    site.service.tasks.assess()

    answer = site.http.get("/metrics", headers={"Accept": "application/openmetrics-text"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
