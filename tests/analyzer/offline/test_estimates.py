"""What each estimator would do, against quantizing the values themselves."""

import numpy as np
import pytest

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.offline import outlooks_of
from calidrift_analyzer.ranges import Estimator, Range, estimate_range, grid_of


def sketch(values):
    found = MagnitudeSketch()
    found.update(values.astype(np.float32))
    return found


def measured(values, bound):
    """SQNR of a uint8 affine quantizer, dB, and the share of values outside."""
    codes = np.clip(np.round(values / bound.scale) + bound.zero_point, bound.qmin, bound.qmax)
    error = (codes - bound.zero_point) * bound.scale - values
    outside = (values < bound.lo) | (values > bound.hi)
    return 10 * np.log10((values**2).mean() / (error**2).mean()), outside.mean()


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=50_000), "b": np.abs(rng.normal(size=50_000))}


def test_every_estimator_is_predicted_as_it_comes_out(traffic, values):
    profile = traffic.profile({name: one[:, None] for name, one in values.items()}, clip=False)
    inputs = {"a": 2 * values["a"], "b": values["b"]}
    whole, points = outlooks_of(profile, {name: sketch(one) for name, one in inputs.items()})
    assert [one.estimator for one in whole] == list(Estimator)
    assert len(points) == 8
    for one in points:
        chosen = estimate_range(profile.points[one.name].sketch, one.estimator)
        assert Range(one.low, one.high) == Range(chosen.lo, chosen.hi)
        bound = grid_of(chosen)
        sqnr, clipped = measured(inputs[one.name].astype(np.float32), bound)
        assert one.inputs_db == pytest.approx(sqnr, abs=0.3)
        assert one.clipped == pytest.approx(clipped, abs=0.002)
        assert one.change_db == pytest.approx(one.inputs_db - one.calibration_db)


def test_the_worst_comes_first_and_only_it_loses(traffic, values):
    profile = traffic.profile({name: one[:, None] for name, one in values.items()}, clip=False)
    inputs = {"a": sketch(4 * values["a"]), "b": sketch(values["b"])}
    whole, points = outlooks_of(profile, inputs)
    assert {one.name for one in points[:4]} == {"a"}
    assert [one.losing for one in whole] == [1, 1, 1, 1]
    assert [one.falling for one in whole] == [1, 1, 1, 1]
    assert {one.worst_point for one in whole} == {"a"}
    assert all(one.points == 2 for one in whole)
    assert all(one.inputs_db < one.calibration_db - 10 for one in whole)


def test_a_fall_without_more_clipping_is_no_loss(traffic, values):
    """Weaker signals lose SQNR on the same grid; a wider calibration set would not help them."""
    profile = traffic.profile({"a": values["a"][:, None]}, clip=False)
    whole, points = outlooks_of(profile, {"a": sketch(values["a"] / 10)})
    assert all(one.change_db < -10 for one in points)
    assert [one.losing for one in whole] == [0, 0, 0, 0]
    assert [one.falling for one in whole] == [1, 1, 1, 1], "but it is told"


def test_without_values_on_both_sides_nothing_is_said(traffic, values):
    profile = traffic.profile({"a": values["a"][:, None], "zero": np.zeros((9, 2))}, clip=False)
    whole, points = outlooks_of(profile, {"zero": sketch(np.ones(4)), "a": MagnitudeSketch()})
    assert points == ()
    assert [(one.points, one.worst_point, one.inputs_db) for one in whole] == [(0, None, None)] * 4
