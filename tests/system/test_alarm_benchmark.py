"""The statistics benchmark on few streams: the same seeds, so the same figures every time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "alarms"


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    path = tmp_path_factory.mktemp("alarms") / "figures.json"
    ended = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--quick", "--json", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return json.loads(path.read_text())


def test_every_bar_is_met(figures):
    assert figures["bars"]
    assert all(figures["bars"].values())


def test_what_cannot_be_promised_is_shown(figures):
    """Bursts without a session key break the exchangeability that the alarm needs."""
    (row,) = (one for one in figures["no_drift"] if not one["promised"])
    assert row["family"] == "bursts, no key"
    assert row["false_alarms"]["Calidrift"] > 0.5


def test_the_streams_can_tell_monitors_apart(figures):
    """A bar that nobody could miss would prove nothing: the others miss them."""
    calm = [row["false_alarms"] for row in figures["no_drift"] if row["promised"]]
    assert all(row["any exceedance"] > 0.5 and row["3 sigma"] > 0.5 for row in calm)
    assert all(row["never"] == 0.0 for row in calm)
    blind = next(row for row in figures["drift"] if row["drift"].startswith("1e-3"))
    assert blind["median_delay"]["never"] == float("inf")
    assert blind["called_harmful"] == 1.0
