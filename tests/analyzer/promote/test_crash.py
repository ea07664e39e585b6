"""Whatever moment a promotion is killed at, the pointer names a complete version."""

import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from calidrift_agent._registry import VersionLayout, open_version, read_pointer
from calidrift_analyzer.promote import promote

STEPS = [
    "lock",
    "copy model.pt2",
    "copy profile.json",
    "write report.json",
    "write manifest.json",
    "publish",
    "verify",
    "switch",
    "done",
]

VICTIM = textwrap.dedent(
    """
    import os, pickle, signal, sys
    from calidrift_analyzer.promote import promote
    arguments, registry, fatal, rounds = sys.argv[1:]
    with open(arguments, "rb") as file:
        candidate, report = pickle.load(file)
    def die(step):
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    for _ in range(int(rounds)):
        promote(candidate, report, registry, "net", on_step=die)
    """
)


@pytest.fixture
def registry(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def arguments(tmp_path, candidate, report_on):
    path = tmp_path / "arguments"
    path.write_bytes(pickle.dumps((candidate, report_on(candidate))))
    return path


@pytest.fixture
def start(unmeasured):
    """Starts a process that promotes, and that is killed meanwhile."""

    def begin(arguments, registry, fatal="", rounds=1):
        return subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(arguments), str(registry), fatal, str(rounds)],
            stdout=subprocess.PIPE,
            env=unmeasured(),
        )

    return begin


@pytest.mark.slow
def test_killed_at_each_step_leaves_the_old_or_the_new_version(
    registry, arguments, make_candidate, report_on, start
):
    first = make_candidate("first")
    before = promote(first, report_on(first), registry, "net").id

    for step in STEPS:
        victim = start(arguments, registry, step)
        victim.communicate(timeout=60)
        assert victim.returncode == -signal.SIGKILL, step

        serving = open_version(registry, "net")

        assert (serving.id != before) == (step == "done"), step
    # The next promotion clears what the killed ones left, and takes a number of its own.
    candidate, report = pickle.loads(arguments.read_bytes())
    after = promote(candidate, report, registry, "net")
    assert open_version(registry, "net").id == after.id
    assert not list(registry.rglob("*.partial"))


@pytest.mark.slow
def test_killed_at_random_times_never_leaves_a_torn_version(registry, arguments, start):
    rng = random.Random(0)
    names = set()
    for number in range(60):
        victim = start(arguments, registry, rounds=1000)
        victim.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.15) * (1 + number // 6))  # longer where victims are slow
        victim.kill()
        victim.communicate(timeout=60)
        layout = VersionLayout(registry, "net")
        if read_pointer(layout) is not None:
            names.add(open_version(registry, "net").id)
        if len(names) > 5:
            break

    assert len(names) > 1


@pytest.mark.slow
def test_a_pointer_written_in_place_would_be_caught(registry, arguments, tmp_path):
    """The control: with the pointer written byte by byte, a kill leaves a torn one."""
    torn = tmp_path / "torn.py"
    torn.write_text(
        VICTIM.replace(
            "def die(step):",
            textwrap.dedent(
                """
                import calidrift_analyzer.promote._steps as module
                def in_place(layout, pointer):
                    with layout.pointer.open("w") as file:
                        for letter in pointer.to_json():
                            file.write(letter)
                            file.flush()
                            if letter == ":":
                                os.kill(os.getpid(), signal.SIGKILL)
                module.switch = in_place
                def die(step):
                """
            ).strip(),
        )
    )
    subprocess.run(
        [sys.executable, str(torn), str(arguments), str(registry), "", "1"],
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )

    with pytest.raises(Exception, match="current is damaged"):
        open_version(registry, "net")
