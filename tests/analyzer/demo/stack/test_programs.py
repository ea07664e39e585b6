"""Programs of the demo: found, waited for, and none left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calidrift_analyzer.demo.stack import _programs as module
from calidrift_analyzer.demo.stack._programs import ALERTMANAGER, PROMETHEUS, Programs, program
from calidrift_analyzer.errors import ChildError, RefusedError, ToolchainError

LISTENING = "print('listening on http://127.0.0.1:7', flush=True); import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('at 127.0.0.1:8', flush=True); time.sleep(600)"
)
ENOUGH = 60.0


@pytest.fixture
def programs(tmp_path):
    with Programs(tmp_path, ENOUGH) as found:
        yield found


def python(programs, name, code):
    programs.start(name, sys.executable, "-c", code)


@pytest.mark.parametrize("name", [PROMETHEUS, ALERTMANAGER])
def test_a_program_that_is_missing_is_named_with_its_package(name, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ToolchainError, match=f"no {name} on this machine.*apt-get install") as told:
        program(name)

    assert told.value.exit_code == 2


@pytest.mark.parametrize("file", ["prometheus-alertmanager", "alertmanager"])
def test_a_program_may_have_the_name_of_another_distribution(file, monkeypatch, tmp_path):
    (tmp_path / file).write_text("#!/bin/sh\n")
    (tmp_path / file).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert program(ALERTMANAGER) == str(tmp_path / file)


def test_an_address_is_read_from_what_a_program_says(programs):
    python(programs, "one", LISTENING)
    python(programs, "two", STUBBORN.replace("signal.SIG_IGN", "signal.SIG_DFL"))

    assert programs.address("one", r"on (\S+)", ENOUGH) == "http://127.0.0.1:7"
    assert programs.address("two", r"at (\S+)", ENOUGH) == "http://127.0.0.1:8"


def test_everything_ends_the_last_one_first(programs):
    python(programs, "one", LISTENING)
    python(programs, "two", LISTENING)
    for name in ("one", "two"):
        programs.address(name, r"on (\S+)", ENOUGH)

    assert list(programs.end().items()) == [("two", -signal.SIGTERM), ("one", -signal.SIGTERM)]
    assert programs.end() == {}


def test_who_does_not_end_is_ended(programs, monkeypatch):
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.2)
    python(programs, "stubborn", STUBBORN)
    programs.address("stubborn", r"at (\S+)", ENOUGH)

    assert programs.end() == {"stubborn": -signal.SIGKILL}


def test_an_error_leaves_no_program_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), Programs(tmp_path, ENOUGH) as programs:
        python(programs, "one", LISTENING)
        [process] = programs._running.values()
        raise KeyboardInterrupt

    assert process.returncode is not None


def test_they_end_with_a_process_that_is_killed(tmp_path, unmeasured):
    """Nobody is there to end them; the kernel does."""
    if not Path("/usr/bin/setpriv").exists():
        pytest.skip("setpriv is not installed")
    parent = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from calidrift_analyzer.demo.stack._programs import Programs\n"
        f"programs = Programs(Path({str(tmp_path)!r}), 60.0)\n"
        f"programs.start('one', sys.executable, '-c', {LISTENING!r})\n"
        "programs.address('one', r'on (\\S+)', 60.0)\n"
        "print(*(one.pid for one in programs._running.values()), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=unmeasured()
    ) as process:
        child = int(process.stdout.readline())
        process.kill()
    until = time.monotonic() + ENOUGH
    while running(child):
        assert time.monotonic() < until
        time.sleep(0.02)


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody may be there to collect it


def test_a_program_that_ended_is_told_with_its_last_words(programs, tmp_path):
    python(programs, "one", "import sys; sys.exit('no room')")

    with pytest.raises(ChildError, match=r"one ended with status 1.*one\.log") as told:
        programs.wait("anything", lambda: None, ENOUGH)

    assert told.value.__notes__ == ["no room"]


def test_a_wait_has_an_end(programs):
    def look():
        raise ValueError("half a document")

    with pytest.raises(RefusedError, match=r"^0.1 s were over.*: the alert.*half a document"):
        programs.wait("the alert", look, 0.1)


def test_the_run_has_an_end(tmp_path):
    with Programs(tmp_path, 0.1) as programs, pytest.raises(RefusedError, match="s of the run"):
        programs.wait("the alert", lambda: None, ENOUGH)


def test_what_is_there_is_given_even_where_an_answer_is_nothing(programs):
    found = iter([None, 0.0])

    assert programs.wait("a figure", lambda: next(found), ENOUGH) == 0.0


def test_settings_of_the_machine_stay_outside(programs, monkeypatch, tmp_path):
    monkeypatch.setenv("CALIDRIFT_DATABASE", "/somebody/elses")
    monkeypatch.setenv("CALIDRIFT_DISABLED", "0")
    with Programs(tmp_path, ENOUGH) as programs:
        python(programs, "one", "import os; print('variables', sorted(os.environ), flush=True)")
        look = (tmp_path / "one.log").read_text
        text = programs.wait("variables", lambda: look() if "\n" in look() else None, ENOUGH)

    assert "CALIDRIFT_DISABLED" in text
    assert "CALIDRIFT_DATABASE" not in text
