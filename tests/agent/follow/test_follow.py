"""Following a registry: what is promoted serves, what is damaged or runs in float does not."""

import dataclasses
import hashlib
import json
import logging
import math
import os
import threading
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import calidrift_agent
from calidrift_agent import FollowOptions, follow, open_version
from calidrift_agent._follow import FollowOutcome
from calidrift_agent._follow import _follower as module
from calidrift_agent._registry import Pointer, VersionLayout, identity_of
from calidrift_agent.errors import ConfigurationError

SLOW = FollowOptions(poll_seconds=3600.0, retry_seconds=3600.0)
"""The thread looks once, at the start; then only `poll` does."""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def layout(tmp_path):
    return VersionLayout(tmp_path / "registry", "net")


def promote(layout, number, *, planned=None, switch=True):
    """Write a version, and let the pointer name it."""
    layers = [{"name": "fc", "kind": "linear", "planned": planned, "found": planned}]
    report = {} if planned is None else {"kernels": {"layers": layers}}
    files = {
        "model.pt2": b"model %d" % number,
        "profile.json": b"{}",
        "report.json": json.dumps(report).encode(),
    }
    listed = {
        name: {"sha256": sha256(content), "bytes": len(content)} for name, content in files.items()
    }
    text = json.dumps({"format": 1, "parent": None, "files": listed}).encode()
    identity = identity_of(number, sha256(text))
    path = layout.version(identity)
    path.mkdir(parents=True)
    for name, content in {**files, "manifest.json": text}.items():
        (path / name).write_bytes(content)
    if switch:
        point_to(layout, identity)
    return identity


def point_to(layout, identity):
    digest = sha256((layout.version(identity) / "manifest.json").read_bytes())
    partial = layout.pointer.with_suffix(".new")
    partial.write_text(Pointer(identity, digest).to_json())
    partial.rename(layout.pointer)


class Host:
    """A service that loads and swaps, and remembers it."""

    def __init__(self):
        self.served = []
        self.load_error = self.swap_error = None

    def load(self, version):
        if self.load_error:
            raise self.load_error
        return version.model_path.read_bytes()

    def swap(self, version, loaded):
        if self.swap_error:
            raise self.swap_error
        self.served.append((version.id, loaded))

    def follow(self, layout, **options):
        options.setdefault("options", SLOW)
        return follow(layout.root.parent, "net", load=self.load, swap=self.swap, **options)


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def following(host, layout):
    """A follower whose own thread has looked already, at an empty registry."""
    with host.follow(layout) as follower:
        follower._thread.join(0.0)
        follower.poll()
        yield follower


def forget_the_wait(follower):
    failed = follower._failed
    if failed is not None and math.isfinite(failed.not_before):
        follower._failed = dataclasses.replace(failed, not_before=0.0)


def test_a_promoted_version_and_a_rollback_are_served(following, host, layout):
    assert following.status.wanted is None
    first = promote(layout, 1)
    assert following.poll().serving == first
    second = promote(layout, 2)
    assert following.poll().serving == second
    point_to(layout, first)
    assert following.poll().serving == first
    assert host.served == [(first, b"model 1"), (second, b"model 2"), (first, b"model 1")]
    assert following.status.attempts == {FollowOutcome.SERVED: 3}
    assert following.status.problem is None


def test_the_thread_does_so_by_itself(host, layout):
    first = promote(layout, 1)
    with host.follow(layout, options=FollowOptions(poll_seconds=0.01)) as follower:
        wait_for(lambda: follower.status.serving == first)
        second = promote(layout, 2)
        wait_for(lambda: follower.status.serving == second)
    assert not follower.status.active
    assert not follower._thread.is_alive()
    third = promote(layout, 3)
    assert follower.poll().wanted != third


def test_what_the_host_has_loaded_is_not_loaded_again(host, layout):
    promote(layout, 1)
    serving = open_version(layout.root.parent, "net")
    with host.follow(layout, serving=serving) as follower:
        assert follower.poll().serving == serving.id
    assert host.served == []


def test_a_damaged_version_leaves_the_old_one(following, host, layout):
    first = promote(layout, 1)
    following.poll()
    second = promote(layout, 2, switch=False)
    (layout.version(second) / "model.pt2").write_bytes(b"other")
    point_to(layout, second)

    status = following.poll()

    assert (status.serving, status.wanted) == (first, second)
    assert "model.pt2 is damaged" in status.problem
    assert status.attempts[FollowOutcome.DAMAGED] == 1
    assert len(host.served) == 1


def test_a_damaged_pointer_leaves_the_old_one(following, layout):
    first = promote(layout, 1)
    following.poll()
    layout.pointer.write_text("{")
    status = following.poll()
    assert (status.serving, status.attempts[FollowOutcome.DAMAGED]) == (first, 1)
    assert "names no version" in status.problem


@pytest.mark.parametrize("stage", ["load", "swap"])
def test_a_host_that_raises_is_tried_again_later(following, host, layout, stage, caplog):
    first = promote(layout, 1)
    following.poll()
    second = promote(layout, 2)
    setattr(host, f"{stage}_error", RuntimeError("no memory"))
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        following.poll()
        following.poll()  # too early
        assert following.status.attempts[FollowOutcome(f"{stage}_failed")] == 1
        forget_the_wait(following)
        following.poll()
    status = following.status
    assert status.attempts[FollowOutcome(f"{stage}_failed")] == 2
    assert (status.serving, status.wanted) == (first, second)
    assert "no memory" in status.problem
    assert len([one for one in caplog.records if "no memory" in one.getMessage()]) == 1

    setattr(host, f"{stage}_error", None)
    forget_the_wait(following)
    assert following.poll().serving == second
    assert following.status.problem is None


def test_missing_kernels_keep_the_old_version_for_good(host, layout, monkeypatch):
    found = {b"model 1": 3, b"model 2": 2, b"model 3": 4}
    monkeypatch.setattr(module, "count_int8_kernels", lambda run: run())
    with host.follow(layout, run=found.__getitem__) as follower:
        follower.poll()
        first = promote(layout, 1, planned=3)
        assert follower.poll().serving == first
        promote(layout, 2, planned=3)
        forget_the_wait(follower)
        status = follower.poll()
        assert status.serving == first
        assert "2 of 3 validated INT8 kernels" in status.problem
        forget_the_wait(follower)
        assert follower.poll().attempts[FollowOutcome.KERNELS_MISSING] == 1  # not tried again
        third = promote(layout, 3, planned=3)
        assert follower.poll().serving == third


def test_a_version_without_a_plan_runs_once_all_the_same(host, layout):
    ran = []
    with host.follow(layout, run=ran.append) as follower:
        follower.poll()
        promote(layout, 1)
        follower.poll()
    assert ran == [b"model 1"]


def test_another_version_is_tried_at_once_and_blamed_for_nothing(following, host, layout):
    promote(layout, 1)
    host.load_error = RuntimeError("no memory")
    following.poll()
    host.load_error = None
    second = promote(layout, 2)
    status = following.poll()
    assert (status.serving, status.problem) == (second, None)


def test_a_pointer_that_cannot_be_read_for_a_while_costs_nothing(following, layout):
    first = promote(layout, 1)
    content = layout.pointer.read_text()
    layout.pointer.write_text("{")
    for _ in range(20):
        following.poll()
    assert following.status.attempts == {FollowOutcome.DAMAGED: 1}
    layout.pointer.write_text(content)
    assert following.poll().serving == first


def test_a_version_given_up_stays_so_through_a_pointer_that_is_gone(host, layout, monkeypatch):
    monkeypatch.setattr(module, "count_int8_kernels", lambda run: run())
    with host.follow(layout, run=lambda loaded: 0) as follower:
        follower.poll()
        promote(layout, 1, planned=3)
        follower.poll()
        content = layout.pointer.read_text()
        for broken in ("{", None):
            layout.pointer.write_text(broken) if broken else layout.pointer.unlink()
            follower.poll()
            layout.pointer.write_text(content)
            status = follower.poll()
        assert status.attempts[FollowOutcome.KERNELS_MISSING] == 1
        assert "0 of 3 validated INT8 kernels" in status.problem


def test_nothing_is_swapped_behind_close(host, layout, monkeypatch):
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.05)
    loading, go_on = threading.Event(), threading.Event()

    def load(version):
        loading.set()
        go_on.wait(30.0)
        return version.id

    host.load = load
    promote(layout, 1)
    follower = host.follow(layout)
    assert loading.wait(30.0)
    follower.close()
    go_on.set()
    follower._thread.join(30.0)
    assert host.served == []
    assert (follower.status.serving, follower.status.active) == (None, False)


def test_a_load_that_wants_to_exit_does_not_end_the_thread(following, host, layout):
    promote(layout, 1)
    host.load_error = SystemExit(3)
    assert following.poll().attempts == {FollowOutcome.LOAD_FAILED: 1}
    assert following.status.active


def test_the_figures_are_exported(following, host, layout):
    registry = CollectorRegistry(auto_describe=True)
    registry.register(following.collector())
    assert b"_info{" not in generate_latest(registry)
    first = promote(layout, 1)
    following.poll()
    host.load_error = ValueError("bad")
    promote(layout, 2)
    following.poll()
    text = generate_latest(registry).decode()
    assert f'calidrift_agent_version_info{{model="net",version="{first}"}} 1.0' in text
    assert 'calidrift_agent_version_behind{model="net"} 1.0' in text
    assert 'calidrift_agent_version_attempts_total{model="net",outcome="served"} 1.0' in text
    assert 'attempts_total{model="net",outcome="load_failed"} 1.0' in text


def test_it_may_stand_beside_a_watch_in_one_registry(following):
    registry = CollectorRegistry(auto_describe=True)
    registry.register(following.collector())
    registry.register(calidrift_agent.StateDirectoryCollector(".", max_points=1))


def test_a_forked_child_stands_still_and_says_so(following, layout):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = following.poll()
        os.write(writing, f"{status.active} {status.problem}".encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.waitpid(pid, 0)
    os.close(reading)
    assert said.startswith("False this process was forked")
    assert following.status.active


def test_the_switch_of_the_agent_counts_here_too(host, layout, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    promote(layout, 1)
    with host.follow(layout) as follower:
        assert follower.poll().active is False
    assert host.served == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load": 3}, "load must be callable, got 3"),
        ({"swap": None}, "swap must be callable, got None"),
        ({"run": "f"}, "run must be callable, got 'f'"),
        ({"model": "../net"}, "'../net' is not a name of a model"),
        ({"model": 3}, "model must be the name of a model, got 3"),
        ({"registry": None}, "registry must be the path of a folder, or a URL, got None"),
        ({"serving": "x"}, "serving must be what open_version returned"),
        ({"options": 5}, r"options must be FollowOptions\(...\), or None, got 5"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, changes, message):
    given = {"registry": tmp_path, "model": "net", "load": print, "swap": print, **changes}
    with pytest.raises(ConfigurationError, match=message):
        follow(given.pop("registry"), given.pop("model"), **given)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), 1e10, "5"])
def test_options_are_checked(value):
    with pytest.raises(ConfigurationError, match="poll_seconds must be a number of seconds"):
        FollowOptions(poll_seconds=value)


def test_a_forgotten_follower_ends_its_thread(host, layout):
    follower = host.follow(layout, options=FollowOptions(poll_seconds=0.01))
    thread = follower._thread
    del follower
    thread.join(30.0)
    assert not thread.is_alive()


def test_swaps_do_not_overlap(host, layout):
    inside, most = [], []

    def swap(version, loaded):
        inside.append(version)
        time.sleep(0.01)
        most.append(len(inside))
        inside.pop()

    host.swap = swap
    with host.follow(layout, options=FollowOptions(poll_seconds=0.001)) as follower:
        for number in range(1, 6):
            promote(layout, number)
            threads = [threading.Thread(target=follower.poll) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert max(most) == 1


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
