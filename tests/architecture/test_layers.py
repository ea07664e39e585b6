"""The layers that `make lint` holds: each contract passes on a clean tree and fails on a bad one.

The tree is a skeleton with every module that the contracts of pyproject.toml name, so that the
real contracts are tested without the real code.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = ("calidrift_agent", "calidrift_analyzer")


def contracts(project):
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["tool"]["importlinter"]["contracts"]


@pytest.fixture
def skeleton(project, tmp_path):
    """A tree of empty modules under the project's own contracts."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for contract in contracts(project):
        for layer in contract.get("layers", ()):
            for name in re.findall(r"\w+", layer):
                (tmp_path / contract["containers"][0] / f"{name}.py").touch()
    shutil.copy(project / "pyproject.toml", tmp_path)
    return tmp_path


def lint(root):
    run = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return run.returncode, run.stdout


def test_a_tree_that_keeps_the_layers_passes(skeleton):
    (skeleton / "calidrift_agent/_state.py").write_text("from calidrift_agent import _sketch")

    status, told = lint(skeleton)

    assert status == 0, told


@pytest.mark.parametrize(
    ("module", "text", "broken"),
    [
        ("calidrift_agent/_sketch", "from calidrift_agent import _state", "agent's floors"),
        ("calidrift_agent/errors", "def f():\n    import calidrift_analyzer", "never imports the"),
        ("calidrift_agent/_state", "import torch", "imports no torch"),
        ("calidrift_agent/_watch", "import duckdb", "nothing of the analyzer's extra"),
        ("calidrift_agent/_stray", "", "agent's floors"),
        ("calidrift_analyzer/store", "from calidrift_analyzer import cycle", "analyzer's floors"),
        ("calidrift_analyzer/select", "from calidrift_analyzer import assess", "stages not each"),
    ],
    ids=["upward", "analyzer", "torch", "extra", "no floor", "upward stage", "sibling"],
)
def test_a_tree_that_breaks_a_layer_fails(module, text, broken, skeleton):
    (skeleton / f"{module}.py").write_text(text, encoding="utf-8")

    status, told = lint(skeleton)

    assert status == 1
    assert re.search(f"{re.escape(broken)}.* BROKEN", " ".join(told.split()))
