"""Predictions from a sketch against quantizing the raw values."""

import math

import numpy as np
import pytest

from calidrift_agent._profile import ClipBound
from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.ranges import (
    UINT8,
    Codes,
    Prediction,
    Range,
    grid_of,
    over_range_octaves,
    overload,
    predict,
)

BOUNDS = {
    "8 bit, full": lambda s: grid_of(Range(s.minimum, s.maximum)),
    "8 bit, p99.9": lambda s: grid_of(Range(s.quantile(0.001), s.quantile(0.999))),
    "4 bit": lambda s: grid_of(Range(s.quantile(0.01), s.quantile(0.99)), Codes(0, 15)),
    "7 bit": lambda s: grid_of(Range(s.minimum, s.maximum), Codes(0, 127)),
    "symmetric": lambda s: ClipBound.of_quantizer(s.absmax / 127, 0, -127, 127, "int8"),
}


def largest_gap(names, sample, measured_sqnr, predictor):
    gaps = []
    for name in names:
        values, sketch = sample(name)
        for bound_of in BOUNDS.values():
            bound = bound_of(sketch)
            gaps.append(abs(predictor(sketch, bound) - measured_sqnr(values, bound)))
    return max(gaps)


def test_predicted_sqnr_is_the_measured_one(names, sample, measured_sqnr):
    def predictor(sketch, bound):
        return predict(sketch, bound).sqnr_db

    assert largest_gap(names, sample, measured_sqnr, predictor) <= 0.1


def test_planted_mutants_fail_the_comparison(names, sample, measured_sqnr):
    def granular_only(sketch, bound):
        one = predict(sketch, bound)
        return 10 * np.log10(one.signal / one.granular)

    def rule_of_thumb(sketch, bound):
        one = predict(sketch, bound)
        return 10 * np.log10(one.signal / (bound.scale**2 / 12 + one.overload))

    assert largest_gap(names, sample, measured_sqnr, granular_only) > 0.1
    assert largest_gap(names, sample, measured_sqnr, rule_of_thumb) > 0.1


def test_bulk_clip_and_energy_against_raw_values(sample, measured_sqnr):
    for name in ("gauss", "outliers", "relu", "negative", "t3"):
        values, sketch = sample(name)
        bound = grid_of(Range(sketch.quantile(0.002), sketch.quantile(0.998)))
        one = predict(sketch, bound)
        bulk = values[np.abs(values) <= np.quantile(np.abs(values), 0.99)]
        assert one.bulk_sqnr_db == pytest.approx(measured_sqnr(bulk, bound), abs=0.1)
        # A tail share of 0.2 % is placed inside a bucket by interpolation.
        assert one.clip_low_rate == pytest.approx((values < bound.lo).mean(), rel=0.06, abs=1e-5)
        assert one.clip_high_rate == pytest.approx((values > bound.hi).mean(), rel=0.06, abs=1e-5)
        distance = np.clip(values, bound.lo, bound.hi) - values.astype(np.float64)
        share = (distance**2).sum() / (values.astype(np.float64) ** 2).sum()
        assert one.clipped_energy_share == pytest.approx(share, rel=0.03, abs=1e-9)
        assert one.signal == pytest.approx((values.astype(np.float64) ** 2).mean(), rel=2e-3)
        assert one.clip_rate == one.clip_low_rate + one.clip_high_rate


def test_crest_link(sample):
    for name in ("gauss", "laplace", "uniform"):
        values, sketch = sample(name)
        rms = float(np.sqrt((values.astype(np.float64) ** 2).mean()))
        bound = ClipBound.of_quantizer(sketch.absmax / 127, 0, -127, 127, "int8")
        expected = 52.87 - 20 * np.log10(sketch.absmax / rms)
        assert predict(sketch, bound).sqnr_db == pytest.approx(expected, abs=0.05)


def test_widening_costs_six_decibels_per_octave(sample):
    _, sketch = sample("gauss")
    narrow = predict(sketch, grid_of(Range(-5, 5))).sqnr_db
    wide = predict(sketch, grid_of(Range(-10, 10))).sqnr_db
    assert narrow - wide == pytest.approx(6.02, abs=0.02)


def test_drift_that_distances_miss_is_seen(sketch_of):
    rng = np.random.default_rng(3)
    before = rng.standard_t(4, 500_000)
    after = rng.standard_t(4, 500_000)
    after[:500] *= 20
    reference, production = sketch_of(before), sketch_of(after)
    bound = grid_of(Range(reference.minimum, reference.maximum))
    cumulative = [np.cumsum(s.magnitude_cells()) / s.count for s in (reference, production)]
    assert np.abs(cumulative[0] - cumulative[1]).max() < 0.005
    change = predict(production, bound).sqnr_db - predict(reference, bound).sqnr_db
    assert change < -5


def test_one_value_without_error_and_all_zeros(sketch_of):
    constant = sketch_of(np.full(100, 2.5))
    one = predict(constant, grid_of(Range(0.0, 2.5)))
    assert one.sqnr_db == math.inf or one.sqnr_db > 280
    assert (one.clip_rate, one.clipped_energy_share) == (0.0, 0.0)
    zeros = predict(sketch_of(np.zeros(10)), grid_of(Range(0.0, 1.0)))
    assert zeros == Prediction(0.0, 0.0, 0.0, None, None, 0.0, 0.0, None)
    assert zeros.clipped_energy_share == 0.0


def test_values_off_the_absolute_grid(sketch_of, measured_sqnr):
    huge = np.array([1e6, 2e6, -1e6] * 50)
    bound = grid_of(Range(-1e6, 2e6))
    assert predict(sketch_of(huge), bound).clip_high_rate < 0.01
    tiny = sketch_of(np.full(10, 1e-9))
    assert predict(tiny, grid_of(Range(0, 1))).sqnr_db == pytest.approx(0.0, abs=1e-6)


def test_over_range(sample):
    _, sketch = sample("gauss")
    needed = Range(sketch.quantile(1e-4), sketch.quantile(0.9999))
    assert over_range_octaves(sketch, grid_of(needed)) == pytest.approx(0.0, abs=1e-9)
    wide = Range(4 * needed.lo, 4 * needed.hi)
    assert over_range_octaves(sketch, grid_of(wide)) == pytest.approx(2.0, abs=1e-9)
    half = Range(needed.lo / 2, needed.hi / 2)
    assert over_range_octaves(sketch, grid_of(half)) == pytest.approx(-1.0, abs=1e-9)
    positive = sample("lognormal")[1]
    assert over_range_octaves(
        positive, grid_of(Range(0, positive.quantile(0.9999)))
    ) == pytest.approx(0.0, abs=1e-9)


def test_clip_rate_falls_with_the_clip(sample):
    for name in ("gauss", "outliers", "relu"):
        _, sketch = sample(name)
        rates = [
            predict(sketch, grid_of(Range(-c, c))).clip_rate for c in np.geomspace(0.1, 50, 60)
        ]
        assert rates == sorted(rates, reverse=True)


def test_overload_against_raw_values(names, sample):
    clips = np.concatenate(([0.0], np.geomspace(1e-3, 200, 80), [np.inf]))
    for name in names:
        values, sketch = sample(name)
        magnitude = np.abs(values.astype(np.float64))
        exact = [(np.maximum(magnitude - c, 0) ** 2).sum() / (magnitude**2).sum() for c in clips]
        predicted = overload(sketch, clips)
        exact = np.array(exact)
        resolved = np.array([(magnitude > c).sum() >= 100 for c in clips])
        np.testing.assert_allclose(predicted[resolved], exact[resolved], rtol=0.03)
        # Fewer than 100 values beyond c: their places inside their buckets matter.
        np.testing.assert_allclose(predicted[~resolved], exact[~resolved], rtol=0.03, atol=4e-4)
        assert predicted[0] == pytest.approx(1.0)
        assert predicted[-1] == 0.0
        assert (np.diff(predicted) <= 1e-15).all()
        assert float(overload(sketch, sketch.absmax)) == 0.0


def test_overload_equals_direct_integration_and_keeps_shape(sketch_of):
    sketch = sketch_of(np.random.default_rng(0).standard_t(3, 5000))
    grid = np.linspace(0, 30, 60).reshape(6, 10)
    got = overload(sketch, grid)
    assert got.shape == (6, 10)
    for clip, value in zip(grid.ravel(), got.ravel(), strict=True):
        bound = ClipBound.of_quantizer(max(clip, 1e-9) / 127, 0, -127, 127, "int8")
        assert predict(sketch, bound).clipped_energy_share == pytest.approx(value, abs=1e-9)
    assert overload(sketch_of([2.0, 2.0]), [1.0, 2.0, 3.0]).tolist() == [0.25, 0.0, 0.0]
    assert overload(sketch_of([0.0]), [0.0, 1.0]).tolist() == [0.0, 0.0]


def test_nothing_to_predict(sketch_of):
    empty = sketch_of([np.nan, np.inf])
    bound = grid_of(Range(0, 1))
    for ask in (predict, over_range_octaves):
        with pytest.raises(NoDataError, match="1 NaN, 1 infinite"):
            ask(empty, bound)
    with pytest.raises(NoDataError, match="no finite value"):
        overload(empty, 1.0)


def test_a_range_without_zero_is_refused(sketch_of):
    bound = ClipBound.of_quantizer(0.1, -5, 0, 255, "uint8")
    with pytest.raises(ConfigurationError, match="does not contain 0"):
        predict(sketch_of([1.0]), bound)


def test_grid_follows_the_observer_rule():
    bound = grid_of(Range(-1.0, 3.0))
    assert bound.scale == 4 / 255
    assert bound.zero_point == round(255 / 4)
    assert (bound.qmin, bound.qmax, bound.dtype) == (0, 255, "uint8")
    one_sided = grid_of(Range(2.0, 3.0))
    assert (one_sided.lo, one_sided.hi) == (0.0, pytest.approx(3.0))
    below = grid_of(Range(-3.0, -2.0))
    assert (below.lo, below.hi, below.zero_point) == (pytest.approx(-3.0), 0.0, 255)
    nothing = grid_of(Range(0.0, 0.0))
    assert (nothing.scale, nothing.zero_point) == (2.0**-12, 0)
    reduced = grid_of(Range(-1.0, 1.0), Codes(0, 127))
    assert (reduced.scale, reduced.zero_point) == (2 / 127, 64)
    assert grid_of(Range(0, 1), smallest_scale=0.5).scale == 0.5


def test_grid_equals_torch_observers():
    observer = pytest.importorskip("torch.ao.quantization.observer")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for _ in range(50):
        low, high = np.sort(rng.standard_normal(2) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
        one = observer.MinMaxObserver(
            dtype=torch.uint8, qscheme=torch.per_tensor_affine, eps=2.0**-12
        )
        one(torch.tensor([low, high]))
        scale, zero_point = one.calculate_qparams()
        bound = grid_of(Range(float(low), float(high)))
        assert bound.scale == pytest.approx(float(scale), rel=1e-6)
        assert abs(bound.zero_point - int(zero_point)) <= 1


def test_impossible_ranges_and_codes():
    for lo, hi in [(1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)]:
        with pytest.raises(ConfigurationError, match="finite ends"):
            Range(lo, hi)
    with pytest.raises(ConfigurationError, match="qmin below qmax"):
        Codes(5, 5)
    with pytest.raises(ConfigurationError, match="above 0"):
        grid_of(Range(0, 1), UINT8, smallest_scale=0.0)
