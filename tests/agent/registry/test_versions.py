"""Opening versions: complete ones only, and every damage named."""

import hashlib
import json

import pytest

from calidrift_agent._registry import (
    Pointer,
    VersionLayout,
    identity_of,
    list_versions,
    number_of,
    open_version,
    read_pointer,
)
from calidrift_agent.errors import ConfigurationError, RegistryError


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def layout(tmp_path):
    return VersionLayout(tmp_path / "registry", "net")


def write_version(layout, number=1, parent=None, **changes):
    files = {"model.pt2": b"model", "profile.json": b"{}", "report.json": b"[]"}
    manifest = {
        "format": 1,
        "parent": parent,
        "files": {
            name: {"sha256": sha256(content), "bytes": len(content)}
            for name, content in files.items()
        },
        **changes,
    }
    text = json.dumps(manifest).encode()
    identity = identity_of(number, sha256(text))
    path = layout.version(identity)
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    (path / "manifest.json").write_bytes(text)
    return identity


def point_to(layout, identity):
    digest = sha256((layout.version(identity) / "manifest.json").read_bytes())
    layout.pointer.write_text(Pointer(identity, digest).to_json())


def opened(layout, version=None):
    return open_version(layout.root.parent, layout.model, version)


def test_the_version_that_the_pointer_names_is_opened(layout):
    older = write_version(layout, 1)
    newer = write_version(layout, 2, parent=older)
    point_to(layout, newer)

    version = opened(layout)

    assert (version.id, version.parent, version.model) == (newer, older, "net")
    assert version.model_path.read_bytes() == b"model"
    assert version.profile_path.name == "profile.json"
    assert version.report_path.name == "report.json"
    assert opened(layout, older).parent is None


def test_nothing_promoted_is_said_so(layout):
    with pytest.raises(
        RegistryError, match=r"no version of net was promoted .*`calidrift promote`"
    ):
        opened(layout)
    assert list_versions(layout.root.parent, "net") == ()
    assert read_pointer(layout) is None


@pytest.mark.parametrize("name", ["model.pt2", "profile.json", "report.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "longer"])
def test_any_damage_of_any_file_is_named_and_never_served(layout, name, damage):
    identity = write_version(layout)
    point_to(layout, identity)
    path = layout.version(identity) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {
                "cut": content[:-1],
                "flipped": bytes([content[0] ^ 1]) + content[1:],
                "longer": content + b"x",
            }[damage]
        )

    for version in (None, identity):
        with pytest.raises(RegistryError, match=f"{path} is damaged"):
            opened(layout, version)
    (status,) = list_versions(layout.root.parent, "net")
    assert status.current
    assert str(path) in status.problem


def test_a_manifest_swapped_with_its_files_is_not_what_was_promoted(layout):
    """A consistent but different version under the promoted name: the id promises its manifest."""
    identity = write_version(layout)
    other = write_version(layout, 2, created="later")
    layout.version(other).rename(layout.root / "kept")
    for file in (layout.root / "kept").iterdir():
        (layout.version(identity) / file.name).write_bytes(file.read_bytes())

    with pytest.raises(RegistryError, match="not the one that was promoted"):
        opened(layout, identity)


def test_the_pointer_must_agree_with_the_whole_digest(layout):
    identity = write_version(layout)
    layout.pointer.write_text(Pointer(identity, "0" * 64).to_json())

    with pytest.raises(RegistryError, match="not the one that was promoted"):
        opened(layout)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"format": 1, "version": "../../etc", "manifest_sha256": "00"}',
        b'{"format": 1, "version": "000001-0123456789abcdef"}',
        b'{"format": 1, "version": "000001-0123456789abcdef", "manifest_sha256": "xyz"}',
    ],
)
def test_a_damaged_pointer_is_named(layout, content):
    layout.root.mkdir(parents=True)
    layout.pointer.write_bytes(content)

    with pytest.raises(RegistryError, match=r"current (is damaged|cannot be read).*--to"):
        opened(layout)


def test_a_newer_format_asks_for_an_update(layout):
    identity = write_version(layout, format=2)
    with pytest.raises(RegistryError, match="has format 2, but this version reads up to 1"):
        opened(layout, identity)

    layout.pointer.write_text(json.dumps({"format": 9}))
    with pytest.raises(RegistryError, match="has format 9"):
        opened(layout)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": []},
        {"files": {name: {} for name in ("model.pt2", "profile.json", "report.json")}},
        {"format": "one"},
    ],
)
def test_a_manifest_without_the_files_of_a_version_is_refused(layout, changes):
    identity = write_version(layout, **changes)

    with pytest.raises(RegistryError, match=r"manifest\.json is damaged"):
        opened(layout, identity)


def test_a_manifest_cannot_name_files_elsewhere(layout):
    entry = {"sha256": sha256(b"model"), "bytes": 5}
    files = dict.fromkeys(["model.pt2", "profile.json", "report.json", "../x"], entry)
    identity = write_version(layout, files=files)

    with pytest.raises(RegistryError, match="does not list the files"):
        opened(layout, identity)


@pytest.mark.parametrize("version", ["../..", "latest", "000001-xyz", "1-0123456789abcdef"])
def test_a_version_is_never_a_path(layout, version):
    with pytest.raises(RegistryError, match="is not a version of net"):
        opened(layout, version)


def test_a_version_that_is_not_there_is_named(layout):
    with pytest.raises(RegistryError, match=r"000007-0123456789abcdef of net is not in"):
        opened(layout, "000007-0123456789abcdef")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65])
def test_a_model_name_is_never_a_path(tmp_path, name):
    with pytest.raises(ConfigurationError, match="is not a name of a model"):
        VersionLayout(tmp_path, name)


def test_unfinished_and_foreign_folders_are_not_versions(layout):
    identity = write_version(layout)
    layout.partial(2).mkdir()
    (layout.versions / "notes").mkdir()

    statuses = list_versions(layout.root.parent, "net")

    assert [(one.id, one.problem, one.current) for one in statuses] == [(identity, None, False)]


def test_versions_are_listed_by_number_not_by_text(layout):
    numbers = [999_999, 1_000_000, 2]
    for number in numbers:
        write_version(layout, number)

    listed = [number_of(one) for one in layout.identities()]

    assert listed == sorted(numbers)


def test_a_damaged_pointer_does_not_hide_the_versions(layout):
    identity = write_version(layout)
    layout.pointer.write_text("torn")

    (status,) = list_versions(layout.root.parent, "net")

    assert (status.id, status.current, status.problem) == (identity, False, None)


def test_a_registry_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "versions").write_text("")

    with pytest.raises(RegistryError, match="cannot be listed"):
        list_versions(tmp_path, "net")
