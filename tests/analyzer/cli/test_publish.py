"""`calidrift publish`, and what `promote` and `rollback` say of it."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from calidrift_analyzer.config import load_config
from calidrift_analyzer.cycle import save_report

SPEC = importlib.util.spec_from_file_location(
    "harness", Path(__file__).parents[1] / "jobs" / "harness.py"
)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)

URL = "faulty://bucket/models"
CONFIG = """
[analyzer]
database = "store.duckdb"

[models.net]
factory = "shop_code:build"
example_inputs = "shop_code:example"
calibration = "shop_code:calibration"
evaluate = "shop_code:evaluate"
"""


@pytest.fixture
def validated(shop, faulty):
    """A shop with a validated candidate and a URL."""
    shop.configure(CONFIG + f'registry_url = "{URL}"\n')
    contract = load_config(shop.root / "calidrift.toml", variables={}).model()
    report = harness.make_report(harness.make_candidate(shop.root / "candidate"))
    path = save_path(contract)
    path.mkdir(parents=True)
    save_report(contract, report)
    return shop


def save_path(contract):
    from calidrift_analyzer.cycle import candidates_folder

    return candidates_folder(contract)


def named(faulty):
    return json.loads(faulty.objects["/bucket/models/net/current"])["version"]


def test_a_promotion_and_a_rollback_are_published(validated, faulty):
    status, first = validated.json("promote")
    assert (status, named(faulty)) == (0, first["version"])
    assert first["publication"] == f"{first['version']} is at {URL}"
    status, second = validated.json("promote")
    assert (status, named(faulty)) == (0, second["version"])
    status, _, told = validated.run("rollback")
    assert (status, named(faulty)) == (0, first["version"])
    assert f"{first['version']} is at {URL}" in told


def test_a_promotion_that_cannot_be_published_is_told_and_published_later(validated, faulty):
    faulty.fail_at, faulty.stays_down = 1, True
    status, out, told = validated.run("promote")
    assert status == 0
    assert "serves now" in out
    assert f"it is not yet at {URL}" in told
    status, _, told = validated.run("publish")
    assert status == 2
    assert f"{URL} cannot be read (ConnectionError: the store hung up)" in told

    faulty.fail_at, faulty.stays_down = math.inf, False
    status, found = validated.json("publish", "net")
    assert (status, found["sent"], found["moved"], found["url"]) == (0, 4, True, URL)
    assert found["version"] == named(faulty)
    status, out, _ = validated.run("publish")
    assert status == 0
    assert "0 files sent; its pointer named it already" in out


def test_without_a_url_there_is_nowhere_to_publish(shop):
    shop.configure(CONFIG)
    status, _, told = shop.run("publish")
    assert status == 2
    assert "[models.net] has no registry_url, so there is nowhere to publish" in told


def test_before_a_promotion_there_is_nothing_to_publish(shop, faulty):
    shop.configure(CONFIG + f'registry_url = "{URL}"\n')
    status, _, told = shop.run("publish")
    assert status == 2
    assert "no version of net was promoted into" in told
