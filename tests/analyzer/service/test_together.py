"""What is worked out once: never stale, never without an end."""

import time
from dataclasses import replace

import pytest

from calidrift_analyzer.records import Marker, Mute
from calidrift_analyzer.service import _together
from calidrift_analyzer.service._together import Predictions, Together


@pytest.fixture
def assessment(site, traffic):
    site.record(traffic)
    site.service.tasks.assess()
    return site.service.board.latest()["net"][1]


def mute(point, reason="known"):
    now = time.time_ns()
    return Mute(model="net", point=point, created_ns=now, until_ns=now + 10**12, reason=reason,
                author="eve")  # fmt: skip


def test_mutes_and_markers_are_put_beside_once_and_anew_where_one_changes(assessment):
    together = Together()
    one, marker = mute("a:*"), Marker(model="net", at_ns=assessment.last_ns, text="x")

    first = together.of(assessment, [one], [marker])
    again = together.of(assessment, (one,), (marker,))
    unmuted = together.of(assessment, [], [marker])
    other = together.of(assessment, [mute("b:*")], [marker])
    newer = together.of(replace(assessment, units=assessment.units + 1), [mute("b:*")], [marker])

    assert again is first
    assert [point.muted is not None for point in first.points if point.name == "a:input"] == [True]
    assert all(point.muted is None for point in unmuted.points)
    assert {point.name: point.muted is not None for point in other.points}["b:input"]
    assert newer.units == assessment.units + 1


def test_a_mute_is_seen_at_once_by_whoever_reads(drifted_site):
    site = drifted_site
    before = site.get("/models/net").json()
    site.run(lambda store: store.annotations.mute(mute(None)))
    after = site.get("/models/net").json()

    assert before["muted"] is None
    assert after["muted"].startswith("muted until")
    assert before["alarm"] is not None
    assert after["alarm"] is None


@pytest.fixture
def drifted_site(site, traffic):
    site.record(traffic)
    site.service.tasks.assess()
    return site


def test_a_figure_is_worked_out_once_and_the_oldest_go(monkeypatch):
    monkeypatch.setattr(_together, "_MOST", 2)
    known, asked = Predictions(), []

    def of(name):
        return known.of(name.encode(), lambda: asked.append(name) or float(len(asked)))

    assert [of("a"), of("a"), of("b"), of("c"), of("c")] == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert of("a") == 4.0, "it had gone"
    assert asked == ["a", "b", "c", "a"]


def test_a_slice_that_got_more_values_has_another_change(site, traffic):
    meta, _, _ = site.record(traffic, drift=1.0)
    # Two slices: whatever the time of day, all of it lies in them.
    asked = "/models/net/series?measure=sqnr_change&hours=2&slices=2"
    before = site.get(asked).json()["points"]
    values = [traffic.rng.uniform(-9, 9, (40, 16)) for _ in meta.points]
    start = time.time_ns() - 180 * 10**9
    more = traffic.unit_window(99, values, [1.0, 1.0], start_ns=start)
    site.run(lambda store: store.ingest(meta, [more], batch=store.next_batch()))
    after = site.get(asked).json()["points"]

    assert site.get(asked).json()["points"] == after
    assert all(worst(one) < worst(other) - 3 for one, other in zip(after, before, strict=True))


def worst(point):
    return min(value for value in point["values"] if value is not None)
