"""Documents point at things that exist; pictures stay small."""

import re
from pathlib import Path

import pytest

SKIPPED = {".git", ".venv", "node_modules", "build", "dist", "calidrift-demo"}
LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|srcset|href)=\"([^\"]+)\"")
CODE = re.compile(r"```.*?```|`[^`\n]*`", flags=re.DOTALL)
LARGEST = 150_000


def documents(root: Path) -> list[Path]:
    found = sorted(root.rglob("*.md"))
    return [path for path in found if not SKIPPED & set(path.relative_to(root).parts)]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = CODE.sub(lambda one: one[0] if "\n" not in one[0] else "", path.read_text())
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(root: Path) -> list[str]:
    broken = []
    for document in documents(root):
        for groups in LINK.findall(CODE.sub("", document.read_text(encoding="utf-8"))):
            target = groups[0] or groups[1]
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            known = path.exists() and (not anchor or anchor in anchors(path))
            if not known:
                broken.append(f"{document.relative_to(root)}: {target}")
    return broken


def large_pictures(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}: {path.stat().st_size} bytes"
        for path in sorted((root / "docs").rglob("*.png"))
        if path.stat().st_size > LARGEST
    ]


def test_every_link_of_a_document_leads_somewhere(project):
    assert broken_links(project) == []


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("[a](gone.md)", "gone.md"),
        ('<img src="docs/gone.png">', "docs/gone.png"),
        ("[a](#gone)", "#gone"),
        ("[a](docs/x.md#gone)", "docs/x.md#gone"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(plant, text, target):
    plant("README.md", f"# A title\n\n[fine](#a-title) `[code](nothing.md)` {text}\n")
    root = plant("docs/x.md", "[fine](../README.md#a-title) [far](https://example.com/x)\n")

    assert broken_links(root) == [f"README.md: {target}"]


def test_pictures_stay_small(project):
    assert list((project / "docs").glob("*.png")), "the tour of the README has pictures"
    assert large_pictures(project) == []


def test_a_large_picture_is_found(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "large.png").write_bytes(bytes(LARGEST + 1))
    (tmp_path / "docs" / "small.png").write_bytes(bytes(LARGEST))

    assert large_pictures(tmp_path) == [f"docs/large.png: {LARGEST + 1} bytes"]
