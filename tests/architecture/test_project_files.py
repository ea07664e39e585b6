"""The files around the code: versions agree, nothing names the place where it was written."""

import re
import tomllib
from pathlib import Path

import pytest

import calidrift_agent

SKIPPED = {".git", ".venv", "__pycache__", "build", "dist", "node_modules"}
# Written in parts, so that this file does not find itself.
WORKPLACE = re.compile(
    "|".join([r"(?<![\w.])/wo" + r"rk/", r"\.\./sha" + r"red\b", r"/ro" + r"ot/"])
)


def texts(root: Path):
    for path in sorted(root.rglob("*")):
        parts = set(path.relative_to(root).parts)
        hidden = any(part.startswith(".") and part not in {".ci", ".gitignore"} for part in parts)
        if parts & SKIPPED or hidden or not path.is_file():
            continue
        try:
            yield path.relative_to(root), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def workplace_paths(root: Path) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in texts(root)
        for number, line in enumerate(text.splitlines(), 1)
        if WORKPLACE.search(line)
    ]


def versions(root: Path) -> set[str]:
    """The version of the distribution, and the newest one of the changelog if it is released."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(
        r"^## \[?([^\s\]]+)",
        (root / "CHANGELOG.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    newest = [heading for heading in headings[:1] if heading != "Unreleased"]
    return {project["version"], *newest}


def test_the_versions_agree(project):
    assert versions(project) == {calidrift_agent.__version__}


@pytest.mark.parametrize("heading", ["1.1", "[1.1]", "[1.1] - Unreleased"])
def test_a_changelog_of_another_version_is_found(plant, heading):
    plant("pyproject.toml", '[project]\nversion = "1.0"')
    root = plant("CHANGELOG.md", f"# Changelog\n\n## {heading}\n\n## 1.0\n")

    assert versions(root) == {"1.0", "1.1"}


def test_the_changelog_has_a_section_to_write_into(project):
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(r"^## \[?(Unreleased|\d+\.\d+\.\d+)", text, flags=re.MULTILINE)


def test_no_file_names_the_place_where_it_was_written(project):
    assert workplace_paths(project) == []


def test_a_workplace_path_is_found(plant):
    root = plant("docs/a.md", "see ../sha" + "red/DESIGN.md")

    assert len(workplace_paths(root)) == 1


def test_every_pinned_package_is_pinned_exactly(project):
    lines = (project / "constraints.txt").read_text(encoding="utf-8").split()

    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert {"torch==2.13.0", "torchao==0.18.0"} <= set(lines)


def test_everything_that_make_installs_is_pinned(project):
    """Every package of the base, `[analyzer]` and `[dev]` has a line in constraints.txt."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    extras = metadata["project"]["optional-dependencies"]
    wanted = [
        *metadata["project"]["dependencies"],
        *extras["analyzer"],
        *extras["dev"],
        *metadata["build-system"]["requires"],
    ]
    names = {re.split(r"[<>=! \[]", one)[0].lower().replace("_", "-") for one in wanted}
    lines = (project / "constraints.txt").read_text(encoding="utf-8").split()

    assert names - {line.split("==")[0].lower().replace("_", "-") for line in lines} == set()
