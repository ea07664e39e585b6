"""Killed in any state, and at any step of a promotion: the next process ends the job, once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calidrift_agent._registry import list_versions, open_version
from calidrift_analyzer.store import Store

HARNESS = Path(__file__).parent / "harness.py"
DEADLINE = 120.0
# Each row is one life of a job: killed at every one of these places in turn.
LIVES = {
    "states": ("queued", "selecting", "validating", "awaiting_approval"),
    "recalibration": ("recalibrating",),
    "promotion": ("publish", "switch"),
    "record": ("not yet recorded",),
}


def start(root, hold):
    return subprocess.Popen(
        [sys.executable, str(HARNESS), str(root), hold], stderr=subprocess.PIPE, text=True
    )


def kill_at(root, place):
    """Let a process come to a place, and kill it there."""
    process = start(root, place)
    until = time.monotonic() + DEADLINE
    try:
        while not (root / "at-work").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until, f"it never came to {place}"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (root / "at-work").unlink()


def finish(root):
    process = start(root, "-")
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("life", LIVES, ids=str)
def test_kills_lose_no_job_and_promote_once(life, tmp_path):
    for place in LIVES[life]:
        kill_at(tmp_path, place)

    finish(tmp_path)

    with Store.open(tmp_path / "calidrift.duckdb") as store:
        jobs = store.jobs.page()
        moves = store.outcomes.versions("net")
        steps = [step.state.value for step in store.jobs.steps(1)]
        audit = [row.action for row in store.jobs.audit()]
    assert [(job.job, job.state.value) for job in jobs] == [(1, "promoted")]
    assert [move.action for move in moves] == ["promoted"]
    assert steps.count("promoted") == 1
    assert audit.count("promoted") == audit.count("recalibration") == 1
    registry = tmp_path / "registry"
    [version] = list_versions(registry, "net")
    assert version.current
    assert version.problem is None
    assert open_version(registry, "net").id == moves[0].version
    assert not any((registry / "net" / "jobs").iterdir()), "nothing is left behind"
    begun = (tmp_path / "begun.log").read_text().split()
    for state in ("selecting", "recalibrating", "validating"):
        killed = LIVES[life].count(state)
        assert begun.count(state) == 1 + killed, "what was done is not done again"
