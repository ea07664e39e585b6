"""Staged, completed, withdrawn: each is one switch, may be repeated, and survives a kill."""

import dataclasses
import hashlib
import json
import pickle
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from calidrift_agent._registry import (
    Mirror,
    VersionLayout,
    list_versions,
    open_version,
    read_pointer,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote import complete, promote, publish, rollback, stage, withdraw

STAGE = [
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


@pytest.fixture
def registry(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def serving(registry, make_candidate, report_on):
    candidate = make_candidate("serves")
    return promote(candidate, report_on(candidate), registry, "net").id


@pytest.fixture
def other(make_candidate, traffic):
    """Makes candidates with a profile of their own."""

    def make(text="tried", seed=2):
        candidate = make_candidate(text)
        values = np.random.default_rng(seed).normal(size=(8, 16))
        traffic.profile({"a:input": values}).save(candidate.path / "profile.json")
        files = {
            name: hashlib.sha256((candidate.path / name).read_bytes()).hexdigest()
            for name in candidate.files
        }
        return dataclasses.replace(candidate, files=files)

    return make


@pytest.fixture
def staged(registry, serving, other, report_on):
    candidate = other()
    return stage(candidate, report_on(candidate), registry, "net")


def named(registry):
    """What most serve, and the canary."""
    pointer = read_pointer(VersionLayout(registry, "net"))
    return pointer.version, None if pointer.canary is None else pointer.canary.version


def test_a_staged_version_is_named_beside_what_serves(registry, serving, staged):
    assert named(registry) == (serving, staged.id)
    assert staged.parent == serving
    assert open_version(registry, "net").id == serving
    assert open_version(registry, "net", staged.id).id == staged.id
    found = {one.id: one.current for one in list_versions(registry, "net")}
    assert found == {serving: True, staged.id: False}


def test_staging_the_same_candidate_again_changes_nothing(registry, staged, other, report_on):
    before = named(registry)
    listed = json.loads(staged.manifest)["files"]
    files = {name: listed[name]["sha256"] for name in ("model.pt2", "profile.json")}
    candidate = dataclasses.replace(other("again"), files=files)
    again = stage(candidate, report_on(candidate), registry, "net")
    assert again.id == staged.id
    assert named(registry) == before
    assert len(list_versions(registry, "net")) == 2


def test_another_candidate_takes_its_place(registry, serving, staged, other, report_on):
    third = other("third", seed=3)
    version = stage(third, report_on(third), registry, "net")
    assert named(registry) == (serving, version.id)


def test_one_that_an_earlier_try_has_written_is_named_and_not_written(
    registry, serving, staged, other, report_on
):
    withdraw(registry, "net", staged.id)
    candidate = other("anything", seed=2)
    steps = []
    again = stage(
        candidate,
        report_on(candidate),
        registry,
        "net",
        known=staged.id,
        on_step=steps.append,
    )
    assert again.id == staged.id
    assert steps == ["lock", "switch", "done"]
    assert named(registry) == (serving, staged.id)


def test_completed_it_serves_everywhere_and_once_only(registry, staged):
    steps = []
    assert complete(registry, "net", staged.id, on_step=steps.append).id == staged.id
    assert named(registry) == (staged.id, None)
    assert steps == ["lock", "switch", "done"]
    assert complete(registry, "net", staged.id, on_step=steps.append).id == staged.id
    assert steps[3:] == ["lock", "done"]


def test_withdrawn_what_serves_is_as_before(registry, serving, staged):
    assert withdraw(registry, "net", staged.id)
    assert named(registry) == (serving, None)
    assert not withdraw(registry, "net", staged.id)
    with pytest.raises(RefusedError, match="is no longer tried on canaries: somebody promoted"):
        complete(registry, "net", staged.id)
    assert named(registry) == (serving, None)


def test_a_promotion_and_a_rollback_end_it(registry, serving, staged, other, report_on):
    third = other("third", seed=3)
    version = promote(third, report_on(third), registry, "net")
    assert named(registry) == (version.id, None)
    fourth = other("fourth", seed=4)
    stage(fourth, report_on(fourth), registry, "net")
    rollback(registry, "net", serving)
    assert named(registry) == (serving, None)


def test_withdrawing_another_one_leaves_it(registry, serving, staged):
    assert not withdraw(registry, "net", serving)
    assert named(registry) == (serving, staged.id)


def test_nothing_to_compare_with_is_refused(registry, other, report_on):
    candidate = other()
    with pytest.raises(RefusedError, match="nothing that a canary could be compared with"):
        stage(candidate, report_on(candidate), registry, "net")
    (registry / "net").mkdir(parents=True)
    with pytest.raises(RefusedError, match=r"promote the first one\. Nothing was"):
        stage(candidate, report_on(candidate), registry, "net")


def test_the_same_profile_and_a_refused_report_are_refused(
    registry, serving, make_candidate, report_on, other
):
    same = make_candidate("same profile")
    with pytest.raises(RefusedError, match=r"have the same profile [0-9a-f]{12}, so"):
        stage(same, report_on(same), registry, "net")
    bad = other()
    with pytest.raises(RefusedError, match="was refused, nothing was changed"):
        stage(bad, report_on(bad, passed=False), registry, "net")
    assert named(registry) == (serving, None)
    assert len(list_versions(registry, "net")) == 1


def test_a_damaged_canary_is_replaced_and_never_completed(
    registry, serving, staged, other, report_on
):
    (staged.path / "model.pt2").write_bytes(b"damaged")
    with pytest.raises(RegistryError, match="is damaged"):
        complete(registry, "net", staged.id)
    assert named(registry) == (serving, staged.id)
    third = other("third", seed=3)
    version = stage(third, report_on(third), registry, "net")
    assert named(registry) == (serving, version.id)


def test_a_disk_that_fails_is_one_kind_of_error(registry, serving, staged, monkeypatch):
    def fails(layout, pointer):
        raise OSError(28, "No space left on device")

    from calidrift_analyzer.promote import _canary as module

    monkeypatch.setattr(module, "switch", fails)
    with pytest.raises(RegistryError, match=r"cannot be written \(No space left on device\); what"):
        withdraw(registry, "net", staged.id)
    assert named(registry) == (serving, staged.id)


URL = "faulty://bucket/models"
ROOT = "/bucket/models/net"


def published(faulty):
    content = json.loads(faulty.objects[f"{ROOT}/current"])
    return content["version"], content.get("canary", {}).get("version")


def test_a_canary_is_published_whole_before_the_pointer_that_names_it(
    registry, serving, staged, faulty, tmp_path
):
    found = publish(registry, "net", URL)
    assert (found.version, found.moved) == (serving, True)
    assert published(faulty) == (serving, staged.id)
    last = max(place for place, call in enumerate(faulty.calls) if call.startswith("send"))
    assert faulty.calls[last].endswith("current")
    mirror = Mirror(URL, "net", tmp_path / "cache", 2)
    pointer = mirror.pointer()
    version = mirror.open(pointer.canary, serving, remember=False)
    assert version.id == staged.id

    sent = len([call for call in faulty.calls if call.startswith("send")])
    assert publish(registry, "net", URL, thorough=False).sent == 0
    assert len([call for call in faulty.calls if call.startswith("send")]) == sent

    withdraw(registry, "net", staged.id)
    assert publish(registry, "net", URL).moved
    assert published(faulty) == (serving, None)


def test_a_canary_that_is_missing_there_is_sent_again(registry, serving, staged, faulty):
    publish(registry, "net", URL)
    del faulty.objects[f"{ROOT}/versions/{staged.id}/model.pt2"]
    assert publish(registry, "net", URL, thorough=False).sent == 1


VICTIM = textwrap.dedent(
    """
    import os, pickle, signal, sys
    from calidrift_analyzer.promote import complete, stage, withdraw
    arguments, registry, what, fatal = sys.argv[1:]
    with open(arguments, "rb") as file:
        candidate, report, version = pickle.load(file)
    def die(step):
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    if what == "stage":
        stage(candidate, report, registry, "net", on_step=die)
    else:
        {"complete": complete, "withdraw": withdraw}[what](registry, "net", version, on_step=die)
    """
)


def kill(tmp_path, registry, unmeasured, what, fatal, *arguments):
    path = tmp_path / "arguments"
    path.write_bytes(pickle.dumps(arguments))
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, str(path), str(registry), what, fatal],
        env=unmeasured(),
        timeout=60,
        check=False,
    )
    assert victim.returncode == -signal.SIGKILL, (what, fatal)


@pytest.mark.slow
def test_killed_at_each_step_of_staging_what_serves_stays(
    registry, serving, other, report_on, tmp_path, unmeasured
):
    candidate = other()
    report = report_on(candidate)
    for step in STAGE:
        kill(tmp_path, registry, unmeasured, "stage", step, candidate, report, None)
        version, canary = named(registry)
        assert version == serving, step
        assert (canary is not None) == (step == "done"), step
        if canary is not None:
            open_version(registry, "net", canary)
    _, before = named(registry)
    assert stage(candidate, report, registry, "net").id == before
    assert not list(registry.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["complete", "withdraw"])
def test_killed_at_each_step_of_its_end_it_is_the_canary_or_is_not(
    registry, serving, staged, tmp_path, unmeasured, what
):
    after = (staged.id, None) if what == "complete" else (serving, None)
    for step in ("lock", "switch", "done"):
        kill(tmp_path, registry, unmeasured, what, step, None, None, staged.id)
        assert named(registry) == (after if step == "done" else (serving, staged.id)), step
    {"complete": complete, "withdraw": withdraw}[what](registry, "net", staged.id)
    assert named(registry) == after
