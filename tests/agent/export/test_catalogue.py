from __future__ import annotations

import re

import pytest

from calidrift_agent._export import CATALOGUE, Emitter, MetricType, metric
from calidrift_agent._export._families import agent_families

# The names that users build dashboards on; agent_* and analyzer_* may grow.
PUBLIC = {
    "calidrift_activation_absmax": ("model", "point"),
    "calidrift_observed_bound": ("model", "point"),
    "calidrift_clip_bound": ("model", "point"),
    "calidrift_activation_range_ratio": ("model", "point"),
    "calidrift_activation_magnitude": ("model", "point"),
    "calidrift_exceedances_total": ("model", "point"),
    "calidrift_observed_requests_total": ("model",),
    "calidrift_saturated_elements_total": ("model", "point", "rail"),
    "calidrift_observed_elements_total": ("model", "point"),
    "calidrift_nonfinite_elements_total": ("model", "point", "kind"),
    "calidrift_coverage_ratio": ("model", "point"),
    "calidrift_request_coverage_ratio": ("model",),
    "calidrift_sqnr_db": ("model", "point"),
    "calidrift_sqnr_change_db": ("model", "point"),
    "calidrift_clipped_energy_ratio": ("model", "point"),
    "calidrift_drift_evidence": ("model", "point"),
    "calidrift_drift_alarm": ("model",),
    "calidrift_service_level_alarm": ("model",),
    "calidrift_segment_alarm": ("model", "segment"),
    "calidrift_harm_alarm": ("model",),
    "calidrift_detectable_exceedance_ratio": ("model",),
    "calidrift_detection_seconds": ("model",),
    "calidrift_recalibrations_total": ("model", "outcome"),
    "calidrift_reference_compared_total": ("model",),
    "calidrift_reference_sqnr_db": ("model",),
    "calidrift_reference_agreement_ratio": ("model",),
    "calidrift_reference_cosine": ("model",),
}
LABELS = {
    *("model", "point", "rail", "kind", "outcome", "stage", "reason", "task"),
    *("version", "instrument", "strategy", "state", "segment"),
}


def test_the_public_names_and_labels_are_fixed():
    found = {
        entry.name: entry.labels
        for entry in CATALOGUE
        if not re.match(r"calidrift_(agent|analyzer)_", entry.name)
    }
    assert found == PUBLIC


def test_agent_and_analyzer_report_on_themselves():
    names = {entry.name for entry in CATALOGUE}
    assert {
        "calidrift_agent_overhead_seconds_total",
        "calidrift_agent_seen_requests_total",
        "calidrift_agent_sampled_requests_total",
        "calidrift_agent_sampling_ratio",
        "calidrift_agent_errors_total",
        "calidrift_agent_dropped_total",
        "calidrift_agent_points_expected",
        "calidrift_agent_points_observed",
        "calidrift_agent_state",
        "calidrift_agent_state_age_seconds",
        "calidrift_agent_build_info",
        "calidrift_agent_exports_total",
        "calidrift_agent_export_failures_total",
        "calidrift_analyzer_ingest_lag_seconds",
        "calidrift_analyzer_ingested_rows_total",
        "calidrift_analyzer_job_duration_seconds",
        "calidrift_analyzer_task_runs_total",
        "calidrift_analyzer_task_last_success_timestamp_seconds",
        "calidrift_analyzer_store_bytes",
        "calidrift_analyzer_revalidation_timestamp_seconds",
    } <= names


def test_no_name_stands_twice():
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    assert len({entry.otel for entry in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_names_follow_the_conventions(entry):
    assert re.fullmatch(r"calidrift(_[a-z]+)+", entry.name)
    assert re.fullmatch(r"calidrift(\.[a-z]+(_[a-z]+)*)+", entry.otel)
    assert entry.name.endswith("_total") == (entry.type is MetricType.COUNTER)
    assert not re.search(r"_(count|sum|bucket|info_total)$", entry.name)
    assert not entry.otel.endswith(("_total", "_ratio_total"))
    assert (entry.unit == "s") == ("_seconds" in entry.name)
    assert (entry.unit == "By") == entry.name.removesuffix("_total").endswith("_bytes")
    assert not re.search(r"_(milliseconds|ms|percent|kb)(_|$)", entry.name)
    assert entry.name.startswith("calidrift_analyzer_") <= (entry.emitter is Emitter.ANALYZER)
    agents = (Emitter.AGENT, Emitter.SIDECAR, Emitter.FOLLOWER)
    assert entry.name.startswith("calidrift_agent_") <= (entry.emitter in agents)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_labels_come_from_closed_sets(entry):
    assert set(entry.labels) <= LABELS
    assert len(set(entry.labels)) == len(entry.labels)
    assert "le" not in entry.labels


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_every_metric_is_explained_in_one_sentence(entry):
    assert entry.help.endswith(".")
    assert 20 <= len(entry.help) <= 100
    assert "\n" not in entry.help


def test_lookup_by_name():
    assert metric("calidrift_drift_alarm").emitter is Emitter.ANALYZER
    with pytest.raises(KeyError):
        metric("calidrift_surprise")


def test_the_text_format_has_classic_histograms_only():
    exponential = [entry for entry in CATALOGUE if entry.type is MetricType.EXPONENTIAL]
    assert exponential, "they go over OTLP"
    described = {family.name: family.type for family in agent_families()}
    assert set(described.values()) <= {"counter", "gauge", "histogram"}
    assert not {entry.name for entry in exponential} & described.keys()
