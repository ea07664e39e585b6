"""Publishing: the pointer there names what is wholly there, whatever call fails."""

import hashlib
import json
import math
import threading

import pytest

from calidrift_agent._registry import (
    Mirror,
    RegistryStore,
    VersionLayout,
    list_versions,
    open_version,
    read_pointer,
)
from calidrift_agent.errors import ConfigurationError, RegistryError, RegistryUnreachableError
from calidrift_analyzer.promote import _files as files_module
from calidrift_analyzer.promote import _publish as module
from calidrift_analyzer.promote import promote, publication, publish, rollback

URL = "faulty://bucket/models"
ROOT = "/bucket/models/net"
FILES = ("manifest.json", "model.pt2", "profile.json", "report.json")


@pytest.fixture
def registry(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def put(registry, make_candidate, report_on):
    """Promote a version with a text as its model; give its id."""

    def one(text="first"):
        candidate = make_candidate(text)
        return promote(candidate, report_on(candidate), registry, "net").id

    return one


def named(faulty):
    content = faulty.objects.get(f"{ROOT}/current")
    return None if content is None else json.loads(content)["version"]


def require_whole(faulty):
    """What the pointer in the store names is there, byte for byte as its manifest says."""
    identity = named(faulty)
    if identity is None:
        return
    folder = f"{ROOT}/versions/{identity}"
    manifest = faulty.objects.get(f"{folder}/manifest.json", b"")
    pointer = json.loads(faulty.objects[f"{ROOT}/current"])
    assert hashlib.sha256(manifest).hexdigest() == pointer["manifest_sha256"], "not whole"
    for name, entry in json.loads(manifest)["files"].items():
        content = faulty.objects.get(f"{folder}/{name}", b"")
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], "not whole"


def sends(faulty):
    return [call for call in faulty.calls if call.startswith("send")]


def test_what_serves_is_published_files_first_and_the_pointer_last(registry, put, faulty):
    identity = put()
    found = publish(registry, "net", URL)

    assert (found.url, found.version, found.sent, found.moved) == (URL, identity, 4, True)
    sent = [call.rpartition("/")[2] for call in sends(faulty)]
    assert sorted(sent[:4]) == list(FILES)
    assert sent[3:] == ["manifest.json", "current"]
    for name in FILES:
        there = faulty.objects[f"{ROOT}/versions/{identity}/{name}"]
        assert there == (VersionLayout(registry, "net").version(identity) / name).read_bytes()
    require_whole(faulty)


def test_nothing_is_sent_twice(registry, put, faulty):
    identity = put()
    publish(registry, "net", URL)
    before = len(sends(faulty))
    for thorough in (True, False):
        found = publish(registry, "net", URL, thorough=thorough)
        assert (found.version, found.sent, found.moved) == (identity, 0, False)
    assert len(sends(faulty)) == before


def test_a_quick_look_reads_no_file(registry, put, faulty):
    put()
    publish(registry, "net", URL)
    faulty.calls.clear()
    publish(registry, "net", URL, thorough=False)
    assert [call.partition(" ")[0] for call in faulty.calls] == ["read"] + ["info"] * 4


def test_a_rollback_moves_the_pointer_back_and_removes_nothing(registry, put, faulty):
    first = put()
    publish(registry, "net", URL)
    put("second")
    publish(registry, "net", URL)
    rollback(registry, "net")
    before = set(faulty.objects)
    found = publish(registry, "net", URL)
    assert (found.version, found.sent, found.moved) == (first, 0, True)
    assert named(faulty) == first
    assert set(faulty.objects) == before


def test_a_folder_behind_a_url_is_a_registry_like_any(registry, put, tmp_path):
    identity = put()
    publish(registry, "net", f"file://{tmp_path}/published")
    assert open_version(tmp_path / "published", "net").id == identity


def test_a_store_in_memory_is_followed(registry, put, tmp_path):
    identity = put()
    url = f"memory://{tmp_path.name}/models"
    publish(registry, "net", url)
    mirror = Mirror(url, "net", tmp_path / "cache", 2)
    version = mirror.open(mirror.pointer(), None)
    assert version.id == identity
    assert version.model_path.read_bytes() == open_version(registry, "net").model_path.read_bytes()


def fail_at_every_call(registry, faulty, stays_down):
    """Fail at the first call, at the second one, ... each time out of the same beginning."""
    beginning = dict(faulty.objects)
    for number in range(1, 100):
        faulty.objects = dict(beginning)
        faulty.fail_at, faulty.stays_down = number, stays_down
        try:
            publish(registry, "net", URL)
        except RegistryUnreachableError:
            faulty.fail_at, faulty.stays_down = math.inf, False
            yield number
        else:
            faulty.fail_at = math.inf
            return
    raise AssertionError("it never succeeded")


@pytest.mark.parametrize("stays_down", [False, True], ids=["hiccup", "outage"])
def test_whatever_call_fails_nothing_is_lost_and_the_next_try_goes_on(
    registry, put, faulty, stays_down
):
    first = put()
    publish(registry, "net", URL)
    second = put("second")
    failures = 0
    for _ in fail_at_every_call(registry, faulty, stays_down):
        failures += 1
        require_whole(faulty)
        assert named(faulty) in (first, second)
        assert read_pointer(VersionLayout(registry, "net")).version == second
        found = publish(registry, "net", URL)
        assert found.version == named(faulty) == second
        require_whole(faulty)
    assert failures == 15  # pointer; 4 files read, sent and read; pointer sent and read


def test_the_law_above_finds_a_pointer_that_is_moved_first(registry, put, faulty, monkeypatch):
    send = module._send

    def pointer_first(layout, store, pointer, step):
        store.point(pointer)
        return send(layout, store, pointer, step)

    put()
    publish(registry, "net", URL)
    put("second")
    monkeypatch.setattr(module, "_send", pointer_first)
    with pytest.raises(AssertionError, match="not whole"):
        for _ in fail_at_every_call(registry, faulty, stays_down=True):
            require_whole(faulty)


def test_the_law_above_finds_a_file_that_is_not_read_back(registry, put, faulty, monkeypatch):
    put()
    monkeypatch.setattr(
        RegistryStore, "holds", lambda self, place, *rest: self.size(place) is not None
    )
    with pytest.raises(AssertionError, match="not whole"):
        for _ in fail_at_every_call(registry, faulty, stays_down=False):
            publish(registry, "net", URL)  # takes the half file of the failed try for whole
            require_whole(faulty)


def test_a_file_that_arrives_damaged_is_never_named(registry, put, faulty):
    identity = put()
    place = f"{ROOT}/versions/{identity}/model.pt2"

    def damage(path):
        if path == place:
            faulty.objects[path] = b"?" + faulty.objects[path][1:]

    faulty.after = staticmethod(damage)
    with pytest.raises(RegistryError, match=f"{URL}/net/versions/.*/model.pt2 arrived damaged"):
        publish(registry, "net", URL)
    assert named(faulty) is None
    faulty.after = staticmethod(lambda path: None)
    assert publish(registry, "net", URL).version == named(faulty) == identity


@pytest.mark.parametrize("content", [None, b"half"], ids=["gone", "short"])
def test_what_somebody_took_away_there_is_found_and_sent_again(registry, put, faulty, content):
    identity = put()
    publish(registry, "net", URL)
    place = f"{ROOT}/versions/{identity}/profile.json"
    if content is None:
        del faulty.objects[place]
    else:
        faulty.objects[place] = content
    assert publish(registry, "net", URL, thorough=False).sent == 1
    require_whole(faulty)


def test_a_damaged_pointer_there_is_replaced(registry, put, faulty):
    identity = put()
    faulty.objects[f"{ROOT}/current"] = b'{"format"'
    assert publish(registry, "net", URL).moved
    assert named(faulty) == identity


def test_what_is_damaged_here_is_not_sent(registry, put, faulty):
    first = put()
    publish(registry, "net", URL)
    second = put("second")
    (VersionLayout(registry, "net").version(second) / "model.pt2").write_bytes(b"?")
    with pytest.raises(RegistryError, match=r"model.pt2 is damaged"):
        publish(registry, "net", URL)
    assert named(faulty) == first
    assert not any(second in path for path in faulty.objects)


def test_what_is_promoted_while_files_are_sent_is_what_counts(registry, put, faulty):
    first = put()
    moved = []

    def promote_meanwhile(path):
        if path.endswith("model.pt2") and not moved:
            moved.append(put("second"))

    faulty.after = staticmethod(promote_meanwhile)
    found = publish(registry, "net", URL)
    assert found.version == named(faulty) == moved[0] != first
    assert sum(call.endswith("current") for call in sends(faulty)) == 1


def test_two_publications_do_not_mix(registry, put, faulty):
    put()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(publish(registry, "net", URL)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert sorted(one.sent for one in found) == [0, 0, 4]
    require_whole(faulty)


def test_one_that_does_not_end_is_told_and_holds_up_no_promotion(
    registry, put, faulty, monkeypatch
):
    put()
    monkeypatch.setattr(files_module, "_WAIT_SECONDS", 0.0)
    layout = VersionLayout(registry, "net")
    with files_module.locked(layout, layout.root / ".publishing"):
        with pytest.raises(RegistryError, match="another publication of net holds"):
            publish(registry, "net", URL)
        second = put("second")
    assert publish(registry, "net", URL).version == second


def test_another_registry_that_publishes_there_is_noticed(registry, put, faulty):
    put()

    def other(path):
        if path.endswith("current"):
            faulty.objects[path] = faulty.objects[path].replace(b"000001-", b"000009-")

    faulty.after = staticmethod(other)
    with pytest.raises(RegistryError, match="does another registry publish there"):
        publish(registry, "net", URL)


def test_before_the_first_promotion_there_is_nothing_to_publish(registry, faulty):
    found = publish(registry, "net", URL)
    assert (found.version, faulty.objects) == (None, {})
    assert not registry.exists()


def test_a_publication_is_told_in_half_a_sentence(registry, put, faulty):
    identity = put()
    assert publication(registry, "net", None) is None
    assert publication(registry, "net", URL) == f"{identity} is at {URL}"
    put("second")
    faulty.fail_at, faulty.stays_down = 1, True
    told = publication(registry, "net", URL)
    assert told.startswith(f"it is not yet at {URL}: {URL} cannot be read (ConnectionError")
    assert told.endswith("tries again by itself, as do the next promotion and `calidrift publish`")
    assert "fsspec knows no store" in publication(registry, "net", "nowhere://bucket")


def test_a_defect_does_not_make_a_promotion_look_undone(registry, put, monkeypatch, caplog):
    put()

    def defect(*args):
        raise ZeroDivisionError("one")

    monkeypatch.setattr(module, "publish", defect)
    assert publication(registry, "net", URL).startswith(f"it is not yet at {URL}: one")
    assert "publishing net failed by a defect" in caplog.text


def test_a_registry_that_cannot_be_locked_is_told(registry, put, faulty, monkeypatch):
    put()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "locked", refuse)
    with pytest.raises(RegistryError, match=r"cannot be read or locked \(Permission denied\)"):
        publish(registry, "net", URL)


def test_a_url_that_cannot_be_used_is_a_mistake_of_the_configuration(registry, put):
    put()
    with pytest.raises(ConfigurationError, match="knows no store 'nowhere'"):
        publish(registry, "net", "nowhere://bucket")


def test_the_published_folder_lists_every_version(registry, put, tmp_path):
    url = f"file://{tmp_path}/published"
    first = put()
    publish(registry, "net", url)
    second = put("second")
    publish(registry, "net", url)
    assert [
        (one.id, one.current, one.problem) for one in list_versions(tmp_path / "published", "net")
    ] == [
        (first, False, None),
        (second, True, None),
    ]
