"""The wheel that users install: built from this tree, everything inside, nothing else."""

import ast
import configparser
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

CODE = ("agent/calidrift_agent", "analyzer/calidrift_analyzer")


def build(root: Path, target: Path) -> zipfile.ZipFile:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet",
         "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(root)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    [wheel] = target.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def wheel(project, tmp_path_factory):
    """The wheel of a copy of the tree, so that the build leaves nothing behind in it."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(project / name, copy)
    for folder in CODE:
        shutil.copytree(
            project / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(project / "agent" / "build_native.py", copy / "agent")
    with build(copy, tmp_path_factory.mktemp("wheel")) as built:
        yield built


def sources(root: Path) -> set[str]:
    """Every file of the packages, as it is named inside the wheel, but for what is built."""
    return {
        str(path.relative_to(root / folder.split("/", maxsplit=1)[0]))
        for folder in CODE
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }


def test_every_file_of_the_packages_is_inside_and_nothing_else(wheel, project):
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    built = {name for name in inside if name.endswith(".so")}

    assert inside - built == sources(project)
    assert built <= {"calidrift_agent/_taps/_native/_tap.abi3.so"}
    [info] = [name for name in wheel.namelist() if name.endswith(".dist-info/WHEEL")]
    pure = b"Root-Is-Purelib: true" in wheel.read(info)
    assert pure == (not built)


def test_what_is_no_python_code_is_inside(wheel):
    inside = wheel.namelist()

    assert "calidrift_agent/py.typed" in inside
    assert "calidrift_analyzer/py.typed" in inside
    assert sum(name.endswith(".sql") for name in inside) > 0
    assert any(name.endswith("LICENSE") for name in inside)


def test_a_file_that_is_left_out_would_be_found(wheel, project, tmp_path):
    for folder in CODE:
        shutil.copytree(project / folder, tmp_path / folder)
    (tmp_path / CODE[0] / "left_out.sql").touch()

    assert sources(tmp_path) - set(wheel.namelist()) == {"calidrift_agent/left_out.sql"}


def test_the_entry_points_lead_to_functions_that_exist(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())

    assert dict(points["console_scripts"]) == {"calidrift": "calidrift_agent._command_line:main"}
    assert dict(points["calidrift.commands"]) == {"analyzer": "calidrift_analyzer.cli:register"}
    for target in ("calidrift_agent._command_line:main", "calidrift_analyzer.cli:register"):
        module, _, function = target.partition(":")
        tree = ast.parse(wheel.read(module.replace(".", "/") + "/__init__.py"))
        names = {getattr(node, "name", "") for node in tree.body} | {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert function in names


def test_the_base_needs_no_heavy_package(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    base = [one for one in metadata.get_all("Requires-Dist") if "extra ==" not in one]

    assert sorted(one.split(">")[0] for one in base) == [
        "numpy",
        "opentelemetry-sdk",
        "prometheus-client",
        "safetensors",
        "torch",
        "typer",
    ]
    assert {"analyzer", "dev"} <= set(metadata.get_all("Provides-Extra"))
