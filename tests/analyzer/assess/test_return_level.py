"""The absmax of one request in a million against laws whose quantiles are known."""

import numpy as np
import pytest
from scipy import optimize, stats

from calidrift_agent._vocabulary import COUNT_COLUMNS, RATIO_BOUNDS, CountColumn
from calidrift_analyzer.assess._return_level import _table, return_level
from calidrift_analyzer.records import PointTotals

ELEMENTS = 1024
MILLION = 1_000_000


def totals(ratios) -> PointTotals:
    """A point whose units had these absmaxes, relative to an observed bound of 1."""
    counts = np.zeros(COUNT_COLUMNS, np.int64)
    first = CountColumn.RATIO_FIRST
    buckets = np.bincount(np.searchsorted(RATIO_BOUNDS, ratios), minlength=len(RATIO_BOUNDS) + 1)
    counts[first : first + buckets.size] = buckets
    return PointTotals("a:input", counts, np.zeros(1), np.zeros(1, np.int64))


def maxima(law, rng, units):
    """Absmax of units of 1,024 elements, exactly: the quantile of the largest of as many."""
    largest = rng.random(units) ** (1 / ELEMENTS)
    return law.isf((1 - largest) / 2)


def exact(law, requests):
    """What one in so many such units passes."""
    return law.isf(-np.expm1(np.log1p(-1 / requests) / ELEMENTS) / 2)


@pytest.mark.parametrize("place", [0, 3, 7])
def test_intervals_have_the_chances_of_a_generalized_pareto_law(place):
    """Oracle: scipy's law, on a few of 1,240 shapes and scales."""
    shapes, scales = np.linspace(-1.0, 1.0, 31), np.geomspace(0.01, 4.0, 40)
    edges = np.append(np.array(RATIO_BOUNDS)[place:] - RATIO_BOUNDS[place], np.inf)
    table = _table(place, shapes, scales).reshape(31, 40, -1)
    for shape in (0, 9, 15, 25, 30):
        for scale in (0, 20, 39):
            law = stats.genpareto(shapes[shape], scale=scales[scale])
            expected = np.diff(law.cdf(edges))
            np.testing.assert_allclose(table[shape, scale], expected, atol=1e-9)
    np.testing.assert_allclose(table.sum(axis=-1), 1.0)


LAWS = {
    "normal": (stats.norm(), 0.12, 0.7),
    "laplace": (stats.laplace(), 0.15, 0.7),
    "student": (stats.t(4), 0.35, 0.7),
}


@pytest.mark.parametrize("name", LAWS)
def test_levels_of_known_laws(name):
    """20,000 units: the median is right, the 90 % interval holds the truth most of the time."""
    law, gap, least = LAWS[name]
    rng = np.random.default_rng(4)
    truth, ratios, held, runs = exact(law, MILLION), [], 0, 60
    for _ in range(runs):
        bound = maxima(law, rng, 512).max()
        found = return_level(totals(maxima(law, rng, 20_000) / bound), 1.0)
        if found is None:
            continue
        ratios.append(found.level * bound / truth)
        held += found.low * bound <= truth <= found.high * bound
    assert len(ratios) >= 0.9 * runs
    assert np.median(ratios) == pytest.approx(1.0, abs=gap)
    assert held / len(ratios) >= least


def test_an_independent_fit_agrees():
    """scipy fits the excesses themselves; ours sees which of few intervals they fell into."""
    rng = np.random.default_rng(5)
    ratios = 0.5 + stats.genpareto.rvs(0.15, scale=0.15, size=200_000, random_state=rng)
    found = return_level(totals(ratios), 1.0)
    excesses = ratios[ratios > found.threshold] - found.threshold
    shape, _, scale = stats.genpareto.fit(excesses, floc=0)
    share = excesses.size / ratios.size
    theirs = found.threshold + scale / shape * ((MILLION * share) ** shape - 1)
    assert excesses.size == found.above
    assert found.level == pytest.approx(theirs, rel=0.3)
    assert found.low <= theirs <= found.high
    exactly = 0.5 + stats.genpareto.isf(1 / MILLION, 0.15, scale=0.15)
    assert found.low <= exactly <= found.high


def test_the_fit_is_the_one_of_largest_likelihood():
    """Oracle: scipy's law and its simplex search. A million units know more than a coarse grid."""
    rng = np.random.default_rng(5)
    point = totals(0.5 + stats.genpareto.rvs(0.15, scale=0.15, size=MILLION, random_state=rng))
    found = return_level(point, 1.0)
    edges = np.append([one for one in RATIO_BOUNDS if one >= found.threshold], np.inf)
    counts = point.counts[CountColumn.RATIO_FIRST :][: len(RATIO_BOUNDS) + 1][1 - edges.size :]

    def loss(law):
        chances = np.diff(stats.genpareto.cdf(edges - edges[0], law[0], scale=np.exp(law[1])))
        return -(counts * np.log(chances)).sum()

    best = optimize.minimize(loss, (0.1, -2.0), method="Nelder-Mead", options={"xatol": 1e-6})
    assert counts.sum() == found.above
    assert found.shape == pytest.approx(best.x[0], abs=0.005)
    exactly = 0.5 + stats.genpareto.isf(1 / MILLION, 0.15, scale=0.15)
    assert found.low < exactly < found.high


BEYOND = {
    "uniform": lambda rng: rng.random(5_000),
    "clipped": lambda rng: np.minimum(1.0, 0.5 + rng.random(5_000)),
    "bounded": lambda rng: rng.beta(3, 2, 5_000),
    "very heavy": lambda rng: 0.2 * rng.random(5_000) ** (-1 / 0.9),
}


@pytest.mark.parametrize("name", BEYOND)
def test_laws_beyond_what_can_be_fitted_get_no_level(name):
    """Whatever such a fit says comes from the ends of the grid, and with a narrow interval."""
    rng = np.random.default_rng(0)
    assert [return_level(totals(BEYOND[name](rng)), 1.0) for _ in range(5)] == [None] * 5


def test_a_heavy_tail_is_held_or_not_told():
    """Pareto with exponent 1.2: of 50,000 units a quarter of the truth, or four times it."""
    truth = 0.2 * MILLION ** (1 / 1.2)
    rng = np.random.default_rng(1)
    found = [return_level(totals(0.2 * rng.random(50_000) ** (-1 / 1.2)), 1.0) for _ in range(12)]
    told = [one for one in found if one is not None]
    assert len(told) >= 6
    assert sum(one.low <= truth <= one.high for one in told) >= 0.8 * len(told)


def test_planted_mutants_miss_the_truth():
    """What suggests itself: the largest seen, and a tail that is always exponential."""
    rng = np.random.default_rng(6)
    law = stats.t(4)
    truth, largest, exponential = exact(law, MILLION), [], []
    for _ in range(30):
        units = maxima(law, rng, 2_000)
        largest.append(units.max() / truth)
        high = np.quantile(units, 0.9)
        scale = (units[units > high] - high).mean()
        exponential.append((high + scale * np.log(MILLION * 0.1)) / truth)
    assert np.median(largest) < 0.4
    assert np.median(exponential) < 0.6


def test_uniform_sampling_of_requests_leaves_the_level():
    rng = np.random.default_rng(7)
    ratios = maxima(stats.laplace(), rng, 200_000) / 16.0
    every = return_level(totals(ratios), 1.0)
    tenth = return_level(totals(ratios[rng.random(ratios.size) < 0.1]), 1.0)
    assert tenth.level == pytest.approx(every.level, rel=0.3)
    assert tenth.high / tenth.low > every.high / every.low
    # The largest seen, which is what a maximum of sampled requests is, does fall.
    assert tenth.units < every.units / 5


def test_two_looks_at_the_same_counts_agree_and_levels_scale_with_the_bound():
    point = totals(np.random.default_rng(8).gumbel(0.6, 0.1, 4_000))
    first, again, doubled = (return_level(point, bound) for bound in (1.0, 1.0, 2.0))
    assert first == again
    assert doubled.level == pytest.approx(2 * first.level)
    assert (doubled.low, doubled.high) == pytest.approx((2 * first.low, 2 * first.high))
    assert first.low <= first.level <= first.high
    assert first.requests == MILLION
    rarer = return_level(point, 1.0, requests=10 * MILLION)
    assert rarer.level > first.level


def test_nothing_is_said_without_enough_to_say_it():
    rng = np.random.default_rng(9)
    assert return_level(totals(rng.gumbel(0.6, 0.1, 511)), 1.0) is None
    assert return_level(totals(np.full(5_000, 0.95)), 1.0) is None, "one interval"
    assert return_level(totals(np.full(5_000, 9.0)), 1.0) is None, "all beyond the last bound"
    assert return_level(totals(rng.gumbel(0.6, 0.1, 5_000)), 0.0) is None
    assert return_level(totals(np.zeros(5_000)), 1.0) is None
