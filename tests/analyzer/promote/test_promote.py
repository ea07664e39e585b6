"""Promotion and rollback, as long as nobody pulls the plug."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from calidrift_agent._registry import VersionLayout, list_versions, open_version
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote import promote, rollback
from calidrift_analyzer.records import ValidationReport, read_record


@pytest.fixture
def registry(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def put(registry, make_candidate, report_on):
    """Promote a candidate with this text as its model."""

    def promoted(text):
        candidate = make_candidate(text)
        return promote(candidate, report_on(candidate), registry, "net")

    return promoted


def serving(registry):
    return open_version(registry, "net").id


def test_a_promoted_candidate_is_served_whole(registry, candidate, report_on):
    report = report_on(candidate)
    steps = []

    promoted = promote(candidate, report, registry, "net", on_step=steps.append)

    version = open_version(registry, "net")
    assert version.id == promoted.id
    assert version.path == promoted.path
    assert version.model_path.read_bytes() == (candidate.path / "model.pt2").read_bytes()
    stored = json.loads(version.report_path.read_text())
    assert read_record(ValidationReport, stored, source="the version") == report
    manifest = json.loads(promoted.manifest)
    assert manifest["candidate"]["id"] == candidate.id
    assert manifest["profile"] == promoted.profile
    assert set(manifest["fingerprint"]) >= {"weights", "graph", "data", "preprocessing", "isa"}
    assert steps == [
        "lock",
        "copy model.pt2",
        "copy profile.json",
        "write report.json",
        "write manifest.json",
        "publish",
        "verify",
        "switch",
        "done",
    ]


def test_versions_are_numbered_and_remember_what_served_before(put):
    one, two, three = put("one"), put("two"), put("three")

    assert [v.id.partition("-")[0] for v in (one, two, three)] == ["000001", "000002", "000003"]
    assert (one.parent, two.parent, three.parent) == (None, one.id, two.id)


def test_rollback_goes_back_step_by_step_and_anywhere_by_name(registry, put):
    one, two, three = put("one"), put("two"), put("three")

    assert rollback(registry, "net").id == two.id == serving(registry)
    assert rollback(registry, "net").id == one.id == serving(registry)
    with pytest.raises(RegistryError, match="nothing to go back to"):
        rollback(registry, "net")
    assert rollback(registry, "net", three.id).id == three.id == serving(registry)


def test_a_version_after_a_rollback_has_what_really_served_as_its_parent(registry, put):
    one = put("one")
    put("two")
    rollback(registry, "net")

    assert put("three").parent == one.id


def test_rollback_to_what_serves_is_an_error(registry, put):
    one = put("one")

    with pytest.raises(RegistryError, match="serves already"):
        rollback(registry, "net", one.id)


def test_rollback_without_any_version_is_an_error(registry):
    with pytest.raises(RegistryError, match="no version of net was promoted"):
        rollback(registry, "net")


def test_rollback_never_serves_a_damaged_version(registry, put):
    one, two = put("one"), put("two")
    (one.path / "model.pt2").write_bytes(b"rotten")

    with pytest.raises(RegistryError, match=r"model\.pt2 is damaged"):
        rollback(registry, "net")
    assert serving(registry) == two.id


@pytest.mark.parametrize("damage", ["manifest", "pointer", "gone"])
def test_rollback_works_where_the_current_version_cannot_say_its_parent(registry, put, damage):
    one, two = put("one"), put("two")
    if damage == "manifest":
        (two.path / "manifest.json").write_bytes(b"{}")
    elif damage == "gone":
        shutil.rmtree(two.path)
    else:
        VersionLayout(registry, "net").pointer.write_text("torn")

    back = rollback(registry, "net")

    # Without a readable pointer the newest complete version is the best guess.
    assert back.id == (two.id if damage == "pointer" else one.id)
    assert serving(registry) == back.id


def test_a_refused_report_changes_nothing_and_says_why(registry, candidate, report_on):
    with pytest.raises(RefusedError, match="refused, nothing was changed: the size is what it is"):
        promote(candidate, report_on(candidate, passed=False), registry, "net")

    assert not registry.exists()


def test_a_report_without_gates_has_not_passed(registry, candidate, report_on):
    with pytest.raises(RefusedError, match="nothing was changed"):
        promote(candidate, report_on(candidate, gates=()), registry, "net")


def test_a_report_about_another_candidate_counts_for_nothing(
    registry, candidate, make_candidate, report_on
):
    other = make_candidate("another")

    with pytest.raises(RefusedError, match="not about these files"):
        promote(candidate, report_on(other), registry, "net")
    with pytest.raises(RefusedError, match="not other"):
        promote(candidate, report_on(candidate), registry, "other")
    assert not registry.exists()


def test_a_file_that_changed_after_validation_is_not_promoted(
    registry, put, make_candidate, report_on
):
    one = put("one")
    candidate = make_candidate("two")
    report = report_on(candidate)
    (candidate.path / "model.pt2").write_bytes(b"swapped")

    with pytest.raises(RegistryError, match="has changed since it was validated"):
        promote(candidate, report, registry, "net")

    assert serving(registry) == one.id
    assert [entry.id for entry in list_versions(registry, "net")] == [one.id]
    assert not list(registry.rglob("*.partial"))


def test_a_missing_file_is_one_sentence(registry, candidate, report_on):
    report = report_on(candidate)
    (candidate.path / "model.pt2").unlink()

    with pytest.raises(RegistryError, match=r"cannot be written .*No such file.*still does"):
        promote(candidate, report, registry, "net")


def test_a_full_disk_leaves_what_served(registry, put, make_candidate, report_on, monkeypatch):
    one = put("one")
    candidate = make_candidate("two")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calidrift_analyzer.promote._files.os.fsync", no_space)
    with pytest.raises(RegistryError, match="No space left on device"):
        promote(candidate, report_on(candidate), registry, "net")
    with pytest.raises(RegistryError, match="No space left on device"):
        rollback(registry, "net", one.id)

    monkeypatch.undo()
    assert serving(registry) == one.id


def test_the_pointer_cannot_be_switched_to_what_does_not_verify(
    registry, put, candidate, report_on
):
    """A disk that loses what it wrote: the version is read back before the switch."""
    one = put("one")

    def rot(step):
        if step == "verify":
            for path in registry.rglob("000002-*/model.pt2"):
                path.write_bytes(b"rotten")

    with pytest.raises(RegistryError, match=r"model\.pt2 is damaged"):
        promote(candidate, report_on(candidate), registry, "net", on_step=rot)
    assert serving(registry) == one.id


def test_two_promotions_at_once_make_two_versions(registry, make_candidate, report_on):
    candidates = [make_candidate(f"model {number}") for number in range(4)]
    barrier = threading.Barrier(4)

    def run(candidate):
        barrier.wait()
        return promote(candidate, report_on(candidate), registry, "net").id

    with ThreadPoolExecutor(4) as pool:
        promoted = list(pool.map(run, candidates))

    assert sorted(one.partition("-")[0] for one in promoted) == [f"{n:06d}" for n in (1, 2, 3, 4)]
    statuses = list_versions(registry, "net")
    assert [one.problem for one in statuses] == [None] * 4
    chain = [open_version(registry, "net", one.id).parent for one in statuses]
    assert chain == [None, *(one.id for one in statuses[:-1])]
    assert serving(registry) == statuses[-1].id


def test_a_lock_that_is_never_released_is_told(registry, candidate, report_on, monkeypatch):
    monkeypatch.setattr("calidrift_analyzer.promote._files._WAIT_SECONDS", 0.0)
    entered, release = threading.Event(), threading.Event()

    def hold(step):
        if step == "publish":
            entered.set()
            release.wait(30)

    first = threading.Thread(
        target=promote,
        args=(candidate, report_on(candidate), registry, "net"),
        kwargs={"on_step": hold},
    )
    first.start()
    try:
        assert entered.wait(30)
        with pytest.raises(RegistryError, match=r"another promotion or rollback of net holds"):
            rollback(registry, "net")
    finally:
        release.set()
        first.join()
