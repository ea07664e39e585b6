"""What is learned from random units, and what is never learned."""

from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument, ReferenceSource
from calidrift_agent.errors import ProfileMismatchError
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.records import PointUnits
from calidrift_analyzer.reference import Doubts, learn


def units_of(name, units, not_finite=0, highest=2.0):
    sketch = MagnitudeSketch()
    sketch.update(np.float32([highest or 0.0, -1.0]))
    return PointUnits(name, units, not_finite, highest, sketch)


def test_the_largest_unit_becomes_the_bound(ranges, production):
    observed = production(ranges).observed(
        units=520, points=[units_of("a:input", 520, highest=7.25), units_of("b:input", 411)]
    )
    learned = learn(observed, ranges)
    a, b = learned.points["a:input"], learned.points["b:input"]
    assert (a.observed_bound.value, a.observed_bound.rank, a.observed_bound.units) == (7.25, 1, 520)
    assert a.observed_bound.top == (7.25,)
    assert b.observed_bound.units == 411  # not every unit runs through it
    assert learned.units == 520
    assert a.sketch.absmax == 7.25
    assert a.clip_bound == ranges.points["a:input"].clip_bound


def test_where_it_comes_from_is_kept(provisional, production):
    learned = learn(production(provisional).observed(), provisional)
    assert learned.reference.source is ReferenceSource.PRODUCTION
    assert learned.reference.learned_from == provisional.digest
    assert learned.reference.began == "2030-03-17T17:46:40+00:00"
    assert learned.reference.ended > learned.reference.began
    assert learned.digest != provisional.digest
    assert learned.fingerprint.weights == provisional.fingerprint.weights


def test_learning_again_gives_the_same_bytes(provisional, production):
    first = learn(production(provisional).observed(), provisional)
    again = learn(production(provisional).observed(), provisional)
    assert first.to_json() == again.to_json()
    assert CalibrationProfile.from_json(first.to_json()) == first


def test_units_that_are_not_finite_are_above_every_bound(ranges, production):
    points = [units_of("a:input", 512, not_finite=3), units_of("b:input", 512, 512, None)]
    learned = learn(production(ranges).observed(points=points), ranges)
    assert learned.points["a:input"].observed_bound.rank == 4
    assert learned.points["b:input"].observed_bound is None


def test_a_point_that_no_unit_ran_through_loses_its_bound(provisional, production):
    learned = learn(
        production(provisional).observed(points=[units_of("a:input", 512)]), provisional
    )
    assert learned.unobserved == ("b:input",)


def test_a_point_is_found_by_its_alias(provisional, production):
    points = {n: replace(one, aliases=(f"{n}2",)) for n, one in provisional.points.items()}
    profile = replace(provisional, points=points)
    learned = learn(production(profile).observed(points=[units_of("a:input2", 512)]), profile)
    assert learned.points["a:input"].observed_bound.value == 2.0


def test_too_few_units_say_how_many_more_and_how_long(provisional, production):
    observed = production(provisional).observed(units=212, wanted=512)
    with pytest.raises(RefusedError) as caught:
        learn(observed, provisional)
    said = str(caught.value)
    assert "212 of 512 random units" in said
    assert "300 more are needed, in about 10 min at this traffic" in said
    assert said.endswith("Nothing was changed")


def test_without_a_unit_the_reason_is_named(provisional, production):
    observed = production(provisional).observed(units=0, points=())
    with pytest.raises(RefusedError, match="earlier ones do not measure units"):
        learn(observed, provisional)
    clip = replace(provisional, instrument=Instrument.CLIP)
    observed = production(clip).observed(units=0, points=(), instrument=Instrument.CLIP)
    with pytest.raises(RefusedError, match="clip instrument"):
        learn(observed, clip)


@pytest.mark.parametrize("force", [False, True])
def test_drifting_traffic_becomes_the_reference_only_by_force(provisional, production, force):
    doubts = Doubts(alarms=("31 of 212 units left the ranges, 1 % are tolerated",))
    observed = production(provisional).observed()
    if force:
        assert learn(observed, provisional, doubts, force=True).units == 512
        return
    with pytest.raises(RefusedError, match=r"31 of 212 units.*--force"):
        learn(observed, provisional, doubts)


@pytest.mark.parametrize("force", [False, True])
def test_traffic_in_doubt_becomes_the_reference_only_by_force(provisional, production, force):
    doubts = Doubts(suspicions=("1 of 2 points are suspected, worst a:input: 3 of 9 left",))
    observed = production(provisional).observed()
    if force:
        assert learn(observed, provisional, doubts, force=True).units == 512
        return
    with pytest.raises(RefusedError, match=r"1 of 2 points are suspected.*--force"):
        learn(observed, provisional, doubts)


def test_a_random_reference_is_not_replaced_unasked(calibrated, production):
    observed = production(calibrated).observed()
    with pytest.raises(RefusedError, match=r"64 random units already \(calibration\)"):
        learn(observed, calibrated)
    assert learn(observed, calibrated, force=True).units == 512


def test_several_profiles_at_once_are_refused_even_by_force(provisional, production):
    doubts = Doubts(others=("f" * 64, ""))
    with pytest.raises(RefusedError, match=r"ffffffffffff, \(none\).*--profile"):
        learn(production(provisional).observed(), provisional, doubts, force=True)


def test_other_profiles_and_instruments_do_not_fit(provisional, production):
    observed = production(provisional).observed()
    with pytest.raises(ProfileMismatchError, match="under profile"):
        learn(replace(observed, profile="e" * 64), provisional)
    with pytest.raises(ProfileMismatchError, match="clip instrument"):
        learn(replace(observed, instrument=Instrument.CLIP), provisional)


def test_too_few_units_are_not_enough_by_force_either(provisional, production):
    observed = production(provisional).observed(units=100, wanted=512)
    with pytest.raises(RefusedError, match="412 more"):
        learn(observed, provisional, force=True)
