"""The service publishes by itself what could not be published before."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from types import MappingProxyType

import pytest

from calidrift_analyzer.promote import promote
from calidrift_analyzer.service import Service

SPEC = importlib.util.spec_from_file_location(
    "harness", Path(__file__).parents[1] / "jobs" / "harness.py"
)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

URL = "faulty://bucket/models"


def names(service):
    return list(service.schedule._tasks)


@pytest.fixture
def published(make_site, faulty):
    """A service of which one model has a URL."""
    site = make_site()
    models = dict(site.config.models)
    models["net"] = dataclasses.replace(models["net"], registry_url=URL)
    config = dataclasses.replace(site.config, models=MappingProxyType(models))
    site.service.stop()
    site.service = Service(config)
    return site


def test_there_is_such_a_task_only_where_there_is_a_url(site):
    assert "publication" not in names(site.service)


def test_what_was_promoted_while_the_store_was_away_is_published_later(published, tmp_path, faulty):
    service = published.service
    assert "publication" in names(service)
    row = service.schedule.run_now("publication")
    assert (row.succeeded, row.sentence) == (True, "net: nothing was promoted yet")

    report = harness.make_report(harness.make_candidate(tmp_path / "candidate"))
    version = promote(report.candidate, report, service.config.models["net"].registry, "net")
    faulty.fail_at, faulty.stays_down = 1, True
    row = service.schedule.run_now("publication")
    assert not row.succeeded
    assert row.sentence.startswith(f"net: {URL} cannot be read (ConnectionError")

    faulty.fail_at, faulty.stays_down = math.inf, False
    row = service.schedule.run_now("publication")
    assert (row.succeeded, row.sentence) == (True, f"net: {version.id}")
    assert json.loads(faulty.objects["/bucket/models/net/current"])["version"] == version.id
    faulty.calls.clear()
    service.schedule.run_now("publication")
    assert not any(call.startswith(("send", "open")) for call in faulty.calls)
