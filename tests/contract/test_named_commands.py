"""Every `calidrift ...` that a text names is a command, with these words and these options.

Read are the alerts, the runbook, each README, the pages' templates, the manifests, and every string
in the source of both packages: messages, sentences of assessments, help. What a page or an alert
names must also work beside a running service, which holds the database.
"""

import ast
import inspect
import re
import typing
from collections.abc import Iterator
from enum import EnumType
from functools import cache
from pathlib import Path

import pytest
import typer

from calidrift_agent._command_line._application import _load
from calidrift_agent._command_line._invocation import Invocation
from calidrift_agent._command_line._table import joined
from calidrift_analyzer import assess, offline
from calidrift_analyzer.dashboards import ALERTS
from calidrift_analyzer.service._advice import while_serving

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (*(ROOT / "agent").rglob("*.py"), *(ROOT / "analyzer").rglob("*.py"))
TEXTS = sorted(
    path
    for pattern in ("**/*.md", "**/*.html", "**/*.j2", "**/*.yml", "**/*.yaml", "**/*.service")
    for folder in ("agent", "analyzer", "dashboards", "deploy", "docs")
    for path in (ROOT / folder).glob(pattern)
)
QUOTED = re.compile(r"(?P<mark>[`'])calidrift\s+(?P<words>[^`'{}]*)(?P=mark)")
TYPED = re.compile(r"^\$ calidrift\s+(?P<words>[^#\n|]*)", re.MULTILINE)
HOLDS_THE_DATABASE = frozenset(
    {"status", "coverage", "select", "recalibrate", "validate", "reference", "store"}
)
"""Commands that open the database themselves, and are refused while a service holds it."""


@cache
def commands():
    """Options and first words of every command, as typer has them."""
    found = {}
    for command in joined():
        application = typer.Typer(add_completion=False)
        application.command(command.name)(_load(command, Invocation()))
        made = typer.main.get_command(application)
        options = {name for one in made.params for name in (*one.opts, *one.secondary_opts)}
        [_, first, *_] = inspect.signature(command.load(), eval_str=True).parameters.values()
        kind = typing.get_args(first.annotation)[0]
        kinds = [one for one in (kind, *typing.get_args(kind)) if isinstance(one, EnumType)]
        found[command.name] = options | {"--help", "-h"}, {word for one in kinds for word in one}
    return found


def strings(path: Path) -> Iterator[str]:
    """Every string of a module; what stands in braces of an f-string is a gap."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named(text: str) -> Iterator[str]:
    """What is said to be typed behind `calidrift`."""
    text = text.replace("``", "")
    yield from (" ".join(found["words"].split()) for found in QUOTED.finditer(text))
    yield from (found["words"].strip() for found in TYPED.finditer(text))


def wrong(words: str) -> str | None:
    """Say what is wrong with a command line; None where it could be typed."""
    typed = [one for one in words.partition("|")[0].split() if not one.startswith(("[", "("))]
    if not typed or typed[0].startswith("-"):
        known = {"--version", "--help", "-h"}
        return None if not typed or typed[0] in known else f"there is no option {typed[0]}"
    if typed[0] not in commands():
        return f"there is no command {typed[0]!r}"
    options, choices = commands()[typed[0]]
    absent = [one for one in typed if one[:1] == "-" and one.partition("=")[0] not in options]
    if absent:
        return f"'calidrift {typed[0]}' has no option {absent[0]}"
    second = typed[1] if len(typed) > 1 and typed[1].islower() and typed[1].isalpha() else None
    if second and choices and second not in choices:
        return f"'calidrift {typed[0]}' has no word {second!r}"
    return None


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *TEXTS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_what_a_text_says_can_be_typed(path):
    found = {words: wrong(words) for words in named(path.read_text(encoding="utf-8"))}
    assert {words: what for words, what in found.items() if what} == {}


def test_what_messages_say_can_be_typed():
    found = {
        f"{path.relative_to(ROOT)}: {words}": what
        for path in SOURCES
        for text in strings(path)
        for words in named(text)
        if (what := wrong(words))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run `calidrift selekt`", "selekt"),
        ("type 'calidrift jobs aprove 3'", "jobs aprove 3"),
        ("run `calidrift jobs start MODEL --again`", "jobs start MODEL --again"),
        ("```console\n$ calidrift dashboards pusch --url x\n```", "dashboards pusch --url x"),
        ("`calidrift --verbose`", "--verbose"),
    ],
)
def test_a_slip_is_noticed(text, words):
    assert list(named(text)) == [words]
    assert wrong(words)


def test_commands_are_found_at_all():
    read = [ROOT / "README.md", *TEXTS]
    assert sum(1 for path in read for _ in named(path.read_text(encoding="utf-8"))) > 40
    assert {path.name for path in read} >= {"RUNBOOK.md", "model.html", "README.md"}
    assert wrong("jobs start MODEL --revalidate") is None
    assert wrong("dashboards export --to dashboards --force") is None


def refused_beside_a_service(text: str) -> list[str]:
    return [words for words in named(text) if words.split()[0] in HOLDS_THE_DATABASE]


def test_alerts_name_what_works_beside_the_service():
    assert [
        (alert.name, words)
        for alert in ALERTS
        for words in refused_beside_a_service(f"{alert.summary} {alert.description}")
    ] == []


def test_pages_and_api_name_what_works_beside_the_service():
    """Whatever an assessment may say, said by a service."""
    told = {
        text
        for package in (assess, offline)
        for path in Path(package.__file__).parent.glob("*.py")
        for text in strings(path)
        if "\n" not in text and refused_beside_a_service(text)
    }
    assert len(told) > 5, "it finds what is to be said in other words"
    left = {}
    for text in told:
        found = while_serving(text)
        names = refused_beside_a_service(found.replace("` (while `calidrift serve` is stopped", ""))
        if names:
            left[text] = names
    assert left == {}
