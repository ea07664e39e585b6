"""The rules of the house that a syntax tree can show, each proven able to fail.

A rule is a function from the root of a tree to the places that break it. It must find nothing in
the project and find what is planted.
"""

import ast
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Rule = Callable[[Path], list[str]]

PACKAGES = ("agent/calidrift_agent", "analyzer/calidrift_analyzer")
BANNED = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "stuff"}
PUBLIC_MODULES = {"__init__", "errors"}
ABSTRACT = {"Protocol", "ABC", "TypedDict", "NamedTuple", "Enum", "IntEnum", "StrEnum", "IntFlag"}


def modules(root: Path, *packages: str) -> Iterator[tuple[Path, str, ast.Module]]:
    for package in packages or PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root), text, ast.parse(text)


def named(node: ast.expr) -> str:
    """The last word of a name, of `a.b`, of a call or of a subscript."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def banned_names(root: Path) -> list[str]:
    return [
        f"{path}: a name that says nothing"
        for path, _, _ in modules(root)
        if BANNED & {path.stem.strip("_"), *(part.strip("_") for part in path.parts[2:-1])}
    ]


def private_modules(root: Path) -> list[str]:
    """A module is `_x.py`, or the face of a folder, or `errors.py`.

    Folders of the agent are private too; those of the analyzer are named after its stages.
    """
    return [
        f"{path}: a module is private"
        for path, _, _ in modules(root)
        if not path.stem.startswith("_") and path.stem not in PUBLIC_MODULES
    ]


def long_files(root: Path) -> list[str]:
    return [
        f"{path}: {count} lines"
        for path, text, _ in modules(root)
        if (count := len(text.splitlines())) > 400
    ]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def long_functions(root: Path) -> list[str]:
    """Sixty lines of code; the docstring is not counted."""
    found = []
    for path, _, tree in modules(root):
        for node in functions(tree):
            documented = ast.get_docstring(node) is not None and len(node.body) > 1
            start = node.body[1].lineno if documented else node.lineno
            size = (node.end_lineno or start) - start + 1
            if size > 60:
                found.append(f"{path}:{node.lineno} {node.name}: {size} lines")
    return found


def many_parameters(root: Path) -> list[str]:
    found = []
    for path, _, tree in modules(root):
        for node in functions(tree):
            given = node.args
            names = {one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
            if len(names - {"self", "cls"}) > 7:
                found.append(f"{path}:{node.lineno} {node.name}: {len(names)} parameters")
    return found


def does_something(node: ast.stmt) -> bool:
    """A method that is no attribute in disguise and none of Python's own protocol."""
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("__")
        and not {named(one) for one in node.decorator_list} & {"property", "cached_property"}
    )


def many_methods(root: Path) -> list[str]:
    return [
        f"{path}:{node.lineno} {node.name}: {count} methods"
        for path, _, tree in modules(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and (count := sum(does_something(one) for one in node.body)) > 20
    ]


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(getattr(target, "id", "") == "__all__" for target in targets):
            return list(ast.literal_eval(node.value))
    return None


def bound(tree: ast.Module, package: str = "") -> set[str]:
    """Names without an underscore that a module defines, or imports from below `package`."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.If) and named(node.test) == "TYPE_CHECKING":
            found |= bound(ast.Module(node.body, []), package)
    return {name for name in found if not name.startswith("_")}


def faces(root: Path) -> list[str]:
    """Every face has an `__all__` that is sorted as ruff sorts it and equals its public names."""
    found = []
    for path, _, tree in modules(root):
        if path.name != "__init__.py":
            continue
        listed = exported(tree)
        own = bound(tree, ".".join(path.parts[1:-1]) + ".")
        if listed is None:
            found.append(f"{path}: no __all__")
        elif listed != sorted(listed, key=lambda n: (not n.isupper(), not n[0].isupper(), n)):
            found.append(f"{path}: __all__ is not sorted")
        elif difference := (own - set(listed)) | (set(listed) - bound(tree)):
            found.append(f"{path}: __all__ and the public names differ in {sorted(difference)}")
    return found


def environment_readers(root: Path) -> list[str]:
    """At most one module of a package reads the environment."""
    found = []
    for package in PACKAGES:
        readers = [
            str(path)
            for path, _, tree in modules(root, package)
            if any(
                (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
                or (
                    isinstance(node, ast.ImportFrom)
                    and node.module == "os"
                    and {"environ", "environb", "getenv"} & {alias.name for alias in node.names}
                )
                for node in ast.walk(tree)
            )
        ]
        if len(readers) > 1 or any(not one.endswith("_environment.py") for one in readers):
            found.append(f"the environment is read in {', '.join(readers)}")
    return found


def prints(root: Path) -> list[str]:
    """The agent never prints; its command line writes to the streams of its invocation."""
    return [
        f"{path}:{node.lineno}: print"
        for path, _, tree in modules(root, PACKAGES[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "print"
    ]


def exits(root: Path) -> list[str]:
    """Nothing in the agent ends the host's process; the command line ends its own."""
    return [
        f"{path}:{node.lineno}: ends the process"
        for path, _, tree in modules(root, PACKAGES[0])
        if "_command_line" not in path.parts
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in {"sys.exit", "os._exit", "os.abort", "exit", "quit"})
    ]


def bare_exceptions(root: Path) -> list[str]:
    return [
        f"{path}:{node.lineno}: raise Exception"
        for path, _, tree in modules(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and node.exc is not None
        and named(node.exc) in {"Exception", "BaseException"}
    ]


def open_classes(root: Path) -> list[str]:
    """A class is abstract, final, an error, or has a subclass in its package."""
    found = []
    for package in PACKAGES:
        classes = [
            (path, node)
            for path, _, tree in modules(root, package)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        ]
        parents = {named(base) for _, node in classes for base in node.bases}
        for path, node in classes:
            bases = {named(base) for base in node.bases}
            closed = "final" in {named(one) for one in node.decorator_list}
            error = any(base.endswith(("Error", "Exception")) for base in bases)
            if not (closed or error or bases & ABSTRACT or node.name in parents):
                found.append(f"{path}:{node.lineno} {node.name}: neither abstract nor final")
    return found


# What these export lives inside one process and on its hot path: it may be mutable.
MACHINERY = {"_command_line", "_observe", "_points", "_taps", "_watch"}


def loose_dataclasses(root: Path) -> list[str]:
    """A dataclass that crosses a boundary (a face exports it) is frozen and slotted."""
    found = []
    for package in PACKAGES:
        crossing = {
            name
            for path, _, tree in modules(root, package)
            if path.name == "__init__.py" and path.parent.name not in MACHINERY
            for name in exported(tree) or ()
        }
        for path, _, tree in modules(root, package):
            for node in ast.walk(tree):
                for one in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                    said = {k.arg for k in one.keywords} if isinstance(one, ast.Call) else set()
                    if (
                        named(one) == "dataclass"
                        and node.name in crossing
                        and not (said >= {"frozen", "slots"})
                    ):
                        found.append(f"{path}:{node.lineno} {node.name}: not frozen and slotted")
    return found


OFFENDERS: dict[Rule, tuple[str, str]] = {
    banned_names: ("agent/calidrift_agent/_state/_utils.py", "x = 1"),
    private_modules: ("agent/calidrift_agent/_state/reader.py", "x = 1"),
    long_files: ("analyzer/calidrift_analyzer/_x.py", "x = 1\n" * 401),
    long_functions: (
        "agent/calidrift_agent/_x.py",
        'def f():\n    """Doc."""\n' + "    x = 1\n" * 61,
    ),
    many_parameters: ("agent/calidrift_agent/_x.py", "def f(a, b, c, d, /, e, f, *, g, h): ..."),
    many_methods: (
        "agent/calidrift_agent/_x.py",
        "class A:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(21)),
    ),
    faces: (
        "agent/calidrift_agent/_state/__init__.py",
        "from calidrift_agent._state._reader import Reader, scan\n__all__ = ['Reader']",
    ),
    environment_readers: ("agent/calidrift_agent/_watch.py", "import os\nx = os.environ['A']"),
    prints: ("agent/calidrift_agent/_x.py", "def f():\n    print(1)"),
    exits: ("agent/calidrift_agent/_x.py", "import sys\ndef f():\n    sys.exit(1)"),
    bare_exceptions: ("agent/calidrift_agent/_x.py", "def f():\n    raise Exception('no')"),
    open_classes: ("agent/calidrift_agent/_x.py", "class Open:\n    x = 1"),
    loose_dataclasses: (
        "analyzer/calidrift_analyzer/records/__init__.py",
        "__all__ = ['A']\n@final\n@dataclass(frozen=True)\nclass A: ...",
    ),
}


@pytest.mark.parametrize("rule", OFFENDERS, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule, project):
    assert rule(project) == []


@pytest.mark.parametrize("rule", OFFENDERS, ids=lambda rule: rule.__name__)
def test_the_rule_finds_a_planted_offender(rule, plant):
    path, text = OFFENDERS[rule]

    found = rule(plant(path, text))

    assert len(found) == 1
    assert path in found[0]


@pytest.mark.parametrize(
    "text",
    ["__all__ = ['b', 'A']\nclass A: ...\ndef b(): ...", "def b(): ...", "__all__ = ['gone']"],
    ids=["unsorted", "no list", "a name that is not there"],
)
def test_a_face_can_fail_in_every_way(text, plant):
    assert len(faces(plant("agent/calidrift_agent/__init__.py", text))) == 1


def test_a_second_reader_of_the_environment_is_found(plant):
    plant("agent/calidrift_agent/_environment.py", "from os import environ")
    root = plant("agent/calidrift_agent/_state/_environment.py", "import os\nos.getenv('A')")

    assert len(environment_readers(root)) == 1


def test_a_kept_rule_is_not_called_broken(plant):
    root = plant(
        "agent/calidrift_agent/__init__.py",
        textwrap.dedent(
            """
            from calidrift_agent._state import Reader
            from typing import final
            LIMIT = 1
            __all__ = ["LIMIT", "Bound", "Reader", "read"]

            @final
            @dataclass(frozen=True, slots=True)
            class Bound: ...

            def read(a, b, c, d, e, f, g): ...
            """
        ),
    )

    assert [found for rule in OFFENDERS for found in rule(root)] == []
