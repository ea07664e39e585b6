"""Forks, the end of the interpreter and SIGKILL; each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calidrift_agent import StateReader
from calidrift_agent._state import scan
from calidrift_agent._vocabulary import CountColumn, RequestColumn, WindowFlag

pytestmark = pytest.mark.slow  # a fresh interpreter with torch takes 2 to 4 s

BEGINNING = """
import json, os, sys, threading, time
import torch
from torch import nn
from calidrift_agent import CaptureOptions, WatchOptions, watch
torch.set_num_threads(1)
folder = sys.argv[1]
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
x = torch.ones(2, 3)
expected = model(x)
options = WatchOptions(budget=None, window_seconds=600.0, drain_seconds=0.02, seed=4)
one = watch(model, name="net", sample_rate=1.0, state_dir=folder, options=options)
def serve(calls):
    for _ in range(calls):
        assert torch.equal(model(x), expected)
def facts():
    meta, total = one.snapshot()
    return {
        "process": meta.process, "pid": meta.pid, "seen": int(total.requests[0]),
        "observed": int(total.requests[2]), "rows": total.counts[:, 2].tolist(),
        "errors": int(total.requests[7:13].sum()), "file": str(one.report().state_file),
        "active": one.report().active,
    }
def say(**more):
    os.write(1, (json.dumps(more) + chr(10)).encode())
"""


def start(
    folder: Path, body: str, environment: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """A Python process that begins with a watched model."""
    return subprocess.Popen(
        [sys.executable, "-c", BEGINNING + textwrap.dedent(body), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def run(folder: Path, body: str, environment: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Run to the end; what it said, line by line."""
    process = start(folder, body, environment)
    try:
        out, err = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its children: nothing goes on spinning
        process.communicate()
        raise
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def observed(path: str | Path) -> int:
    with StateReader.open(path) as reader:
        return int(reader.total().requests[RequestColumn.OBSERVED])


def test_fork_while_watched(tmp_path: Path) -> None:
    """Child counts start at zero, in a file of its own; the parent goes on unharmed."""
    said = run(
        tmp_path,
        """
        serve(5)
        before = facts()
        child = os.fork()
        if child == 0:
            fresh = facts()
            serve(3)
            say(who="child", fresh=fresh, **facts())
            one.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        serve(4)
        say(who="parent", before=before, **facts())
        one.close()
        """,
    )
    by_name = {line["who"]: line for line in said}
    parent, child = by_name["parent"], by_name["child"]
    assert (child["fresh"]["seen"], child["fresh"]["observed"]) == (0, 0)
    assert (child["seen"], child["observed"], child["rows"]) == (3, 3, [6, 6])
    assert (parent["seen"], parent["observed"], parent["rows"]) == (9, 9, [18, 18])
    assert parent["errors"] == child["errors"] == 0
    assert parent["process"] == parent["before"]["process"] != child["process"]
    assert parent["file"] == parent["before"]["file"] != child["file"]
    assert parent["pid"] != child["pid"]
    assert observed(parent["file"]) == 9
    assert observed(child["file"]) == 3


def test_fork_inside_requests_of_other_threads(tmp_path: Path, unmeasured: Any) -> None:
    """Locks that other threads hold at the fork do not hang the child, nor do their taps stay.

    Coverage has such a lock too, and hangs the child: it does not measure here.
    """
    said = run(
        tmp_path,
        """
        # With gradients, torch locks a mutex of each parameter: held by another thread at the
        # fork, it hangs the child whether or not the model is watched.
        serve = torch.inference_mode()(serve)
        stop = threading.Event()
        def loop():
            while not stop.is_set():
                serve(1)
                one.snapshot()
        threads = [threading.Thread(target=loop) for _ in range(3)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(8):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                serve(4)
                found = facts()
                clean = all("forward" not in m.__dict__ for m in list(model.modules())[1:])
                say(who="child", clean=clean, **found)
                one.close()
                os._exit(0)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        stop.set()
        for thread in threads:
            thread.join()
        say(who="parent", codes=codes, **facts())
        """,
        unmeasured(),
    )
    children = [line for line in said if line["who"] == "child"]
    parent = next(line for line in said if line["who"] == "parent")
    assert parent["codes"] == [0] * 8
    assert len({line["process"] for line in said}) == 9
    for child in children:
        assert (child["seen"], child["observed"], child["rows"]) == (4, 4, [8, 8])
        assert child["clean"]
        assert child["errors"] == 0
    assert parent["seen"] == parent["observed"]
    assert parent["errors"] == 0


def test_a_silent_child_writes_nothing(tmp_path: Path) -> None:
    """A child that never calls the model makes no file, and does not end the parent's."""
    said = run(
        tmp_path,
        """
        serve(2)
        child = os.fork()
        if child == 0:
            one.close()
            os._exit(0)
        os.waitpid(child, 0)
        from calidrift_agent import StateReader
        with StateReader.open(one.report().state_file) as reader:
            alive = reader.alive
        serve(1)
        say(alive=alive, files=len([n for n in os.listdir(folder) if n.endswith(".state")]),
            **facts())
        """,
    )
    assert said[0]["alive"]
    assert said[0]["files"] == 1
    assert observed(said[0]["file"]) == 3


@pytest.mark.parametrize(
    "ending",
    ["", "sys.exit(0)", "threading.Thread(target=serve, args=(0,)).start()", "del model, one"],
)
def test_exit_writes_the_last_window(tmp_path: Path, ending: str) -> None:
    """Without `close`: what waited is counted, the window is closed, the lock released."""
    (said,) = run(
        tmp_path,
        f"options_file = one.report().state_file\nserve(7)\nsay(file=str(options_file))\n{ending}",
    )
    with StateReader.open(said["file"]) as reader:
        assert not reader.alive
        result = reader.windows()
    assert result.final
    assert result.damaged == ()
    (window,) = result.windows
    assert window.flags & WindowFlag.EARLY
    assert window.requests[RequestColumn.OBSERVED] == 7
    assert (window.counts[:, CountColumn.ROWS] == 14).all()


def test_exit_with_an_exception_writes_too(tmp_path: Path) -> None:
    """The host's traceback is the host's; the window is written all the same."""
    process = start(tmp_path, "serve(2)\nraise KeyError('mine')")
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert err.strip().endswith("KeyError: 'mine'")
    (reader,) = scan(tmp_path)
    with reader:
        assert reader.total().requests[RequestColumn.OBSERVED] == 2


def test_sigkill_leaves_a_readable_file(tmp_path: Path, unmeasured: Any) -> None:
    """Killed in the middle of traffic: intact, consistent, not older than a drain or two."""
    process = start(
        tmp_path,
        """
        while True:
            serve(50)
            time.sleep(0.03)
            say(**facts())
        """,
        unmeasured(),
    )
    assert process.stdout is not None
    last: dict[str, Any] = {}
    for _ in range(8):
        last = json.loads(process.stdout.readline())
    with StateReader.open(last["file"]) as reader:
        assert reader.alive
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    with StateReader.open(last["file"]) as reader:
        assert not reader.alive
        result = reader.windows()
        total = reader.total()
    assert result.final
    assert result.damaged == ()
    found = int(total.requests[RequestColumn.OBSERVED])
    assert found >= last["observed"] - 100
    assert (total.counts[:, CountColumn.ROWS] == 2 * found).all()
    assert (total.cells.sum(axis=1) == 6 * found).all()
    assert np.array_equal(sum(w.counts for w in result.windows), total.counts)
