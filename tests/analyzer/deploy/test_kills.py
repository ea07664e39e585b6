"""Killed between move and hook, or within either: the next process tells it, under one key."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from calidrift_analyzer.store import Store

HARNESS = Path(__file__).parent / "harness.py"
DEADLINE = 120.0
HOOK = """\
import json, os, time
told = {name: value for name, value in os.environ.items() if name.startswith("CALIDRIFT_")}
with open("notes.jsonl", "a") as file:
    file.write(json.dumps(told) + "\\n")
if os.path.exists("slow"):
    os.remove("slow")
    open("at-work", "w").close()
    time.sleep(600)
"""


@pytest.fixture
def work(tmp_path, unmeasured):
    (tmp_path / "hook.py").write_text(HOOK, encoding="utf-8")

    def start(what, place):
        return subprocess.Popen(
            [sys.executable, str(HARNESS), str(tmp_path), what, place],
            stderr=subprocess.PIPE,
            text=True,
            env=unmeasured(),
        )

    def run(what, place="-"):
        process = start(what, place)
        if place == "-":
            _, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0, errors
            return
        until = time.monotonic() + DEADLINE
        try:
            while not (tmp_path / "at-work").exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < until, f"it never came to {place}"
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stderr.close()
        (tmp_path / "at-work").unlink()

    yield run
    for entry in Path("/proc").glob("[0-9]*"):  # the hook of a killed process goes on by itself
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if str(tmp_path / "hook.py").encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)


def told(root):
    lines = (root / "notes.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rows(root):
    with Store.open(root / "calidrift.duckdb") as store:
        return store.deployments.page()[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["hook", "command"])
def test_a_promotion_is_told_after_the_restart(work, tmp_path, place):
    if place == "command":
        (tmp_path / "slow").touch()

    work("promote", place)
    work("serve")

    [row] = rows(tmp_path)
    assert (row.action, row.state) == ("promote", "delivered")
    keys = [one["CALIDRIFT_IDEMPOTENCY_KEY"] for one in told(tmp_path)]
    assert keys == [row.key] * (2 if place == "command" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["record", "hook"])
def test_a_rollback_is_told_after_the_restart(work, tmp_path, place):
    work("rollback", place)
    first, second = (one["CALIDRIFT_VERSION"] for one in told(tmp_path))
    work("serve")

    last = told(tmp_path)[-1]
    assert len(told(tmp_path)) == 3
    assert (last["CALIDRIFT_ACTION"], last["CALIDRIFT_VERSION"]) == ("rollback", first)
    assert last["CALIDRIFT_PREVIOUS"] == second
    assert [row.state.value for row in rows(tmp_path)] == ["delivered"] * 3
