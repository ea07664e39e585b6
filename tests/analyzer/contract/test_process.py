"""The child process: what it answers, how it dies, and that nothing of it stays behind."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from calidrift_analyzer.contract import run_in_child
from calidrift_analyzer.errors import (
    ChildError,
    ContractError,
    NoDataError,
    ToolchainError,
)

JOBS = """
import os, signal, sys, threading, time
from calidrift_agent.errors import CaptureError
from calidrift_analyzer.errors import ContractError, NoDataError, ToolchainError

def answer(request, progress):
    progress("reading", 0, 2)
    print("user code talks")
    os.write(1, b"past Python too\\n")
    progress("writing", 1, 2)
    skip = os.environ["TORCHAO_FORCE_SKIP_LOADING_SO_FILES"]
    return {"doubled": request["number"] * 2, "skip": skip}

def raises(request, progress):
    kinds = {"contract": ContractError, "data": NoDataError, "tools": ToolchainError,
             "capture": CaptureError, "defect": ZeroDivisionError, "memory": MemoryError,
             "exit": SystemExit, "interrupt": KeyboardInterrupt}
    print("the last words of", request["kind"])
    raise kinds[request["kind"]]("what happened")

def is_killed(request, progress):
    os.kill(os.getpid(), signal.SIGKILL)

def leaves(request, progress):
    os._exit(5)

def hangs_on_a_thread(request, progress):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return {"pid": os.getpid()}

def no_object(request, progress):
    return [1]

def waits(request, progress):
    with open(request["path"], "w") as file:
        file.write(str(os.getpid()))
    os.replace(request["path"], request["path"] + ".ready")
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _jobs(tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    monkeypatch.chdir(tmp_path)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"


def test_the_answer_and_the_progress_arrive_whatever_user_code_prints(capfd):
    seen = []

    answer = run_in_child("jobs:answer", {"number": 21}, progress=lambda *one: seen.append(one))

    assert answer == {"doubled": 42, "skip": "1"}
    assert seen == [("reading", 0, 2), ("writing", 1, 2)]
    assert capfd.readouterr() == ("", "")
    assert run_in_child("jobs:answer", {"number": 1})["doubled"] == 2


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        ("contract", ContractError, "^what happened$"),
        ("data", NoDataError, "^what happened$"),
        ("tools", ToolchainError, "^what happened$"),
        ("capture", ContractError, "^what happened$"),
        ("defect", ChildError, r"by a defect \(ZeroDivisionError: what happened\)"),
        ("memory", ChildError, "ran out of memory"),
        ("exit", ChildError, "SystemExit"),
        ("interrupt", ChildError, "KeyboardInterrupt"),
    ],
)
def test_an_error_of_the_job_is_an_error_here(kind, error, told, unmeasured, monkeypatch):
    # A child that is ended while coverage writes down what it measured has other last words.
    for name in os.environ.keys() - unmeasured().keys():
        monkeypatch.delenv(name)
    with pytest.raises(error) as caught:
        run_in_child("jobs:raises", {"kind": kind})

    assert re.search(told, str(caught.value))
    (note,) = caught.value.__notes__
    assert f"the last words of {kind}" in note  # what --debug shows
    assert "Traceback" in note


def test_a_killed_child_is_one_sentence():
    with pytest.raises(
        ChildError, match=r"was killed by SIGKILL; if the machine ran out of memory"
    ):
        run_in_child("jobs:is_killed", {})


def test_a_child_that_just_ends_is_one_sentence():
    with pytest.raises(ChildError, match="ended with status 5 without an answer"):
        run_in_child("jobs:leaves", {})


def test_an_answer_that_is_no_object_is_an_error():
    with pytest.raises(ChildError, match="something else than a JSON object"):
        run_in_child("jobs:no_object", {})


def test_a_job_that_does_not_exist_is_an_error():
    with pytest.raises(ChildError, match="no_such_module"):
        run_in_child("no_such_module:f", {})


def test_threads_of_user_code_do_not_hold_the_answer_up():
    pid = run_in_child("jobs:hangs_on_a_thread", {})["pid"]

    assert not alive(pid)


def test_a_request_that_cannot_be_sent_starts_nothing():
    with pytest.raises(TypeError):
        run_in_child("jobs:answer", {"number": object()})


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError("the child never started")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_child_ends_with_its_parent_and_tidies_up(tmp_path, number, unmeasured):
    kept, scratch = tmp_path / "kept", tmp_path / "scratch"
    kept.mkdir()
    scratch.mkdir()
    (kept / "capture").write_bytes(b"of a person")
    code = (
        "from pathlib import Path\n"
        "from calidrift_analyzer.contract import run_in_child\n"
        f"run_in_child('jobs:waits', {{'path': {str(tmp_path / 'pid')!r}}}, "
        f"scratch=[Path({str(kept)!r})])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env={**unmeasured(), "TMPDIR": str(scratch)},
    )
    child = wait_for(tmp_path / "pid.ready")
    assert alive(child)

    parent.send_signal(number)
    parent.wait(timeout=60)

    for _ in range(200):
        if not alive(child):
            break
        time.sleep(0.05)
    assert not alive(child)
    assert list(scratch.iterdir()) == []
    # Whoever is interrupted removes its folders itself, behind the call.
    assert kept.exists() == (number is signal.SIGINT)
