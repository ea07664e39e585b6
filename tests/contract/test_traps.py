"""The table of known traps names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "agent" / "TRAPS.md"
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def missing(text):
    """Tests that a text names and that are not there."""
    return [
        f"{file}::{name}"
        for file, name in TEST.findall(text)
        if not (ROOT / "tests/agent" / file).is_file()
        or f"def {name}(" not in (ROOT / "tests/agent" / file).read_text(encoding="utf-8")
    ]


def test_every_trap_names_a_test_and_every_test_is_there():
    text = TABLE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|.*$", text, flags=re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 37))
    for row in re.finditer(r"^\| (\d+) \|.*$", text, flags=re.MULTILINE):
        assert TEST.search(row[0]), f"trap {row[1]} names no test"
    assert text.count(".py") == len(TEST.findall(text)), "a test is not named as file::test"
    assert missing(text) == []


def test_the_search_would_find_what_is_missing():
    named = "`watch/test_pitfalls.py::test_gone` and `watch/test_gone.py::test_x`"
    assert missing(named) == ["watch/test_pitfalls.py::test_gone", "watch/test_gone.py::test_x"]
