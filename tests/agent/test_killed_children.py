"""Processes that tests kill on purpose measure no coverage.

What they had measured would be written when they end: a kill at that moment leaves a damaged file,
and the report of the whole run fails on it.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

SAYS = "import os; print(sorted(name for name in os.environ if name.startswith('COVERAGE_')))"
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_their_environment_starts_no_measurement(unmeasured, monkeypatch):
    monkeypatch.setenv("COVERAGE_PROCESS_START", "")
    inherited, chosen = [
        subprocess.run(
            [sys.executable, "-c", SAYS],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for environment in (dict(os.environ), unmeasured())
    ]
    assert "COVERAGE_PROCESS_START" in inherited
    assert chosen == "[]\n"
    assert unmeasured()["PATH"] == os.environ["PATH"]


def test_servers_whose_workers_are_killed_start_none(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    serving = importlib.import_module("serving")
    started = []
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "")
    monkeypatch.setattr(
        serving.subprocess, "Popen", lambda command, **given: started.append(given["env"])
    )
    for kind in (serving.PRELOADED, serving.POST_FORK, serving.UVICORN):
        serving.Server(kind, tmp_path / "state", tmp_path / "log", environment={"MINE": "1"})
    sys.modules.pop("serving")
    assert len(started) == 3
    for environment in started:
        assert not [name for name in environment if name.startswith("COVERAGE_")]
        assert (environment["MINE"], environment["PATH"]) == ("1", os.environ["PATH"])
