"""Distances of sketches against scipy on the values themselves."""

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.ranges import Range as Bounds
from calidrift_analyzer.ranges import distances, grid_of, predict, tail_shift

BUCKET = 1 / 16
PAIRS = [("gauss", "laplace"), ("gauss", "t3"), ("relu", "gelu"), ("lognormal", "negative")]


def magnitudes(values):
    """log2 of |x| with what cannot be told from zero at 2^-24, as the sketch places it."""
    return np.log2(np.maximum(np.abs(values.astype(np.float64)), 2.0**-24))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_distances_are_those_of_the_values(sample, one, other):
    (before, sketch), (after, moved) = sample(one), sample(other)
    found = distances(sketch, moved)

    exact = stats.wasserstein_distance(magnitudes(before), magnitudes(after))
    assert found.w1_octaves == pytest.approx(exact, abs=BUCKET)

    ks = stats.ks_2samp(before, after).statistic
    # At most the share of the fullest cell is missing (a cell of zeros is exact).
    assert ks - 0.04 <= found.ks <= ks + 1e-12

    edges = grid_edges()
    shares = [np.histogram(values, edges)[0] for values in (before, after)]
    exact_js = jensenshannon(*shares, base=2) ** 2
    assert found.js_bits == pytest.approx(exact_js, abs=0.01)

    bins = np.quantile(before.astype(np.float64), np.linspace(0, 1, 11)[1:-1])
    bins = np.unique(bins)
    expected, got = (
        np.maximum(np.bincount(np.searchsorted(bins, v), minlength=bins.size + 1) / v.size, 1e-4)
        for v in (before, after)
    )
    psi = ((got - expected) * np.log(got / expected)).sum()
    assert found.psi == pytest.approx(psi, rel=0.15, abs=0.01)


def grid_edges():
    """Cells of both signs as intervals, wide enough for all values of the tests."""
    steps = 2.0 ** (np.arange(-24 * 16, 16 * 16 + 1) / 16)
    return np.concatenate((-steps[::-1], [-1e-30, 1e-30], steps))


def test_a_planted_mutant_fails_the_comparison(sample):
    """W1 of the wrong axis (cells, not octaves) is far outside the stated width."""
    (before, sketch), (after, moved) = sample("gauss"), sample("t3")
    exact = stats.wasserstein_distance(magnitudes(before), magnitudes(after))
    mutant = replace(distances(sketch, moved), w1_octaves=16 * distances(sketch, moved).w1_octaves)
    assert abs(mutant.w1_octaves - exact) > BUCKET


def test_oracles(sketch_of):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(20_000)
    same = sketch_of(values)
    assert astuple(distances(same, same)) == (0.0, 0.0, 0.0, 0.0)
    # A pure shift of the magnitudes is seen in octaves, exactly where it is a number of cells.
    for cells in (1, 8, 32):
        moved = sketch_of(values * 2.0 ** (cells / 16))
        assert distances(same, moved).w1_octaves == pytest.approx(cells / 16, abs=2e-4)
    assert tail_shift(same, sketch_of(values * 4)) == pytest.approx(2.0, abs=1e-6)
    assert tail_shift(sketch_of(values * 4), same) == pytest.approx(-2.0, abs=1e-6)
    # Nothing in common: one bit.
    apart = distances(sketch_of(-np.abs(values) - 1), sketch_of(np.abs(values) + 1))
    assert apart.js_bits == pytest.approx(1.0)
    assert apart.ks == pytest.approx(1.0)
    # Both halves moved by one octave in opposite directions: no mean shift, one octave of distance.
    two = sketch_of([1.0, 4.0] * 50)
    assert distances(two, sketch_of([0.5, 8.0] * 50)).w1_octaves == pytest.approx(1.0)


def test_the_null_level_of_psi(sketch_of):
    """Without drift the PSI of 10 bins is (1/n + 1/m) chi-square with 9 degrees of freedom."""
    rng = np.random.default_rng(1)
    size, found = 20_000, []
    for _ in range(60):
        one, other = (sketch_of(rng.standard_normal(size)) for _ in range(2))
        found.append(distances(one, other).psi)
    expected = 9 * 2 / size
    assert np.mean(found) == pytest.approx(expected, rel=0.25)


def test_they_explain_and_do_not_decide(sketch_of):
    """Drift that ruins INT8 is invisible to all four; harmless drift drives them up."""
    rng = np.random.default_rng(3)
    before = rng.standard_t(4, 400_000)
    ruined, harmless = rng.standard_t(4, 400_000), rng.standard_t(4, 400_000)
    ruined[:400] *= 20
    harmless[: harmless.size // 5] *= 1e-6
    reference = sketch_of(before)
    bound = grid_of(Bounds(reference.minimum, reference.maximum))
    base = predict(reference, bound).sqnr_db

    seen = distances(reference, sketch_of(ruined))
    assert seen.ks < 0.005
    assert seen.psi < 0.001
    assert seen.w1_octaves < 0.02
    assert predict(sketch_of(ruined), bound).sqnr_db - base < -5
    assert tail_shift(reference, sketch_of(ruined), 0.9999) > 1.0

    seen = distances(reference, sketch_of(harmless))
    assert seen.ks > 0.09
    assert seen.w1_octaves > 2
    assert predict(sketch_of(harmless), bound).sqnr_db - base > -1.5
    assert abs(tail_shift(reference, sketch_of(harmless), 0.999)) < 0.2


def test_tail_shift_against_the_values(sample):
    for share in (0.999, 0.9999):
        for one, other in PAIRS:
            (before, sketch), (after, moved) = sample(one), sample(other)
            exact = math.log2(
                np.quantile(np.abs(after), share) / np.quantile(np.abs(before), share)
            )
            assert tail_shift(sketch, moved, share) == pytest.approx(exact, abs=0.02)


def test_nothing_to_compare(sketch_of):
    some, none, zeros = sketch_of([1.0]), sketch_of([np.nan]), sketch_of([0.0, 0.0])
    for pair in ((some, none), (none, some)):
        with pytest.raises(NoDataError):
            distances(*pair)
        with pytest.raises(NoDataError):
            tail_shift(*pair)
    assert tail_shift(zeros, some) is None
    assert tail_shift(some, zeros) is None
    assert distances(zeros, some).ks == 1.0
