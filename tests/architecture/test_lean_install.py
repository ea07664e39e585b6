"""The command without the analyzer's extra: it starts, lists everything, and says what to install.

The extra is hidden by an import hook in a fresh interpreter, which is what its absence looks like.
"""

import json
import subprocess
import sys
import textwrap

import pytest

from calidrift_agent import __version__

# pydantic and rich cannot be hidden: newer typer versions need them.
HIDDEN = ("duckdb", "matplotlib", "pyarrow", "pydantic_settings", "scipy", "sklearn", "torchao")
COMMANDS = (
    "demo",
    "calibrate",
    "status",
    "coverage",
    "select",
    "recalibrate",
    "validate",
    "promote",
    "rollback",
)

PROGRAM = textwrap.dedent(
    """
    import importlib.abc, io, json, sys
    from contextlib import redirect_stderr, redirect_stdout
    hidden = set(json.loads(sys.argv[1]))
    class Hide(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name.partition(".")[0] in hidden:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Hide())
    from calidrift_agent._command_line import run
    answers = []
    for words in json.loads(sys.argv[2]):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run(words)
        answers.append([status, out.getvalue(), err.getvalue()])
    print(json.dumps({"answers": answers, "torch": "torch" in sys.modules}))
    """
)


def lean(*lines, hidden=HIDDEN):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(hidden), json.dumps(lines)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(ended.stdout)
    return found["answers"], found["torch"]


def test_the_version_and_the_help_need_no_extra():
    [version, help_], torch_loaded = lean(["--version"], ["--help"])

    assert version == [0, f"calidrift {__version__}\n", ""]
    assert help_[0] == 0
    assert all(f" {command} " in help_[1] for command in COMMANDS)
    assert not torch_loaded


def test_every_analyzer_command_exists_and_names_the_extra():
    answers, torch_loaded = lean(*([command] for command in COMMANDS))

    for command, (status, out, err) in zip(COMMANDS, answers, strict=True):
        assert status == 2, (command, err)
        assert out == ""
        assert 'pip install "calidrift[analyzer]"' in err
        assert err.startswith(f"calidrift: 'calidrift {command}' needs duckdb, matplotlib")
        assert err.count("\n") == 1
    assert not torch_loaded


def test_with_json_the_missing_extra_is_a_document():
    [[status, out, _]], _ = lean(["status", "--json"])

    assert status == 2
    assert json.loads(out)["error"]["kind"] == "ConfigurationError"


@pytest.mark.parametrize("hidden", HIDDEN)
def test_one_missing_package_is_enough(hidden):
    [[status, _, err]], _ = lean(["status"], hidden=[hidden])

    assert status == 2
    assert f"needs {hidden}, not installed here" in err


def test_with_the_extra_the_command_itself_answers():
    """The check can fail: nothing hidden, nothing missing."""
    [[status, out, err]], _ = lean(["status", "--help"], hidden=[])

    assert status == 0, err
    assert "--config" in out
