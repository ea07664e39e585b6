"""`make` on machines that lack something, and on one that has everything.

Each test gives make a PATH of one folder that holds only what the case needs.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "grep", "sed", "expand", "test", "touch", "rm", "mkdir", "env", "uname")
OLD = '#!/bin/sh\nif [ "$1" = -V ]; then echo "Python 3.9.2"; else exit 0; fi\n'
NO_VENV = '#!/bin/sh\ncase "$2" in *venv*) exit 1;; *) echo new;; esac\n'


@pytest.fixture
def machine(tmp_path):
    """A machine with make, a shell and what a test adds: `path` is its PATH, `tree` the clone."""
    path = tmp_path / "path"
    tree = tmp_path / "clone"
    path.mkdir()
    tree.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            (path / tool).symlink_to(found)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tree)
    return path, tree


def program(path, name, text="#!/bin/sh\nexit 0\n"):
    (path / name).write_text(text, encoding="utf-8")
    (path / name).chmod(0o755)


def make(machine, *arguments):
    path, tree = machine
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    variables.pop("CXX", None)
    return subprocess.run(
        [shutil.which("make"), *arguments],
        cwd=tree,
        env={**variables, "PATH": str(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def refused(ended, sentence):
    """Status 2, and one line of output that carries the sentence."""
    assert ended.returncode == 2, ended.stdout
    lines = ended.stdout.strip().splitlines()
    assert len(lines) == 1, ended.stdout
    assert sentence in lines[0]


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench"])
def test_without_a_compiler_make_says_what_to_install(target, machine):
    program(machine[0], "python3")

    refused(
        make(machine, target),
        "there is no C++ compiler 'g++' on this machine; INT8 kernels are compiled here, so "
        "install one (Debian: apt-get install g++)",
    )


def test_a_compiler_can_be_named_and_may_have_options(machine):
    program(machine[0], "python3", OLD)
    program(machine[0], "clang++")

    refused(make(machine, "demo", "CXX=gone++"), "there is no C++ compiler 'gone++'")
    refused(make(machine, "demo", "CXX=clang++ -O2"), "Python 3.11 or newer is needed")


def test_without_python_make_says_what_to_install(machine):
    program(machine[0], "g++")

    refused(
        make(machine, "demo"),
        "there is no 'python3' on this machine; install Python 3.11 or newer, or name one: "
        "make PYTHON=/path/to/python3",
    )


def test_an_old_python_is_named_with_its_version(machine):
    program(machine[0], "g++")
    program(machine[0], "python3", OLD)

    refused(make(machine, "demo"), "'python3' is Python 3.9.2, but Python 3.11 or newer is needed")


def test_a_python_that_does_not_run_is_refused(machine):
    program(machine[0], "g++")
    program(machine[0], "python3", "#!/bin/sh\nexit 1\n")

    refused(make(machine, "demo"), "'python3' is no Python that runs")


def test_a_python_without_venv_is_refused(machine):
    program(machine[0], "g++")
    program(machine[0], "python3", NO_VENV)

    refused(make(machine, "demo"), "cannot make virtual environments; install its venv module")


def planned(machine, target):
    ended = make(machine, "-n", target)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_a_first_call_installs_and_a_second_one_does_not(machine):
    program(machine[0], "g++")
    program(machine[0], "python3", "#!/bin/sh\necho new\n")
    tree = machine[1]

    first = planned(machine, "demo")
    (tree / ".venv").mkdir()
    (tree / ".venv/.installed").touch()
    second = planned(machine, "demo")
    os.utime(tree / ".venv/.installed", (0, 0))
    changed = planned(machine, "demo")

    assert "-c constraints.txt" in first
    assert "-e '.[analyzer,crypto,onnx,otlp,dev]'" in first
    assert "pip" not in second
    assert "python3" not in second
    assert "calidrift demo" in second
    assert "-e '.[analyzer,crypto,onnx,otlp,dev]'" in changed


def test_a_second_call_needs_no_python_but_a_compiler(machine):
    (machine[1] / ".venv").mkdir()
    (machine[1] / ".venv/.installed").touch()

    refused(make(machine, "test"), "there is no C++ compiler")


def test_the_tests_come_after_lint_and_pytest_speaks_last(machine):
    program(machine[0], "g++")
    (machine[1] / ".venv").mkdir()
    (machine[1] / ".venv/.installed").touch()

    plan = planned(machine, "test")

    order = [plan.index(word) for word in ("ruff check", "ruff format", "mypy", "lint-imports")]
    assert order == sorted(order)
    assert order[-1] < plan.index("-m pytest") < plan.index("--fail-under=90")
    assert ">/dev/null" in plan[plan.index("--fail-under=90") :]


def test_without_a_target_make_shows_them(machine):
    ended = make(machine)

    assert ended.returncode == 0
    for target in ("demo", "lint", "test", "bench", "bench-statistics"):
        assert any(line.startswith(target) for line in ended.stdout.splitlines())


def test_ci_runs_what_the_readme_says():
    script = ROOT / ".ci/run"

    assert os.access(script, os.X_OK)
    assert "set -eu" in script.read_text(encoding="utf-8")
    assert script.read_text(encoding="utf-8").rstrip().splitlines()[-1].endswith("test")
