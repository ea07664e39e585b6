"""The local copy: wholly there or not at all, verified before each use, and bounded."""

import hashlib
import json
import math
import os
import threading

import pytest

from calidrift_agent._registry import Mirror, Pointer, identity_of, list_versions, open_version
from calidrift_agent._registry import _mirror as module
from calidrift_agent.errors import RegistryError, RegistryUnreachableError

URL = "faulty://bucket/models"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def publish(faulty, number, *, switch=True, **changed):
    """Put a version into the store, and let its pointer name it."""
    files = {"model.pt2": b"model %d" % number, "profile.json": b"{}", "report.json": b"[]"}
    listed = {name: {"sha256": sha256(it), "bytes": len(it)} for name, it in files.items()}
    text = json.dumps({"format": 1, "parent": None, "files": listed}).encode()
    identity = identity_of(number, sha256(text))
    objects = {**files, "manifest.json": text, **changed}
    for name, content in objects.items():
        if content is not None:
            faulty.objects[f"/bucket/models/net/versions/{identity}/{name}"] = content
    pointer = Pointer(identity, sha256(text))
    if switch:
        faulty.objects["/bucket/models/net/current"] = pointer.to_json().encode()
    return pointer


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def mirror(faulty, cache):
    return Mirror(URL, "net", cache, 2)


def folder_of(cache):
    [folder] = cache.iterdir()
    return folder


def held(cache):
    return [one.id for one in list_versions(folder_of(cache), "net")]


def test_a_version_is_copied_once_and_can_be_opened_as_in_any_registry(faulty, mirror, cache):
    pointer = publish(faulty, 1)
    version = mirror.open(mirror.pointer(), None)

    assert version.model_path.read_bytes() == b"model 1"
    assert mirror.last_known() == pointer
    assert open_version(folder_of(cache), "net").id == pointer.version
    before = len(faulty.calls)
    assert mirror.open(pointer, None).id == pointer.version
    assert len(faulty.calls) == before


def test_two_urls_never_share_a_pointer(faulty, cache):
    Mirror(URL, "net", cache, 2).open(publish(faulty, 1), None)
    assert Mirror("faulty://elsewhere", "net", cache, 2).last_known() is None


def test_a_copy_that_was_damaged_here_is_made_anew(faulty, mirror):
    pointer = publish(faulty, 1)
    path = mirror.open(pointer, None).model_path
    path.write_bytes(b"model X")
    assert mirror.open(pointer, None).model_path.read_bytes() == b"model 1"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.pt2", b"model X", "its sha256 is not the one of its manifest"),
        ("model.pt2", b"mod", "it has other than 7 bytes"),
        ("model.pt2", b"model 1" * 9, "it has other than 7 bytes"),
        ("model.pt2", None, "it is not there"),
        ("manifest.json", None, "it is not there"),
        ("manifest.json", b"{}", "its sha256 is not the one that was promoted"),
    ],
)
def test_what_is_not_whole_in_the_store_is_never_given(
    faulty, mirror, cache, name, content, message
):
    first = publish(faulty, 1)
    mirror.open(first, None)
    second = publish(faulty, 2, **{name: content})
    with pytest.raises(RegistryError, match=message) as caught:
        mirror.open(second, first.version)
    assert not isinstance(caught.value, RegistryUnreachableError)
    assert f"{URL}/net/versions/{second.version}/{name}" in str(caught.value)
    assert held(cache) == [first.version]
    assert mirror.last_known() == first

    publish(faulty, 2)  # it was mended
    assert mirror.open(second, first.version).model_path.read_bytes() == b"model 2"


def test_more_than_was_promoted_is_not_written(faulty, mirror, cache):
    pointer = publish(faulty, 1, **{"model.pt2": bytes(4 << 20)})
    with pytest.raises(RegistryError, match="other than 7 bytes"):
        mirror.open(pointer, None)
    sizes = [path.stat().st_size for path in folder_of(cache).rglob("model.pt2")]
    assert all(size <= 7 for size in sizes)


@pytest.mark.parametrize("stays_down", [False, True], ids=["hiccup", "outage"])
def test_whatever_call_fails_nothing_unfinished_is_given_and_the_next_try_goes_on(
    faulty, tmp_path, stays_down
):
    first, second = publish(faulty, 1), publish(faulty, 2)
    failures = 0
    for number in range(1, 20):
        cache = tmp_path / f"{number}"
        mirror = Mirror(URL, "net", cache, 2)
        mirror.open(first, None)
        faulty.fail_at, faulty.stays_down = number, stays_down
        try:
            pointer = mirror.pointer()
            mirror.open(pointer, first.version)
        except RegistryUnreachableError:
            failures += 1
            assert mirror.last_known() == first
            assert held(cache) == [first.version]
        else:
            assert number > 5  # pointer, manifest and three files
            break
        finally:
            faulty.fail_at, faulty.stays_down = math.inf, False
        before = len(faulty.calls)
        assert mirror.open(second, first.version).id == second.version
        assert len(faulty.calls) - before <= 4
        assert mirror.last_known() == second
    assert failures == 5


def test_what_an_interrupted_copy_has_is_not_copied_again(faulty, mirror):
    pointer = publish(faulty, 1)
    faulty.fail_at = 4  # the last file
    with pytest.raises(RegistryUnreachableError):
        mirror.open(pointer, None)
    before = len(faulty.calls)
    mirror.open(pointer, None)
    assert len(faulty.calls) - before == 2


def test_copies_are_bounded_and_the_one_that_serves_stays(faulty, mirror, cache):
    pointers = [publish(faulty, number) for number in range(1, 6)]
    for pointer in pointers:
        mirror.open(pointer, pointers[0].version)
    assert held(cache) == [pointers[0].version, pointers[4].version]
    assert not list(folder_of(cache).rglob("*.partial"))


def test_what_was_used_last_stays(faulty, cache):
    mirror = Mirror(URL, "net", cache, 3)
    pointers = [publish(faulty, number) for number in range(1, 5)]
    for pointer in pointers[:3]:
        mirror.open(pointer, None)
    for used, pointer in enumerate([pointers[1], pointers[2], pointers[0]]):
        path = folder_of(cache) / "net" / "versions" / pointer.version
        os.utime(path, (1_000 + used, 1_000 + used))
    mirror.open(pointers[3], None)
    assert held(cache) == [pointers[0].version, pointers[2].version, pointers[3].version]


def test_what_an_abandoned_copy_left_is_removed(faulty, mirror, cache):
    first = publish(faulty, 1)
    faulty.fail_at = 3
    with pytest.raises(RegistryUnreachableError):
        mirror.open(first, None)
    assert list(folder_of(cache).rglob("*.partial"))
    mirror.open(publish(faulty, 2), None)
    assert not list(folder_of(cache).rglob("*.partial"))


def test_processes_that_share_a_cache_copy_once(faulty, cache):
    pointer = publish(faulty, 1)
    mirrors = [Mirror(URL, "net", cache, 2) for _ in range(4)]
    given = []
    threads = [
        threading.Thread(target=lambda one=one: given.append(one.open(pointer, None).id))
        for one in mirrors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert given == [pointer.version] * 4
    assert sum("manifest.json" in call for call in faulty.calls) == 1


def test_a_full_disk_is_told(faulty, mirror, monkeypatch):
    pointer = publish(faulty, 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "utime", full)
    with pytest.raises(RegistryError, match=r"cannot be copied to .*No space left.*make room"):
        mirror.open(pointer, None)


def test_a_damaged_pointer_of_the_copy_counts_as_none(faulty, mirror, cache):
    pointer = publish(faulty, 1)
    mirror.open(pointer, None)
    (folder_of(cache) / "net" / "current").write_text("{")
    assert mirror.last_known() is None
    mirror.open(pointer, None)
    assert mirror.last_known() == pointer
