"""`/metrics`: names of the catalogue, figures of the API, and no sample where nothing is known."""

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from calidrift_agent._export import CATALOGUE, Emitter
from calidrift_analyzer.records import JobState


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


def test_every_name_is_one_of_the_catalogue_and_nothing_of_it_is_missing(site, traffic):
    site.record(traffic)
    site.service.schedule.run_now("assess")
    site.service.board.count_rows("net", 6)
    site.wait("awaiting_approval")
    site.post("/jobs/1/approve")
    site.wait("promoted")
    site.post("/jobs", {"model": "net"})
    site.wait("awaiting_approval", job=2)
    site.service.tasks.refresh()

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
