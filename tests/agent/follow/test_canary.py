"""A replica that is marked as a canary serves what is tried; all others never do."""

import hashlib
import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from calidrift_agent import FollowOptions, follow
from calidrift_agent._follow import FollowOutcome
from calidrift_agent._follow import _follower as module
from calidrift_agent._registry import Pointer, VersionLayout, identity_of
from calidrift_agent.errors import ConfigurationError


def options(**told):
    return FollowOptions(poll_seconds=3600.0, retry_seconds=3600.0, **told)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def layout(tmp_path):
    return VersionLayout(tmp_path / "registry", "net")


def write(layout, number, planned=1):
    """Write a version; give what names it."""
    layers = [{"name": "fc", "kind": "linear", "planned": planned, "found": planned}]
    files = {
        "model.pt2": b"model %d" % number,
        "profile.json": b"{}",
        "report.json": json.dumps({"kernels": {"layers": layers}}).encode(),
    }
    listed = {name: {"sha256": sha256(it), "bytes": len(it)} for name, it in files.items()}
    text = json.dumps({"format": 1, "parent": None, "files": listed}).encode()
    identity = identity_of(number, sha256(text))
    path = layout.version(identity)
    path.mkdir(parents=True)
    for name, content in {**files, "manifest.json": text}.items():
        (path / name).write_bytes(content)
    return Pointer(identity, sha256(text))


def point(layout, serving, canary=None):
    text = Pointer(serving.version, serving.manifest_sha256, canary).to_json()
    partial = layout.pointer.with_suffix(".new")
    partial.write_text(text)
    partial.rename(layout.pointer)


class Host:
    def __init__(self, layout):
        self.layout = layout
        self.served = []
        self.broken = set()

    def load(self, version):
        if version.id in self.broken:
            raise RuntimeError("no")
        return version.id

    def swap(self, version, loaded):
        self.served.append(version.id)

    def follow(self, run=None, **told):
        follower = follow(
            self.layout.root.parent,
            "net",
            load=self.load,
            swap=self.swap,
            run=run,
            options=options(**told),
        )
        follower.poll()
        return follower


@pytest.fixture
def host(layout):
    return Host(layout)


@pytest.fixture
def versions(layout):
    return [write(layout, number) for number in (1, 2, 3)]


def samples(follower):
    registry = CollectorRegistry()
    registry.register(follower.collector())
    return generate_latest(registry).decode()


def test_it_serves_the_canary_and_goes_back_with_its_end(host, layout, versions):
    first, second, _ = versions
    point(layout, first)
    with host.follow(canary=True) as follower:
        assert (follower.status.canary, follower.status.trial) == (True, False)
        assert 'calidrift_agent_version_canary{model="net"} 0.0' in samples(follower)

        point(layout, first, second)
        status = follower.poll()
        assert (status.serving, status.wanted, status.trial) == (
            second.version,
            second.version,
            True,
        )
        assert 'calidrift_agent_version_canary{model="net"} 1.0' in samples(follower)
        assert 'calidrift_agent_version_behind{model="net"} 0.0' in samples(follower)

        point(layout, first)
        status = follower.poll()
        assert (status.serving, status.trial) == (first.version, False)

        point(layout, first, second)
        follower.poll()
        point(layout, second)
        status = follower.poll()
        assert (status.serving, status.trial) == (second.version, False)
    one, two = first.version, second.version
    assert host.served == [one, two, one, two], "completed, nothing is loaded again"


def test_all_others_ignore_it(host, layout, versions):
    first, second, third = versions
    point(layout, first, second)
    with host.follow() as follower:
        assert follower.status.serving == first.version
        assert (follower.status.canary, follower.status.trial) == (False, False)
        assert 'calidrift_agent_version_canary{model="net"} 0.0' in samples(follower)
        point(layout, third, second)
        assert follower.poll().serving == third.version
    assert host.served == [first.version, third.version]


def test_the_environment_can_mark_it_and_the_code_has_the_last_word(
    host, layout, versions, monkeypatch
):
    first, second, _ = versions
    point(layout, first, second)
    monkeypatch.setenv("CALIDRIFT_CANARY", "1")
    with host.follow() as follower:
        assert follower.status.serving == second.version
    with host.follow(canary=False) as follower:
        assert follower.status.serving == first.version
    monkeypatch.setenv("CALIDRIFT_CANARY", "perhaps")
    with pytest.raises(ConfigurationError, match="CALIDRIFT_CANARY is 'perhaps'; allowed are 1"):
        host.follow()


def test_what_is_no_switch_is_refused():
    with pytest.raises(ConfigurationError, match="canary must be True, False, or None"):
        FollowOptions(canary="yes")


def test_a_canary_without_its_kernels_is_never_served(host, layout, versions, monkeypatch):
    first, second, _ = versions
    monkeypatch.setattr(
        module, "count_int8_kernels", lambda run: 0 if run() == second.version else 1
    )
    point(layout, first)
    with host.follow(run=lambda loaded: loaded, canary=True) as follower:
        assert follower.status.serving == first.version
        point(layout, first, second)
        for _ in range(3):
            status = follower.poll()
        assert (status.serving, status.trial) == (first.version, False)
        assert "runs 0 of 1 validated INT8 kernels here" in status.problem
        assert status.attempts == {FollowOutcome.SERVED: 1, FollowOutcome.KERNELS_MISSING: 1}


def test_a_replica_that_starts_beside_a_broken_canary_serves_what_all_serve(host, layout, versions):
    first, second, third = versions
    host.broken.add(second.version)
    point(layout, first, second)
    with host.follow(canary=True) as follower:
        for _ in range(3):
            status = follower.poll()
        assert (status.serving, status.wanted) == (first.version, second.version)
        assert "cannot be loaded" in status.problem
        assert status.attempts == {FollowOutcome.LOAD_FAILED: 1, FollowOutcome.SERVED: 1}

        point(layout, third)  # and a promotion ends it
        status = follower.poll()
        assert (status.serving, status.problem) == (third.version, None)


def test_a_damaged_canary_leaves_the_replica_with_what_all_serve(host, layout, versions):
    first, second, _ = versions
    (layout.version(second.version) / "model.pt2").write_bytes(b"damaged")
    point(layout, first, second)
    with host.follow(canary=True) as follower:
        assert follower.status.serving == first.version
        assert "is damaged" in follower.poll().problem
