"""The benchmarks still run; what they measure is printed by `make bench`, never asserted here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[1] / "benchmarks" / "run.py"


@pytest.mark.slow
def test_the_quick_form_runs_and_keeps_its_figures(tmp_path):
    kept = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, RUN, "--quick", "--json", kept, "unsampled", "state_file"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    figures = json.loads(kept.read_text())
    assert set(figures) == {"unsampled", "state_file"}
    # The one figure that is not a time: torn windows, and a control that must have some.
    assert figures["state_file"]["torn"]["protocol"] == 0
    assert figures["state_file"]["torn"]["control without it"] > 0


def test_an_unknown_benchmark_is_refused_by_name():
    ended = subprocess.run(
        [sys.executable, RUN, "speed"], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 2
    assert "no benchmark speed; there are unsampled" in ended.stderr
