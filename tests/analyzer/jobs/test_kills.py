"""Killed in any state, and at any step of a promotion: the next process ends the job, once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calidrift_agent._registry import VersionLayout, list_versions, open_version, read_pointer
from calidrift_analyzer.store import Store

HARNESS = Path(__file__).parent / "harness.py"
CANARY_HARNESS = HARNESS.with_name("canary_harness.py")
DEADLINE = 120.0
# Each row is one life of a job: killed at every one of these places in turn.
LIVES = {
    "states": ("queued", "selecting", "validating", "awaiting_approval"),
    "recalibration": ("recalibrating",),
    "promotion": ("publish", "switch"),
    "record": ("not yet recorded",),
}


def start(root, hold, harness=HARNESS):
    return subprocess.Popen(
        [sys.executable, str(harness), str(root), hold], stderr=subprocess.PIPE, text=True
    )


def kill_at(root, place, harness=HARNESS):
    """Let a process come to a place, and kill it there."""
    process = start(root, place, harness)
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


def finish(root, harness=HARNESS):
    process = start(root, "-", harness)
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


@pytest.mark.slow
def test_kills_stage_once_and_complete_once(tmp_path):
    places = ("stage switch", "staged, not recorded", "complete switch", "completed, not recorded")
    for place in places:
        kill_at(tmp_path, place, CANARY_HARNESS)

    finish(tmp_path, CANARY_HARNESS)

    with Store.open(tmp_path / "calidrift.duckdb") as store:
        [job] = store.jobs.page()
        [move] = store.outcomes.versions("net")
        steps = [(step.state.value, step.event.value) for step in store.jobs.steps(1)]
    assert job.state.value == "promoted"
    assert steps.count(("canary", "entered")) == 1
    assert steps.count(("canary", "looked")) == 3
    first, second = list_versions(tmp_path / "registry", "net")
    assert (first.current, second.current) == (False, True)
    assert (move.action, move.version) == ("promoted", second.id)
    pointer = read_pointer(VersionLayout(tmp_path / "registry", "net"))
    assert pointer.canary is None
