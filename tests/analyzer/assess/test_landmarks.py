"""An assessment says the same after its windows were folded: evidence that is spent stays spent."""

import json
from datetime import timedelta

import numpy as np
import pytest

from calidrift_agent._state import SegmentCount, Window
from calidrift_agent._vocabulary import RequestColumn
from calidrift_analyzer.assess import assess_stored, landmarks
from calidrift_analyzer.records import record_document
from calidrift_analyzer.store import Landmarks, Retention, Store, _writing

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
START = 1_800_000_000 * SECOND
POINTS = ("a:input", "b:input", "c:input")
HARD = Retention(
    windows=timedelta(hours=2), minutes=timedelta(hours=3), hours=timedelta(hours=4),
    days=timedelta(days=999),
)  # fmt: skip
RENEWABLE = "changes_ns"
COMPARED = slice(RequestColumn.COMPARED, RequestColumn.DISTANCE_PPB + 1)


@pytest.fixture
def served(bench, monkeypatch):
    """Thirty hours: calm, then `a` drifts and heals, then calm; six windows an hour."""
    rng = np.random.default_rng(5)
    bench.calibrate({name: bench.normal(400) for name in POINTS}, rank=2)
    bounds = [bench.profile.points[name].observed_bound.value for name in POINTS]

    class Clock:
        now = START

        def time_ns(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(_writing, "time", clock)
    store = bench.store
    bench.store.put_profile(bench.profile)
    found = []
    for number in range(180):
        clock.now = START + number * 600 * SECOND
        scale = 1.6 if 60 <= number < 75 else 1.0
        values = [bench.normal(8) * (scale if name == "a:input" else 1.0) for name in POINTS]
        window = bench.traffic.unit_window(0, values, bounds)
        wrong = 6 if 60 <= number < 75 else 0
        window.requests[COMPARED] = (8, 8, 8 - wrong, 10**7, 10**6)
        covered = int(window.requests[RequestColumn.UNITS_COVERED])
        night = int(rng.integers(0, covered + 1))
        fields = {name: getattr(window, name) for name in window.__slots__}
        fields |= {
            "number": number,
            "start_ns": clock.now,
            "end_ns": clock.now + 600 * SECOND,
            "segments": (
                SegmentCount("night", 8 - covered + night, night),
                *((SegmentCount("day", covered - night, covered - night),) * (night < covered)),
            ),
        }
        found.append(Window(**fields))
        if number % 6 == 5:
            store.ingest(bench.meta, found, batch=store.next_batch())
            found.clear()
    bench.now_ns = clock.now
    return bench


def said(bench):
    document = record_document(assess_stored(bench.store, "net"))
    for level in document["service_levels"]:
        level.pop(RENEWABLE)
    return json.loads(json.dumps(document))


@pytest.mark.slow
def test_an_assessment_is_the_same_after_folding(served):
    before = said(served)
    looks = served.store.history("net", served.profile.digest).end_ns.size
    assert {point["name"] for point in before["points"] if point["alarm"]} == {"a:input"}
    assert any(level["breach"] for level in before["service_levels"])
    assert before["harm"]["breach"]
    assert before["seasons"]["worst_hour"]
    report = served.store.retain(HARD, landmarks, now_ns=served.now_ns)
    assert report.folded > 200, "windows, minutes and hours have moved"
    assert served.store.history("net", served.profile.digest).end_ns.size < looks / 3
    assert_close(said(served), before)


def assert_close(found, expected, where=""):
    """Everything equal; sums of floats in another order may differ in their last bits."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_close(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            assert_close(found[place], value, f"{where}[{place}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), where
    else:
        assert found == expected, where


@pytest.mark.slow
def test_without_landmarks_the_assessment_would_change(served):
    """The test above can fail: looks joined by the hour alone move the alarm."""
    before = said(served)
    served.store.retain(HARD, lambda *_: Landmarks(), now_ns=served.now_ns)
    with pytest.raises(AssertionError):
        assert_close(said(served), before)


WHOLE = Retention(**dict.fromkeys(("windows", "minutes", "hours", "days"), timedelta(hours=1)))


def alarms(store):
    """Of points, of service levels and of harm."""
    found = assess_stored(store, "net")
    levels = {one.segment: one.breach for one in found.service_levels}
    return {one.name: one.alarm for one in found.points}, levels, found.harm.breach


def merged_alarms(bench, path, replicas, find):
    """What is found before folding, after it, and in an empty archive that takes it over."""
    tensors = {name: bench.normal(2048, elements=16) for name in POINTS[:2]}
    bench.calibrate(tensors)
    bounds = [point.observed_bound.value for point in bench.profile.points.values()]
    bench.store.put_profile(bench.profile)
    batch = bench.store.next_batch()
    for _ in range(replicas):
        made = []
        for number in range(180):
            drifts = 60 <= number < 75
            values = [bench.normal(20, elements=16) for _ in tensors]
            values[0][: 3 * drifts] *= 4
            window = bench.traffic.unit_window(number, values, bounds)
            window.requests[COMPARED] = (10, 10, 10 - 6 * drifts, 0, 0)
            made.append(window)
        meta = bench.traffic.meta(points=tuple(tensors), profile=bench.profile.digest)
        bench.store.ingest(meta, made, batch=batch)
    before = alarms(bench.store)
    bench.store.retain(WHOLE, find, now_ns=2 * START)
    folded = alarms(bench.store)
    bench.store.close()
    with Store.open(path) as other:
        other.upkeep.merge(bench.store.path)
        return before, folded, alarms(other)


@pytest.mark.parametrize("replicas", [1, 3])
def test_alarms_stay_where_a_folded_archive_is_merged(replicas, bench, tmp_path):
    before, folded, merged = merged_alarms(bench, tmp_path / "y.duckdb", replicas, landmarks)
    assert before[0]["a:input"], "planted"
    assert before[1][None], "planted"
    assert before[2], "planted"
    assert folded == before
    if replicas == 1:
        assert merged == before
    # Rollups of several replicas are looked at one after another: as far as the nearest cut.
    assert merged[0]["a:input"]
    assert merged[1][None]
    assert merged[2]


def test_without_cuts_at_looks_alarms_would_be_lost(bench, tmp_path):
    """Planted mutant: looks stay, but rollups reach across them."""
    path = tmp_path / "y.duckdb"
    _, _, merged = merged_alarms(bench, path, 1, lambda *one: Landmarks(landmarks(*one).looks))
    assert merged[1:] == ({None: None}, None)


def test_without_a_profile_there_are_no_landmarks(bench):
    bench.calibrate({"a:input": bench.normal(50)})
    bench.send(bench.normal(30))
    history = bench.store.history("net", bench.profile.digest)
    assert landmarks(history, None) == Landmarks()
    assert landmarks(history, bench.profile).looks
    empty = bench.store.history("other", "")
    assert landmarks(empty, bench.profile) == Landmarks()
