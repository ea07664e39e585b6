"""Captures become a pool: each request once, with the bounds it was compared with."""

import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from calidrift_agent._capture._file import points_digest
from calidrift_agent._vocabulary import CaptureKind
from calidrift_analyzer.collect import collect
from calidrift_analyzer.cycle import stored_pool
from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.store import Store


@pytest.fixture
def pooled(site):
    """Serve and collect, then give the pool."""

    def make(scale=3.0, **serving):
        site.serve(scale, **serving)
        with Store.open(site.config.database) as store:
            collect(site.config.state_dirs, store)
            return stored_pool(store, "net", site.profile.digest)

    return make


def test_a_pool_has_every_captured_request_once(site, pooled):
    stored = pooled(requests=30)
    pool = stored.pool

    # Each of the 30 requests is in the uniform reservoir, the uncovered ones in both stores.
    assert len(pool.ids) == 30
    uncovered = (pool.maxima > pool.bounds).any(axis=1)
    assert uncovered.any()
    assert np.array_equal(uncovered, ~pool.uniform)
    assert set(stored.paths) == set(pool.ids)
    assert len({stored.paths[one] for one in pool.ids}) == 30
    assert stored.skipped == ()


def test_a_pool_has_bounds_sketches_and_segments(site, pooled):
    pool = pooled(requests=20, segment="night").pool

    assert set(pool.points) == set(site.profile.points)
    for index, name in enumerate(pool.points):
        assert pool.bounds[index] == site.profile.points[name].observed_bound.value
        assert pool.sketches[index].absmax == pool.maxima[:, index].max()
    assert set(pool.segments) == {"night"}
    assert np.array_equal(pool.inclusion, np.ones(20))


def test_requests_that_another_profile_judged_are_left_out(site, pooled):
    from dataclasses import replace

    other = replace(site.profile, created="2031-01-01T00:00:00+00:00")
    assert other.digest != site.profile.digest
    site.serve(3.0, requests=10, profile=other)

    assert len(pooled(requests=20).pool.ids) == 20


def test_a_damaged_capture_is_skipped_and_named(site):
    site.serve(3.0, requests=10)
    with Store.open(site.config.database) as store:
        collect(site.config.state_dirs, store)
        entries = store.captures("net")
        victim = next(one for one in entries if one.kind is CaptureKind.UNCOVERED)
        os.truncate(victim.path, 20)
        stored = stored_pool(store, "net", site.profile.digest)

    assert len(stored.pool.ids) == 10
    assert len(stored.skipped) == 1
    assert victim.path in stored.skipped[0]


def test_without_captures_it_says_how_to_get_some(pooled):
    with pytest.raises(NoDataError, match=r"watch\(\.\.\., capture=\.\.\.\)"):
        pooled(capture=False)


def test_without_the_profile_nothing_is_uncovered(site):
    with (
        Store.open(site.config.database) as store,
        pytest.raises(NoDataError, match="has not been collected"),
    ):
        stored_pool(store, "net", "f" * 64)


def relabelled(path, points):
    """Rewrites a capture as if the agent had observed other points."""
    with safetensors.safe_open(path, framework="numpy") as file:
        text = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    text |= {"points": json.dumps(points), "points_digest": points_digest(tuple(points))}
    safetensors.numpy.save_file(tensors, path, metadata=text)


def test_one_odd_capture_does_not_shut_out_the_others(site):
    site.serve(3.0, requests=10)
    with Store.open(site.config.database) as store:
        collect(site.config.state_dirs, store)
        first = next(one for one in store.captures("net") if one.kind is CaptureKind.UNCOVERED)
        relabelled(first.path, [f"other{i}:input" for i in range(len(site.profile.points))])
        stored = stored_pool(store, "net", site.profile.digest)

    assert set(stored.pool.points) == set(site.profile.points)
    assert len(stored.pool.ids) == 10  # its twin in the uniform reservoir is still there
    assert len(stored.skipped) == 1
    assert first.path in stored.skipped[0]
