"""The statistics benchmark on few streams: the same seeds, so the same figures every time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
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
    assert row["by_kind"]["points"]["share"] > 0.5
    assert row["by_kind"]["all traffic"]["share"] > 0.05


def test_every_kind_of_alarm_is_counted_and_all_of_them_together(figures):
    for row in figures["no_drift"]:
        kinds = row["by_kind"]
        assert set(kinds) == {
            "points",
            "all traffic",
            "segments",
            "segments, not counted",
            "harm",
        }
        together = row["all_together"]["alarmed"]
        assert max(one["alarmed"] for one in kinds.values()) <= together
        assert together <= sum(one["alarmed"] for one in kinds.values())
        assert row["false_alarms"]["Calidrift"] == row["all_together"]["share"]
        for one in (*kinds.values(), row["all_together"]):
            assert one["share"] <= one["upper_bound"]
    assert {one["kind"] for one in figures["at_the_limit"]} == {"service levels", "harm"}


def test_drift_of_one_segment_is_found_by_the_alarm_of_that_segment(figures):
    """Where the reference is large enough to promise something about it; else that is told."""
    small, large = (one for one in figures["drift"] if one["one_segment"])
    assert small["reference"] < large["reference"]
    assert small["median_delay"]["segments"] == float("inf")
    assert 0 < large["segment_longest_delay"] <= 200
    blind = next(one for one in figures["drift"] if one["drift"].startswith("1e-3"))
    assert all(blind["median_delay"][kind] < float("inf") for kind in ("points", "all traffic"))


def test_the_streams_can_tell_monitors_apart(figures):
    """A bar that nobody could miss would prove nothing: the others miss them."""
    calm = [row["false_alarms"] for row in figures["no_drift"] if row["promised"]]
    assert all(row["any exceedance"] > 0.5 and row["3 sigma"] > 0.5 for row in calm)
    assert all(row["never"] == 0.0 for row in calm)
    blind = next(row for row in figures["drift"] if row["drift"].startswith("1e-3"))
    assert blind["median_delay"]["never"] == float("inf")
    assert blind["called_harmful"] == 1.0
