"""Random lives of one to three replicas: whatever is folded or merged, an assessment stays.

Replicas close their windows at the same moments, arrive late, disagree with FP32 each at its own
rate, and drift or not. Folding comes at random moments and with random spans.
"""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from calidrift_agent._profile import ReferenceOrigin
from calidrift_agent._state import SegmentCount
from calidrift_agent._vocabulary import ReferenceSource, RequestColumn
from calidrift_analyzer.assess import assess_stored, landmarks
from calidrift_analyzer.records import record_document
from calidrift_analyzer.store import Landmarks, Retention, Store, _writing

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
START = 1_800_000_000 // 3_600 * HOUR
POINTS = ("a:input", "b:input")
COMPARED = slice(RequestColumn.COMPARED, RequestColumn.DISTANCE_PPB + 1)
POINT = ("name", "verdict", "alarm", "log10_evidence", "log10_evidence_now", "ended_ns", "units")
MODEL = ("verdict", "sentence", "next_step", "harm", "alarm", "burn_in", "request_coverage")
HARD = Retention(
    windows=timedelta(hours=1),
    minutes=timedelta(hours=1),
    hours=timedelta(hours=1),
    days=timedelta(hours=1),
)


class Life:
    """One model served by some replicas, and the archive that collects from them."""

    def __init__(self, seed, traffic, monkeypatch):
        self.rng = rng = np.random.default_rng(seed)
        self.traffic, self.now = traffic, START
        monkeypatch.setattr(_writing, "time", self)
        values = {name: np.abs(rng.normal(size=(200, 8))) for name in POINTS}
        self.profile = traffic.profile(values, rank=1 + seed % 2)
        if seed % 4 == 3:
            origin = ReferenceOrigin(source=ReferenceSource.PROVISIONAL)
            self.profile = replace(self.profile, reference=origin)
        self.bounds = [one.observed_bound.value for one in self.profile.points.values()]
        self.metas = [self.replica() for _ in range(1 + seed % 3)]
        self.wrong = rng.choice([0.0, 0.04, 0.1], len(self.metas) + 1)
        self.wrong[0] = rng.choice([0.09, 0.3])
        self.drift = rng.integers(3, 8), rng.integers(9, 16)  # hours
        self.sent = []

    def time_ns(self):
        return self.now

    def replica(self):
        return self.traffic.meta(points=POINTS, profile=self.profile.digest)

    def window(self, number, replica, end_ns):
        """A window of five units by day and some by night, of which the drift is."""
        rng = self.rng
        night = int(rng.integers(0, 5))
        drifts = self.drift[0] <= (end_ns - START) / HOUR < self.drift[1]
        wide = np.repeat([1.0, 3.0 if drifts else 1.0], [5, night])[:, None]
        values = [rng.normal(size=(5 + night, 8)) * 0.8 * wide for _ in POINTS]
        window = self.traffic.unit_window(number, values, self.bounds)
        pairs = zip(values, self.bounds, strict=True)
        inside = np.all([np.abs(one).max(axis=1) <= bound for one, bound in pairs], axis=0)
        segments = [SegmentCount("day", 5, int(inside[:5].sum()))]
        if night:
            segments.append(SegmentCount("night", night, int(inside[5:].sum())))
        if rng.random() < 0.8:
            compared = int(rng.integers(1, 40))
            lost = int(rng.binomial(compared, self.wrong[replica]))
            classes = compared if rng.random() < 0.9 else int(rng.integers(0, compared))
            noise = int(rng.integers(0, compared * 10**8))
            counts = (compared, classes, max(0, classes - lost), noise, 0)
            window.requests[COMPARED] = counts
        return replace(
            window, segments=tuple(segments), start_ns=end_ns - 60 * SECOND, end_ns=end_ns
        )

    def collect(self, store, hour):
        """One run: two windows of each replica in this hour, some of them an hour late."""
        self.now = START + (hour + 1) * HOUR
        batch = store.next_batch()
        for place, meta in enumerate(self.metas):
            made = [
                self.window(2 * hour + n, place, START + hour * HOUR + (n + 1) * 1800 * SECOND)
                for n in range(2)
            ]
            self.sent.append((place, made))
            if self.rng.random() < 0.8:
                self.deliver(store, batch, place, meta)

    def deliver(self, store, batch, place, meta):
        windows = [one for replica, made in self.sent if replica == place for one in made]
        store.ingest(meta, windows, batch=batch)

    def said(self, store):
        """What is concluded, without the lists that count looks."""
        document = record_document(assess_stored(store, "net"))
        levels = [dict(level) for level in document["service_levels"]]
        for level in levels:
            level.pop("changes_ns")
        points = [{name: point[name] for name in POINT} for point in document["points"]]
        return {name: document[name] for name in MODEL} | {"levels": levels, "points": points}

    def spans(self):
        hours = np.sort(self.rng.integers(1, 10, 4))
        return Retention(
            **{
                name: timedelta(hours=int(span))
                for name, span in zip(("windows", "minutes", "hours", "days"), hours, strict=True)
            }
        )


def live(life, tmp_path, find):
    """Hours of collecting, folding and merging; gives what changed."""
    changed = []
    with Store.open(tmp_path / "one.duckdb") as store:
        store.put_profile(life.profile)
        for hour in range(18):
            life.collect(store, hour)
            if hour % 5 == 4:
                before = life.said(store)
                store.retain(life.spans(), find, now_ns=life.now)
                changed.append((before, life.said(store)))
        before = life.said(store)
        with Store.open(tmp_path / "two.duckdb") as other:  # has what this one has, not folded
            other.put_profile(life.profile)
            for place, meta in enumerate(life.metas):
                life.deliver(other, other.next_batch(), place, meta)
        store.upkeep.merge(tmp_path / "two.duckdb")
        late = life.said(store)  # what had not been delivered is looked at last
        store.retain(HARD, find, now_ns=life.now + 100 * HOUR)
        changed.append((late, life.said(store)))
        store.upkeep.merge(tmp_path / "two.duckdb")
        changed.append((late, life.said(store)))
        assert store.upkeep.check().whole
    return before, late, changed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 7])
def test_an_assessment_is_what_it_was_bit_for_bit(seed, tmp_path, traffic, monkeypatch):
    life = Life(seed, traffic, monkeypatch)
    before, late, changed = live(life, tmp_path, landmarks)
    for one, other in changed:
        assert one == other
    if before["harm"]["breach"]:
        assert late["harm"]["breach"] == before["harm"]["breach"]


@pytest.mark.slow
def test_without_landmarks_it_would_not_be(tmp_path, traffic, monkeypatch):
    """Planted mutant: looks joined by the hour of arrival alone."""
    life = Life(2, traffic, monkeypatch)
    _, _, changed = live(life, tmp_path, lambda *_: Landmarks())
    assert any(one != other for one, other in changed)


def test_folding_makes_no_breach_of_harm_that_nobody_saw(tmp_path, traffic, monkeypatch):
    """A canary disagrees in 9 %, the other replica never: together 4.5 %, and 5 % are tolerated."""
    life = Life(1, traffic, monkeypatch)
    assert len(life.metas) == 2
    with Store.open(tmp_path / "one.duckdb") as store:
        store.put_profile(life.profile)
        for number in range(40):
            life.now = START + (number + 1) * 60 * SECOND
            batch = store.next_batch()
            for place, meta in enumerate(life.metas):
                window = life.traffic.unit_window(number, [np.zeros((4, 8))] * 2, life.bounds)
                window.requests[COMPARED] = (100, 100, (91, 100)[place], 0, 0)
                end_ns = life.now + place * SECOND
                window = replace(window, start_ns=end_ns - 10 * SECOND, end_ns=end_ns)
                store.ingest(meta, [window], batch=batch)
        before = life.said(store)
        assert before["harm"]["breach"] is None
        for tier in range(4):
            hours = [1] * (tier + 1) + [99_999] * (3 - tier)
            names = ("windows", "minutes", "hours", "days")
            spans = {name: timedelta(hours=one) for name, one in zip(names, hours, strict=True)}
            store.retain(Retention(**spans), landmarks, now_ns=life.now + 100 * HOUR)
            assert life.said(store) == before, f"folded up to tier {tier + 1}"
        assert store.history("net", life.profile.digest).compared.looks.size < 10
