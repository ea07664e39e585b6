"""A reference that is learned from production knows how many of its units were of which segment."""

from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._profile import CalibrationProfile, ReferenceOrigin
from calidrift_agent._state import SegmentCount
from calidrift_agent._vocabulary import ReferenceSource
from calidrift_analyzer.assess import assess_stored
from calidrift_analyzer.assess._tolerance import reference_tolerance
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.cycle import LearnOptions, learn_reference
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.store import Store

POINTS = ("a:input", "b:input")


class Site:
    """A database that windows of two segments come into: nine units by day, one by night."""

    def __init__(self, root, traffic):
        self.traffic = traffic
        self.config = AnalyzerConfig(database=root / "x.duckdb", state_dirs=(), models={})
        self.target = root / "learned.json"

    def serve(self, profile, windows, by_night=1.0):
        bounds = [one.observed_bound.value for one in profile.points.values()]
        scale = np.array([1.0] * 9 + [by_night])[:, None]
        made = []
        for number in range(windows):
            values = [self.traffic.rng.normal(size=(10, 8)) * 0.6 * scale for _ in POINTS]
            window = self.traffic.unit_window(number, values, bounds)
            pairs = zip(values, bounds, strict=True)
            inside = np.all([np.abs(one).max(axis=1) <= bound for one, bound in pairs], axis=0)
            segments = (
                SegmentCount("day", 9, int(inside[:9].sum())),
                SegmentCount("night", 1, int(inside[9:].sum())),
            )
            made.append(replace(window, segments=segments))
        with Store.open(self.config.database) as store:
            store.put_profile(profile)
            meta = self.traffic.meta(points=POINTS, profile=profile.digest)
            store.ingest(meta, made, batch=store.next_batch())
            return assess_stored(store, "net", profile=profile.digest)

    def learn(self, **options):
        found = learn_reference(self.config, "net", LearnOptions(output=self.target, **options))
        return found, CalibrationProfile.load(self.target)


@pytest.fixture
def site(tmp_path, traffic):
    return Site(tmp_path, traffic)


@pytest.fixture
def provisional(traffic):
    profile = traffic.profile({name: traffic.rng.normal(size=(512, 8)) for name in POINTS})
    return replace(profile, reference=ReferenceOrigin(source=ReferenceSource.PROVISIONAL))


def test_its_segments_are_held_against_their_own_units(site, provisional):
    site.serve(provisional, 60)
    found, learned = site.learn(units=600)
    assert found.units == 600
    assessment = site.serve(learned, 30, by_night=9.0)
    levels = {level.segment: level for level in assessment.service_levels}
    assert levels[None].reference_units == 600
    assert (levels["day"].reference_units, levels["night"].reference_units) == (540, 60)
    assert levels["night"].tolerance == reference_tolerance(2, 60, 1 - 0.05 / 24)
    assert levels["night"].breach.units <= 30
    assert levels["day"].breach is None


def test_learning_again_keeps_what_was_counted(site, provisional):
    site.serve(provisional, 60)
    first, learned = site.learn(units=600)
    again, same = site.learn(units=600)
    assert (first.changed, again.changed, learned.digest) == (True, False, same.digest)
    levels = site.serve(learned, 3).service_levels
    assert {level.reference_units for level in levels} == {600, 540, 60}


def test_a_broken_segment_is_what_the_refusal_names(site, provisional, traffic):
    points = traffic.profile({name: traffic.rng.normal(size=(20_000, 8)) for name in POINTS})
    wide = replace(points, reference=provisional.reference)
    site.serve(wide, 60, by_night=9.0)
    with pytest.raises(RefusedError, match="units of segment night left the ranges"):
        site.learn(units=600)
    assert not site.target.exists()
