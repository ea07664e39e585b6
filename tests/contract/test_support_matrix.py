"""The table of supported models in README.md says what `support_matrix.toml` says, and no more."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from calidrift_agent._attach import KINDS
from calidrift_agent._vocabulary import Strategy

ROOT = Path(__file__).resolve().parents[2]
TABLE = tomllib.loads(Path(__file__).with_name("support_matrix.toml").read_text(encoding="utf-8"))
ROWS = TABLE["row"]
HEADING = "| model | how it is observed | state | what to know |"
TESTS = sorted({test for row in ROWS for test in row["tests"]})


def rendered(row):
    return f"| {row['model']} | {row['how']} | {row['state']} | {row['limits']} |"


def shown():
    """The rows of the table in README.md."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.count(HEADING) == 1
    first = lines.index(HEADING) + 2
    last = next(at for at in range(first, len(lines)) if not lines[at].startswith("|"))
    return lines[first:last]


def test_the_readme_shows_these_rows():
    assert shown() == [rendered(row) for row in ROWS]


def test_every_kind_is_in_the_table():
    named = {kind.__name__.rpartition(".")[2] for kind in KINDS}
    assert {row["kind"] for row in ROWS} - {""} == named


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "_", row["model"])[:30])
def test_a_row_is_complete(row):
    assert row["state"] in TABLE["states"]
    # What is claimed, in full or in part, is shown by a test; what is not, has none.
    assert bool(row["tests"]) is (row["state"] != "not supported")
    assert len(row["strategies"]) == len(row["samples"])
    assert {Strategy(word) for word in row["strategies"]} <= set(Strategy)
    if row["kind"]:
        words = set(row["strategies"])
        assert all(f"*{word}*" in row["how"] for word in words) or "as the" in row["how"]


@pytest.mark.parametrize("test", TESTS)
def test_what_shows_it_exists(test):
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
