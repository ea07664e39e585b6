"""A learned profile beside the model that serves: a version like any other."""

import json
import pickle
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from calidrift_agent._profile import CalibrationProfile, ReferenceOrigin
from calidrift_agent._registry import list_versions, open_version
from calidrift_agent._vocabulary import ReferenceSource
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote import promote, promote_profile, rollback

STEPS = [
    "lock",
    "copy model.pt2",
    "copy report.json",
    "write profile.json",
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
def before(registry, candidate, report_on):
    return promote(candidate, report_on(candidate), registry, "net")


def learned_from(profile, **changes):
    origin = ReferenceOrigin(
        source=ReferenceSource.PRODUCTION,
        learned_from=profile.digest,
        began="2030-01-31T12:00:00+00:00",
        ended="2030-01-31T13:00:00+00:00",
    )
    return replace(profile, **{"reference": origin, "units": 520, **changes})


@pytest.fixture
def learned(before):
    return learned_from(CalibrationProfile.load(before.path / "profile.json"))


def test_the_model_stays_and_the_profile_is_new(registry, before, learned):
    steps = []
    made = promote_profile(learned, registry, "net", on_step=steps.append)
    version = open_version(registry, "net")
    assert (version.id, version.parent) == (made.id, before.id)
    assert steps == STEPS
    assert CalibrationProfile.load(version.profile_path) == learned
    for name in ("model.pt2", "report.json"):
        assert (version.path / name).read_bytes() == (before.path / name).read_bytes()
    manifest = json.loads(made.manifest)
    old = json.loads(before.manifest)
    assert manifest["candidate"] == old["candidate"]
    assert manifest["profile"] == made.profile == learned.digest
    assert manifest["reference"] == {
        "source": "production",
        "learned_from": before.profile,
        "units": 520,
        "began": "2030-01-31T12:00:00+00:00",
        "ended": "2030-01-31T13:00:00+00:00",
    }
    assert all(one.problem is None for one in list_versions(registry, "net"))


def test_again_changes_nothing(registry, before, learned):
    first = promote_profile(learned, registry, "net")
    again = promote_profile(learned, registry, "net")
    assert again.id == first.id
    # Nor does what somebody else learned from the same profile meanwhile.
    other = learned_from(CalibrationProfile.load(before.path / "profile.json"), units=600)
    assert promote_profile(other, registry, "net").id == first.id
    assert len(list_versions(registry, "net")) == 2


def test_rollback_goes_back_and_forth(registry, before, learned):
    made = promote_profile(learned, registry, "net")
    assert rollback(registry, "net").id == before.id
    assert promote_profile(learned, registry, "net").profile == learned.digest
    assert made.id in {one.id for one in list_versions(registry, "net")}


def test_another_profile_in_service_is_left_alone(
    registry, before, learned, make_candidate, report_on, traffic
):
    stranger = learned_from(traffic.profile({"a:input": traffic.rng.normal(size=(9, 4))}))
    with pytest.raises(RefusedError, match=rf"version {before.id} of net serves with profile"):
        promote_profile(stranger, registry, "net")
    assert open_version(registry, "net").id == before.id


def test_without_a_version_a_file_is_the_way(registry, learned, tmp_path):
    with pytest.raises(RegistryError, match="--output FILE"):
        promote_profile(learned, tmp_path / "empty", "net")
    assert not (tmp_path / "empty").exists()


def test_a_damaged_version_is_not_built_upon(registry, before, learned):
    (before.path / "model.pt2").write_bytes(b"x")
    with pytest.raises(RegistryError, match="damaged"):
        promote_profile(learned, registry, "net")


def test_what_cannot_be_written_is_told_and_leaves_nothing(registry, before, learned, monkeypatch):
    def full(step):
        if step == "write manifest.json":
            raise OSError(28, "No space left on device")

    with pytest.raises(RegistryError, match=r"No space left on device.*learn again"):
        promote_profile(learned, registry, "net", on_step=full)
    assert open_version(registry, "net").id == before.id
    assert not list(registry.rglob("*.partial"))


VICTIM = textwrap.dedent(
    """
    import os, pickle, signal, sys
    from calidrift_agent._registry import open_version
    from calidrift_analyzer.promote import promote_profile
    with open(sys.argv[1], "rb") as file:
        learned, registry, steps = pickle.load(file)
    for fatal in steps:
        def die(step):
            if step == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        child = os.fork()
        if not child:
            promote_profile(learned, registry, "net", on_step=die)
            os._exit(7)
        _, status = os.waitpid(child, 0)
        print(fatal, os.WTERMSIG(status), open_version(registry, "net").id, sep="|")
    """
)


@pytest.mark.slow
def test_killed_at_each_step_leaves_the_old_or_the_new_version(registry, before, learned, tmp_path):
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((learned, registry, STEPS)))
    ended = subprocess.run(
        [sys.executable, "-c", VICTIM, str(arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = [line.split("|") for line in ended.stdout.splitlines()]
    assert [step for step, *_ in told] == STEPS
    for step, signal, serving in told:
        assert signal == "9", step
        assert (serving != before.id) == (step == "done"), step
    after = promote_profile(learned, registry, "net")
    assert open_version(registry, "net").id == after.id == told[-1][2]
