"""The error trees: what the docstring draws is what the classes are."""

import inspect
import re
from types import ModuleType

import pytest

import calidrift_agent.errors
import calidrift_analyzer.errors
from calidrift_agent.errors import CalidriftError

LINE = re.compile(r"(?P<indent>[ │├└─]*)(?P<name>\w+Error)(?: \((?P<note>[^)]*)\))?")
TREES = [calidrift_agent.errors, calidrift_analyzer.errors]


def drawn(text: str) -> dict[str, tuple[str | None, str | None]]:
    """Read a drawing: name of an error → (its parent, the note in parentheses)."""
    found: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match and line.startswith("    "):
            depth = len(match["indent"])
            while above and above[-1][0] >= depth:
                above.pop()
            found[match["name"]] = (above[-1][1] if above else None, match["note"])
            above.append((depth, match["name"]))
    return found


def built(module: ModuleType) -> dict[str, type[CalidriftError]]:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, CalidriftError)
    }


def differences(module: ModuleType, text: str) -> list[str]:
    picture, classes = drawn(text), built(module)
    found = [f"{name} is only drawn or only built" for name in set(picture) ^ set(classes)]
    for name in set(picture) & set(classes):
        parent, note = picture[name]
        error = classes[name]
        if note == "of the agent":
            if error.__module__ != "calidrift_agent.errors":
                found.append(f"{name} is not of the agent")
            continue
        if parent and parent not in {base.__name__ for base in error.__bases__}:
            found.append(f"{name} is no {parent}")
        if note and note not in {base.__name__ for base in error.__bases__}:
            found.append(f"{name} is no {note}")
    return found


@pytest.mark.parametrize("module", TREES, ids=lambda module: module.__name__)
def test_the_drawn_tree_is_the_built_tree(module):
    assert differences(module, module.__doc__) == []


@pytest.mark.parametrize(
    "change",
    [
        ("├── ProfileError (ValueError)", "├── ProfileError (KeyError)"),
        ("│   ├── ProfileFormatError", "├── ProfileFormatError_"),
        ("│   ├── StateFormatError ", "├── StateFormatError "),
        ("    └── AttachError (TypeError)", "    └── no line for it"),
    ],
    ids=["another built-in", "another name", "another parent", "a missing line"],
)
def test_a_wrong_drawing_is_found(change):
    text = calidrift_agent.errors.__doc__
    assert change[0] in text

    assert differences(calidrift_agent.errors, text.replace(*change)) != []


@pytest.mark.parametrize("module", TREES, ids=lambda module: module.__name__)
def test_each_error_is_also_a_built_in(module):
    for error in built(module).values():
        if error is not CalidriftError:
            builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
            assert builtins[0] is not Exception, error


@pytest.mark.parametrize("module", TREES, ids=lambda module: module.__name__)
def test_all_lists_every_error(module):
    assert set(module.__all__) == set(built(module))
