"""Alerts that a tired person understands, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

from calidrift_analyzer.dashboards import ALERTS

DASHBOARDS = Path(__file__).resolve().parents[3] / "dashboards"
PARTS = (
    "What it means.",
    "How bad.",
    "What to look at.",
    "What to do.",
    "How to silence rightly.",
)


def sections():
    """The text of each second-level section by its anchor, as Git hosts make them."""
    text = (DASHBOARDS / "RUNBOOK.md").read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        found[re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")] = body
    return found


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_the_link_leads_to_a_whole_section(alert):
    url = alert.annotations("RUNBOOK.md")["runbook_url"]
    file, _, anchor = url.partition("#")

    assert (DASHBOARDS / file).is_file()
    body = sections()[anchor]
    assert [part for part in PARTS if f"**{part}**" not in body] == []


def test_no_section_is_about_an_alert_that_is_gone():
    assert set(sections()) == {alert.name.lower() for alert in ALERTS}


@pytest.mark.parametrize("name", ["README.md", "RUNBOOK.md"])
def test_links_inside_the_guides_lead_somewhere(name):
    text = (DASHBOARDS / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert (DASHBOARDS / (file or name)).is_file(), target
        assert not anchor or anchor in sections(), target


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_speaks_to_people(alert):
    assert alert.summary.endswith(".")
    assert len(alert.summary) <= 100
    assert 150 <= len(alert.description) <= 600
    assert alert.description.endswith(".")
    assert alert.labels["severity"] in {"critical", "warning"}
    assert len(alert.uid) <= 40


def test_only_drift_asks_for_a_recalibration():
    asking = {alert.name for alert in ALERTS if alert.labels.get("action") == "recalibrate"}

    assert asking == {"CalidriftDriftAlarm", "CalidriftCoverageLow"}
    for alert in ALERTS:
        if alert.name in asking:
            assert "by (model)" in alert.value  # the webhook has to know which
