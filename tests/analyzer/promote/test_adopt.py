"""What serves already as the first version: a rollback of the first promotion can go to it."""

import json

import pytest

from calidrift_agent._follow import planned_int8_kernels
from calidrift_agent._registry import list_versions, number_of, open_version
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.promote import adopt, promote, rollback

KERNELS = {"stem": 1, "head": 2}


@pytest.fixture
def serving(candidate, tmp_path):
    """The files of a model that served before Calidrift was there."""
    folder = tmp_path / "serving"
    folder.mkdir()
    for name in ("model.pt2", "profile.json"):
        (folder / name).write_bytes((candidate.path / name).read_bytes())
    return folder


@pytest.fixture
def registry(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def report(candidate, report_on):
    return report_on(candidate)


def test_it_serves_and_the_first_promotion_can_be_taken_back(serving, registry, candidate, report):
    adopted = adopt(serving, KERNELS, registry, "net")

    version = open_version(registry, "net")
    assert (version.id, number_of(version.id), version.parent) == (adopted.id, 1, None)
    assert planned_int8_kernels(version) == 3
    assert version.model_path.read_bytes() == (serving / "model.pt2").read_bytes()
    assert "adopted" in json.loads(version.report_path.read_text())

    promoted = promote(candidate, report, registry, "net")
    assert promoted.parent == adopted.id
    assert rollback(registry, "net").id == adopted.id
    assert [one.problem for one in list_versions(registry, "net")] == [None, None]


def test_a_registry_with_versions_is_left_alone(serving, registry, candidate, report):
    promoted = promote(candidate, report, registry, "net")

    with pytest.raises(RefusedError, match=r"net has 1 versions in .* Nothing was changed"):
        adopt(serving, KERNELS, registry, "net")

    [version] = list_versions(registry, "net")
    assert (version.id, version.current) == (promoted.id, True)


def test_a_file_that_is_missing_leaves_nothing_behind(serving, registry):
    (serving / "model.pt2").unlink()

    with pytest.raises(RegistryError, match="cannot be taken into"):
        adopt(serving, KERNELS, registry, "net")

    assert list_versions(registry, "net") == ()
    assert not any((registry / "net" / "versions").iterdir())


@pytest.mark.parametrize("place", ["publish", "switch"])
def test_a_kill_leaves_no_half_version(place, serving, registry):
    class Killed(BaseException):
        pass

    def step(name):
        if name == place:
            raise Killed

    with pytest.raises(Killed):
        adopt(serving, KERNELS, registry, "net", on_step=step)

    assert not [one for one in list_versions(registry, "net") if one.current or one.problem]
