"""What an earlier try of a promotion left is found and finished, and nothing else is touched."""

import dataclasses
import hashlib
import importlib.util
from pathlib import Path

import pytest

from calidrift_agent._registry import VersionLayout, list_versions, read_pointer
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.jobs import DirectDatabase, freeze, roll_back
from calidrift_analyzer.jobs._promotion import promote_once, record_promotion, serving_candidate
from calidrift_analyzer.promote import promote

SPEC = importlib.util.spec_from_file_location("harness", Path(__file__).parent / "harness.py")
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)


@pytest.fixture
def made(bench, tmp_path):
    bench.report = harness.make_report(harness.make_candidate(tmp_path / "candidate"))
    bench.database = DirectDatabase(bench.store)
    return bench


def versions(bench):
    return [one.id for one in list_versions(bench.contract.registry, "net")]


def current(bench):
    return read_pointer(VersionLayout(bench.contract.registry, "net")).version


def once(bench, newest=0):
    return promote_once(bench.database, bench.contract, bench.report, newest)


def test_a_fresh_candidate_is_promoted(made):
    version = once(made)

    assert versions(made) == [version.id]
    assert current(made) == version.id


def test_one_that_serves_already_is_not_promoted_again(made):
    first = promote(made.report.candidate, made.report, made.contract.registry, "net")

    again = once(made)

    assert (again.id, again.profile) == (first.id, first.profile)
    assert again.manifest == first.manifest
    assert versions(made) == [first.id]


def test_one_that_was_published_without_the_pointer_is_switched_to(made):
    first = once(made)
    VersionLayout(made.contract.registry, "net").pointer.unlink()

    assert once(made).id == first.id
    assert current(made) == first.id
    assert versions(made) == [first.id]


def test_the_same_candidate_approved_anew_is_a_new_version(made):
    once(made, newest=0)

    second = once(made, newest=1)

    assert versions(made)[-1] == second.id
    assert len(versions(made)) == 2


def test_one_that_somebody_rolled_back_meanwhile_is_left_alone(made, tmp_path):
    before = once(made)
    record_promotion(made.store, before)

    candidate = harness.make_candidate(tmp_path / "third")
    (candidate.path / "model.pt2").write_bytes(b"other" * 99)
    files = {**candidate.files, "model.pt2": hashlib.sha256(b"other" * 99).hexdigest()}
    candidate = dataclasses.replace(candidate, files=files)
    made.report = harness.make_report(candidate)
    second = once(made, newest=1)
    roll_back(made.database, made.contract, None, actor="eve")
    assert current(made) == before.id

    found = once(made, newest=1)

    assert found.id == second.id
    assert current(made) == before.id


def test_a_promotion_is_recorded_once(made):
    version = once(made)

    record_promotion(made.store, version)
    record_promotion(made.store, version)

    assert [row.action for row in made.store.outcomes.versions("net")] == ["promoted"]
    assert made.store.profile(version.profile) is not None


def test_what_serves_can_be_validated_again(made):
    version = once(made)

    candidate = serving_candidate(made.contract)

    assert candidate.path == version.path
    assert dict(candidate.files) == dict(made.report.candidate.files)


def test_a_rollback_is_kept_with_who_did_it(made):
    first = once(made)
    second = promote(made.report.candidate, made.report, made.contract.registry, "net")

    back = roll_back(made.database, made.contract, None, actor="eve")

    assert back.id == first.id != second.id
    assert current(made) == first.id
    row = made.store.outcomes.versions("net")[0]
    assert (row.version, row.action) == (first.id, "rolled_back")
    entry = made.store.jobs.audit()[0]
    assert (entry.actor, entry.action, entry.subject) == ("eve", "rollback", first.id)


def test_a_frozen_model_is_not_rolled_back(made):
    once(made)
    freeze(made.store, "net", frozen=True, actor="ann")

    with pytest.raises(RefusedError, match="frozen by ann"):
        roll_back(made.database, made.contract, None, actor="eve")
    assert made.store.jobs.audit()[0].outcome == "refused"
