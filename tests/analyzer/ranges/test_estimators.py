"""One law suite over every estimator, and each law shown able to fail."""

from itertools import pairwise

import numpy as np
import pytest

from calidrift_agent import MagnitudeSketch
from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.ranges import (
    Codes,
    Estimator,
    Range,
    estimate_range,
    grid_of,
    kl_range,
    mse_range,
    percentile_range,
    predict,
)
from calidrift_analyzer.ranges import _divergence as divergence

EVERY = pytest.mark.parametrize("estimator", Estimator)


def by(estimator):
    return lambda sketch: estimate_range(sketch, estimator)


def scales_exactly(estimate, sketch_of, values):
    plain = estimate(sketch_of(values))
    return all(
        estimate(sketch_of(values * np.float32(2.0**power)))
        == Range(plain.lo * 2.0**power, plain.hi * 2.0**power, plain.guarded)
        for power in (-6, -1, 3, 8)
    )


def stays_inside(estimate, sketch):
    got = estimate(sketch)
    return min(sketch.minimum, 0) <= got.lo <= 0 <= got.hi <= max(sketch.maximum, 0)


def ignores_order(estimate, sketch_of, values):
    parts = [sketch_of(part) for part in np.array_split(values, 7)]
    merged = MagnitudeSketch()
    for part in reversed(parts):
        merged.merge(part)
    return estimate(merged) == estimate(sketch_of(values))


def keeps_one_value(estimate, sketch_of):
    for value in (0.7, -3.0, 1000.0):
        sketch = sketch_of(np.full(50, value))
        got = estimate(sketch)
        expected = (min(float(np.float32(value)), 0.0), max(float(np.float32(value)), 0.0))
        if (got.lo, got.hi) != expected or predict(sketch, grid_of(got)).sqnr_db < 100:
            return False
    return True


@EVERY
def test_scale_equivariance(estimator, sketch_of, sample):
    for name in ("gelu", "t5", "negative"):
        values = sample(name)[0][:40_000]
        assert scales_exactly(by(estimator), sketch_of, values)


@EVERY
def test_inside_the_extremes_and_around_zero(estimator, sample, names):
    for name in names:
        assert stays_inside(by(estimator), sample(name)[1])


@EVERY
def test_pure_function_of_the_merged_sketch(estimator, sketch_of, sample):
    assert ignores_order(by(estimator), sketch_of, sample("t3")[0][:20_000])


@EVERY
def test_point_mass(estimator, sketch_of):
    assert keeps_one_value(by(estimator), sketch_of)


@EVERY
def test_only_zeros(estimator, sketch_of):
    got = estimate_range(sketch_of(np.zeros(9)), estimator)
    assert (got.lo, got.hi) == (0.0, 0.0)


@EVERY
def test_empty_sketch(estimator, sketch_of):
    for values in ([], [np.nan, np.inf]):
        with pytest.raises(NoDataError, match=r"no finite value .* observe traffic"):
            estimate_range(sketch_of(values), estimator)


@EVERY
def test_the_sketch_is_not_changed(estimator, sample):
    _, sketch = sample("laplace")
    before = sketch.copy()
    assert estimate_range(sketch, estimator) == estimate_range(sketch, estimator)
    assert sketch == before


@EVERY
def test_values_off_the_grid_and_odd_mixtures(estimator, sketch_of):
    for values in ([1e-9], [1e9, 1.0], [-1e-9, 1e30], [-1.0, 0, 0, 0], [5.0, 6.0, np.nan]):
        sketch = sketch_of(values)
        assert stays_inside(by(estimator), sketch)
        assert grid_of(estimate_range(sketch, estimator)).scale > 0


def test_planted_mutants_break_the_laws(sketch_of, sample):
    values, sketch = sample("gelu")
    values = values[:40_000]

    def rounded_to_tenths(sketch):
        return Range(round(sketch.minimum, 1), round(sketch.maximum, 1))

    def symmetric(sketch):
        return Range(-sketch.absmax, sketch.absmax)

    def lossy(sketch):
        return Range(0.9 * min(sketch.minimum, 0), 0.9 * max(sketch.maximum, 0))

    calls = []

    def remembering(sketch):
        calls.append(sketch.count)
        return Range(0.0, float(len(calls)))

    assert not scales_exactly(rounded_to_tenths, sketch_of, values)
    assert not stays_inside(symmetric, sketch)
    assert not keeps_one_value(lossy, sketch_of)
    assert not ignores_order(remembering, sketch_of, values)


def test_mse_is_never_worse_than_the_others(names, sample):
    for name in names:
        _, sketch = sample(name)
        errors = {e: predict(sketch, grid_of(estimate_range(sketch, e))).mse for e in Estimator}
        assert errors[Estimator.MSE] <= min(errors.values()) * (1 + 1e-4), (name, errors)


@pytest.mark.slow
def test_mse_against_exhaustive_search(names, sample):
    factors = np.exp2(-np.arange(0, 4, 1 / 8))
    for name in names:
        _, sketch = sample(name)
        lows = np.unique(min(sketch.minimum, 0) * factors)
        highs = np.unique(max(sketch.maximum, 0) * factors)
        exhaustive = min(predict(sketch, grid_of(Range(lo, hi))).mse for lo in lows for hi in highs)
        assert predict(sketch, grid_of(mse_range(sketch))).mse <= exhaustive * 1.005, name


def test_mse_finds_the_published_optima(sketch_of):
    rng = np.random.default_rng(0)
    gauss = sketch_of(np.concatenate([x := rng.standard_normal(500_000), -x]))
    for bits, clip, error in [(4, 2.47388, 0.01288939), (8, 3.92050, 8.830803e-5)]:
        codes = Codes(0, 2**bits - 2)
        got = mse_range(gauss, codes)
        assert got.hi == pytest.approx(clip, rel=0.03)
        assert got.lo == pytest.approx(-clip, rel=0.03)
        assert predict(gauss, grid_of(got, codes)).mse == pytest.approx(error, rel=0.01)


def test_published_gains_over_absmax(sample, measured_sqnr):
    # dB gained over absmax on raw values; the reference measured 1.3, 2.2, 2.4 and 2.6.
    for name, least in [("gauss", 0.5), ("laplace", 1.5), ("t5", 1.5), ("t3", 1.0)]:
        values, sketch = sample(name)
        gain = measured_sqnr(values, grid_of(mse_range(sketch))) - measured_sqnr(
            values, grid_of(estimate_range(sketch, Estimator.ABSMAX))
        )
        assert gain > least, (name, gain)


def test_percentile_rises_with_p(sample):
    for name in ("gauss", "outliers", "lognormal", "negative"):
        _, sketch = sample(name)
        got = [percentile_range(sketch, p=p, guard=False) for p in (0.9, 0.99, 0.999, 0.9999, 1.0)]
        assert [r.hi for r in got] == sorted(r.hi for r in got)
        assert [r.lo for r in got] == sorted((r.lo for r in got), reverse=True)
        assert (got[-1].lo, got[-1].hi) == (min(sketch.minimum, 0), max(sketch.maximum, 0))


def test_percentile_is_the_exact_one(sample):
    values, sketch = sample("gauss")
    got = percentile_range(sketch, guard=False)
    assert got.hi == pytest.approx(np.quantile(values, 0.9999), rel=0.01)
    assert got.lo == pytest.approx(np.quantile(values, 0.0001), rel=0.01)


def test_guard_stops_a_percentile_that_destroys_the_signal(sketch_of):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(200_000)
    values[:180] = 30.0 * rng.choice([-1, 1], 180)
    sketch = sketch_of(values)
    plain = percentile_range(sketch, p=0.999, guard=False)
    guarded = percentile_range(sketch, p=0.999)
    assert guarded.guarded
    assert not plain.guarded
    assert predict(sketch, grid_of(plain)).sqnr_db < 12
    assert predict(sketch, grid_of(guarded)).sqnr_db > 23
    assert (guarded.lo, guarded.hi) == (mse_range(sketch).lo, mse_range(sketch).hi)


def test_guard_accepts_a_harmless_percentile(sample):
    _, sketch = sample("gauss")
    assert not percentile_range(sketch).guarded
    assert percentile_range(sketch) == percentile_range(sketch, guard=False)


def test_guard_when_the_percentile_collapses(sketch_of):
    sketch = sketch_of(np.concatenate([np.zeros(1_000_000), [3.0]]))
    assert percentile_range(sketch, guard=False) == Range(0.0, 0.0)
    assert percentile_range(sketch) == Range(0.0, 3.0, guarded=True)


@pytest.mark.parametrize("p", [0.5, 0.0, 1.1, float("nan")])
def test_impossible_percentiles(p, sketch_of):
    with pytest.raises(ConfigurationError, match=r"above 0\.5"):
        percentile_range(sketch_of([1.0]), p=p)


def naive_divergence(histogram, levels):
    """Entropy calibration as its published pseudo code says, one candidate after the other."""
    results = []
    for kept in range(levels, histogram.size + 1):
        reference = histogram[:kept].copy()
        reference[-1] += histogram[kept:].sum()
        merged = np.zeros(kept)
        edges = np.arange(levels + 1) * kept // levels
        for low, high in pairwise(edges):
            group = histogram[low:high]
            if group.sum():
                merged[low:high] = np.where(group > 0, group.sum() / (group > 0).sum(), 0)
        p, q = reference / reference.sum(), merged / max(merged.sum(), 1e-300)
        used = p > 0
        results.append(
            np.inf if (q[used] <= 0).any() else (p[used] * np.log(p[used] / q[used])).sum()
        )
    return np.array(results)


@pytest.mark.parametrize("seed", range(5))
def test_divergences_equal_the_published_loop(seed):
    rng = np.random.default_rng(seed)
    histogram = rng.poisson(np.exp(-np.linspace(0, 8, 300)) * 500).astype(np.float64)
    histogram[-1] = 1
    got, expected = divergence._divergences(histogram, 16), naive_divergence(histogram, 16)
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(got[finite], expected[finite], atol=1e-12)


def test_planted_mutant_without_the_tail_differs():
    histogram = np.exp(-np.linspace(0, 8, 100)) * 500
    cut = naive_divergence(histogram, 16)
    no_tail = [naive_divergence(histogram[:kept], 16)[-1] for kept in range(16, 101)]
    assert not np.allclose(cut, no_tail)


def test_linear_histogram_against_raw_values(sample):
    values, sketch = sample("relu")
    mass = divergence.magnitude_mass(sketch)
    histogram = divergence._linear_histogram(mass, sketch.absmax, 2048)
    edges = sketch.absmax * np.arange(2049) / 2048
    raw, _ = np.histogram(values[values > 0], edges)
    assert histogram[0] == histogram[1]
    assert histogram[1:].sum() == pytest.approx(raw[1:].sum(), rel=1e-3)
    both = np.abs(np.cumsum(histogram[1:]) - np.cumsum(raw[1:])) / raw.sum()
    assert both.max() < 0.01


def test_kl_zero_rule(sample, monkeypatch):
    values, sketch = sample("relu")
    assert kl_range(sketch).hi >= 0.9 * sketch.absmax
    real = divergence._linear_histogram

    def without_the_rule(mass, absmax, bins):
        histogram = real(mass, absmax, bins)
        histogram[0] = float((values <= absmax / bins).sum())
        return histogram

    monkeypatch.setattr(divergence, "_linear_histogram", without_the_rule)
    assert 0.35 <= kl_range(sketch).hi / sketch.absmax <= 0.55


def test_kl_near_the_raw_calibrator(sample, measured_sqnr):
    # Within what different histograms of one sample give; the reference saw up to 2 dB.
    for name in ("laplace", "t5", "lognormal", "gauss"):
        values, sketch = sample(name)
        histogram, edges = np.histogram(np.abs(values), 2048, (0, sketch.absmax))
        histogram = histogram.astype(np.float64)
        histogram[0] = histogram[1]
        kept = 2048 - int(np.argmin(divergence._divergences(histogram, 128)[::-1]))
        raw_clip = float(edges[kept])
        raw = Range(max(-raw_clip, min(sketch.minimum, 0)), raw_clip)
        gap = measured_sqnr(values, grid_of(kl_range(sketch))) - measured_sqnr(values, grid_of(raw))
        assert abs(gap) < 2, (name, gap)


def test_kl_refuses_a_choice_without_candidates(sketch_of):
    sketch = sketch_of([1.0, 2.0])
    with pytest.raises(ConfigurationError, match="at least 2048 bins and 2 levels, got 128"):
        kl_range(sketch, bins=128)
    with pytest.raises(ConfigurationError, match="leave 1 candidates"):
        kl_range(sketch, bins=2048, levels=2048)
    with pytest.raises(ConfigurationError, match="leave 0 candidates"):
        kl_range(sketch, bins=2048, levels=4096)


def test_kl_without_a_bulk_keeps_everything(sketch_of):
    sketch = sketch_of(np.concatenate([np.full(1000, 1e-4), [1.0]]))
    assert kl_range(sketch).hi >= 2.0 ** (-1 / 16)


def test_kl_where_the_exact_maximum_lies_far_above_every_counted_value(sketch_of):
    counted = sketch_of(np.full(1000, 1e-4))
    wide = MagnitudeSketch.from_cells(counted.cells, 0.0, 50.0)
    assert kl_range(wide) == Range(0.0, 50.0)
    # The squared error knows better.
    assert mse_range(wide).hi < 0.06
