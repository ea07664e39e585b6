"""A canary in the pointer: read where it is whole, and never in the way of what serves."""

import json
import re

import pytest

from calidrift_agent._registry import Mirror, Pointer, VersionLayout, read_pointer
from calidrift_agent._registry import _layout as module

SERVING = Pointer("000001-0123456789abcdef", "0123456789abcdef" * 4)
TRIED = Pointer("000002-abababababababab", "ab" * 32)
BOTH = Pointer(SERVING.version, SERVING.manifest_sha256, TRIED)


@pytest.fixture
def layout(tmp_path):
    layout = VersionLayout(tmp_path, "net")
    layout.root.mkdir()
    return layout


def test_it_is_written_and_read(layout):
    layout.pointer.write_text(BOTH.to_json())
    assert read_pointer(layout) == BOTH
    assert BOTH.named == (BOTH, TRIED)
    assert SERVING.named == (SERVING,)
    assert "canary" not in SERVING.to_json()


def test_readers_of_before_see_what_most_serve(layout):
    """The pattern of the versions before there were canaries, word for word."""
    match json.loads(BOTH.to_json()):
        case {"format": int(number), **__} if number > module.FORMAT:
            pytest.fail("it would be refused as too new")
        case {"format": 1, "version": str(version), "manifest_sha256": str(digest)} if re.fullmatch(
            r"(\d{6,})-([0-9a-f]{16})", version
        ) and re.fullmatch(r"[0-9a-f]{64}", digest):
            assert (version, digest) == (SERVING.version, SERVING.manifest_sha256)
        case found:
            pytest.fail(f"{found} would be called damaged")


@pytest.mark.parametrize(
    "canary",
    [
        None,
        "000002",
        [],
        {},
        {"version": TRIED.version},
        {"version": "../../etc", "manifest_sha256": "ab" * 32},
        {"version": TRIED.version, "manifest_sha256": "ab"},
        {"version": SERVING.version, "manifest_sha256": SERVING.manifest_sha256},
    ],
    ids=str,
)
def test_a_damaged_one_is_none_and_what_serves_is_read_all_the_same(layout, canary):
    content = {**json.loads(SERVING.to_json()), "canary": canary}
    layout.pointer.write_text(json.dumps(content))
    assert read_pointer(layout) == SERVING


def test_a_copy_that_others_may_start_from_never_names_it(tmp_path, faulty, monkeypatch):
    mirror = Mirror("faulty://bucket", "net", tmp_path / "cache", 2)
    monkeypatch.setattr(Mirror, "_held", lambda self, pointer: None)
    monkeypatch.setattr(Mirror, "_fetched", _written)

    mirror.open(BOTH, None)
    assert mirror.last_known() == SERVING
    mirror.open(TRIED, SERVING.version, remember=False)
    assert mirror.last_known() == SERVING


def _written(mirror, pointer):
    from calidrift_agent._registry import Version

    path = mirror._layout.version(pointer.version)
    path.mkdir(parents=True, exist_ok=True)
    return Version("net", pointer.version, path, {})
