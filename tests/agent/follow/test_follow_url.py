"""Following a URL: as a folder, and what serves goes on while the store is away."""

import hashlib
import json
import logging
import math
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from calidrift_agent import FollowOptions, follow
from calidrift_agent._follow import FollowOutcome
from calidrift_agent._registry import Pointer, identity_of
from calidrift_agent.errors import ConfigurationError

URL = "faulty://bucket/models"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def publish(faulty, number, **changed):
    files = {"model.pt2": b"model %d" % number, "profile.json": b"{}", "report.json": b"{}"}
    listed = {name: {"sha256": sha256(it), "bytes": len(it)} for name, it in files.items()}
    text = json.dumps({"format": 1, "parent": None, "files": listed}).encode()
    identity = identity_of(number, sha256(text))
    for name, content in {**files, "manifest.json": text, **changed}.items():
        faulty.objects[f"/bucket/models/net/versions/{identity}/{name}"] = content
    pointer = Pointer(identity, sha256(text))
    faulty.objects["/bucket/models/net/current"] = pointer.to_json().encode()
    return pointer.version


class Host:
    def __init__(self, cache):
        self.served = []
        self.options = FollowOptions(poll_seconds=3600.0, retry_seconds=3600.0, cache=cache)

    def load(self, version):
        return version.model_path.read_bytes()

    def swap(self, version, loaded):
        self.served.append((version.id, loaded))

    def follow(self, options=None):
        return follow(URL, "net", load=self.load, swap=self.swap, options=options or self.options)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path / "cache")


@pytest.fixture
def following(host, faulty):
    """A follower whose own thread has looked already, at an empty store."""
    with host.follow() as follower:
        wait_for(lambda: faulty.calls)
        follower.poll()
        yield follower


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def go_down(faulty):
    faulty.fail_at, faulty.stays_down = 1, True


def come_back(faulty):
    faulty.fail_at, faulty.stays_down = math.inf, False


def test_what_is_published_is_served_and_so_is_a_rollback(following, host, faulty):
    assert (following.status.wanted, following.status.problem) == (None, None)
    first = publish(faulty, 1)
    assert following.poll().serving == first
    second = publish(faulty, 2)
    assert following.poll().serving == second
    publish(faulty, 1)
    status = following.poll()
    assert (status.serving, status.wanted, status.problem) == (first, first, None)
    assert host.served == [(first, b"model 1"), (second, b"model 2"), (first, b"model 1")]
    assert status.attempts == {FollowOutcome.SERVED: 3}


def test_the_thread_does_so_by_itself(host, faulty, tmp_path):
    options = FollowOptions(poll_seconds=0.01, cache=tmp_path / "other")
    with host.follow(options) as follower:
        first = publish(faulty, 1)
        wait_for(lambda: follower.status.serving == first)


def test_while_the_store_is_away_the_old_version_serves_and_every_look_counts(
    following, host, faulty, caplog
):
    first = publish(faulty, 1)
    following.poll()
    go_down(faulty)
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        for _ in range(3):
            status = following.poll()
    assert (status.serving, status.wanted) == (first, first)
    assert status.problem.startswith(f"{URL} cannot be read (ConnectionError: the store hung up)")
    assert status.attempts[FollowOutcome.UNREACHABLE] == 3
    assert len(caplog.records) == 1
    registry = CollectorRegistry()
    registry.register(following.collector())
    text = generate_latest(registry).decode()
    assert 'attempts_total{model="net",outcome="unreachable"} 3.0' in text

    come_back(faulty)
    second = publish(faulty, 2)
    status = following.poll()
    assert (status.serving, status.problem) == (second, None)
    go_down(faulty)
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        following.poll()
    assert len(caplog.records) == 2


def test_a_copy_that_the_store_interrupts_leaves_the_old_one(host, faulty, tmp_path):
    options = FollowOptions(poll_seconds=3600.0, retry_seconds=0.001, cache=tmp_path / "cache")
    with host.follow(options) as follower:
        wait_for(lambda: faulty.calls)
        first = publish(faulty, 1)
        assert follower.poll().serving == first
        second = publish(faulty, 2)
        faulty.fail_at = 4
        status = follower.poll()
        assert (status.serving, status.wanted) == (first, second)
        assert status.attempts[FollowOutcome.UNREACHABLE] == 1
        time.sleep(0.002)
        assert follower.poll().serving == second


def test_a_version_that_is_not_whole_there_leaves_the_old_one(following, faulty):
    first = publish(faulty, 1)
    following.poll()
    second = publish(faulty, 2, **{"model.pt2": b"mod"})
    status = following.poll()
    assert (status.serving, status.wanted) == (first, second)
    assert "model.pt2 is damaged" in status.problem
    assert status.attempts[FollowOutcome.DAMAGED] == 1


def test_a_torn_pointer_is_damage_and_no_version(following, faulty):
    first = publish(faulty, 1)
    following.poll()
    faulty.objects["/bucket/models/net/current"] = b'{"format": 1, "vers'
    status = following.poll()
    assert (status.serving, status.wanted) == (first, first)
    assert "names no version" in status.problem


def test_a_process_that_starts_while_the_store_is_away_serves_what_was_copied_last(host, faulty):
    first = publish(faulty, 1)
    with host.follow() as follower:
        follower.poll()
    go_down(faulty)
    host.served.clear()
    with host.follow() as follower:
        status = follower.poll()
        assert (status.serving, status.wanted) == (first, first)
        assert "cannot be read" in status.problem
        come_back(faulty)
        second = publish(faulty, 2)
        assert follower.poll().serving == second
    assert host.served == [(first, b"model 1"), (second, b"model 2")]


def test_without_any_copy_there_is_nothing_to_serve(host, faulty):
    publish(faulty, 1)
    go_down(faulty)
    with host.follow() as follower:
        status = follower.poll()
    assert (status.serving, status.wanted, host.served) == (None, None, [])


def test_a_url_needs_a_folder_for_copies(faulty):
    with pytest.raises(ConfigurationError, match=r"is a URL, whose versions are copied.*cache="):
        follow(URL, "net", load=print, swap=print)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nowhere://bucket", "fsspec knows no store 'nowhere'"),
        ("sftp://eve:secret@host/m", "must not hold a password"),
    ],
)
def test_a_url_that_cannot_work_is_refused_at_once(host, url, message):
    with pytest.raises(ConfigurationError, match=message):
        follow(url, "net", load=print, swap=print, options=host.options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cache": 3}, "cache must be the path of a folder of this machine, or None, got 3"),
        ({"cache": "s3://bucket"}, "cache must be the path of a folder"),
        ({"keep_versions": 1}, "keep_versions must be a whole number from 2"),
        ({"keep_versions": True}, "keep_versions must be a whole number from 2"),
        ({"keep_versions": 2.5}, "keep_versions must be a whole number from 2"),
    ],
)
def test_options_are_checked(given, message):
    with pytest.raises(ConfigurationError, match=message):
        FollowOptions(**given)
