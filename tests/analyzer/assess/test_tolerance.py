import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import ville
from scipy import integrate, special, stats

from calidrift_analyzer.assess._tolerance import (
    confidence_sequence,
    log_tolerance_evidence,
    lower_shares,
    reference_tolerance,
    units_to_breach,
)

COUNTS = [(0, 0), (0, 40), (1, 1), (3, 10), (5, 400), (40, 2000), (200, 2000)]


@pytest.mark.parametrize("tolerance", [0.001, 0.01, 0.2])
@pytest.mark.parametrize(("exceedances", "units"), COUNTS)
def test_evidence_is_the_mixture_of_likelihood_ratios(exceedances, units, tolerance):
    """Oracle: numerical integration over the alternatives, which knows no closed form."""
    inside = units - exceedances

    def log_ratio(rate):
        null = exceedances * math.log(tolerance) + inside * math.log1p(-tolerance)
        return special.xlogy(exceedances, rate) + special.xlog1py(inside, -rate) - null

    peak = min(1.0, max(tolerance, exceedances / units if units else tolerance))
    spread = 10 * math.sqrt(peak * (1 - peak) / max(units, 1)) + 1e-9
    highest = log_ratio(min(peak, 1 - 1e-12))
    edges = sorted({tolerance, max(tolerance, peak - spread), min(1.0, peak + spread), 1.0})
    total = sum(
        integrate.quad(lambda rate: math.exp(log_ratio(rate) - highest), low, high, epsabs=0)[0]
        for low, high in itertools.pairwise(edges)
    )

    found = float(log_tolerance_evidence(exceedances, units, tolerance))
    assert found == pytest.approx(highest + math.log(total / (1 - tolerance)), abs=1e-6)


def exact_evidence(exceedances: int, units: int, tolerance: Fraction) -> Fraction:
    """E(S, t) in fractions: the integral of a polynomial, term by term."""
    inside = units - exceedances
    total = Fraction(0)
    for power in range(inside + 1):
        degree = exceedances + power + 1
        sign = -1 if power % 2 else 1
        total += sign * math.comb(inside, power) * (1 - tolerance**degree) / degree
    return total / ((1 - tolerance) * tolerance**exceedances * (1 - tolerance) ** inside)


@pytest.mark.parametrize("tolerance", [Fraction(1, 100), Fraction(1, 3)])
def test_it_is_a_martingale_at_the_tolerance_and_falls_below_it(tolerance):
    for units in range(12):
        for exceedances in range(units + 1):
            now = exact_evidence(exceedances, units, tolerance)
            if units:
                found = float(np.exp(log_tolerance_evidence(exceedances, units, float(tolerance))))
                assert found == pytest.approx(float(now), rel=1e-9)
            up = exact_evidence(exceedances + 1, units + 1, tolerance)
            down = exact_evidence(exceedances, units + 1, tolerance)
            assert tolerance * up + (1 - tolerance) * down == now
            rarer = tolerance / 2
            assert rarer * up + (1 - rarer) * down < now


def false_alarms(streams: np.ndarray, evidence) -> float:
    """Share of streams whose evidence ever reaches 20, looking after every fourth unit."""
    sums = np.cumsum(streams, axis=1)[:, 3::4]
    units = np.arange(4, streams.shape[1] + 1, 4)
    return float((evidence(sums, units) >= math.log(20.0)).any(axis=1).mean())


def bursty(rng: np.random.Generator, streams: int, length: int, tolerance: float) -> np.ndarray:
    """Units whose chance depends on those before: 0 after an exceedance, at most p0 otherwise."""
    found = np.zeros((streams, length), np.int64)
    for unit in range(length):
        quiet = found[:, max(0, unit - 3) : unit].sum(axis=1) == 0
        found[:, unit] = (rng.random(streams) < tolerance) & quiet
    return found


def test_traffic_within_the_tolerance_hardly_ever_alarms():
    rng = np.random.default_rng(0)
    independent = (rng.random((600, 2000)) < 0.01).astype(np.int64)
    dependent = bursty(rng, 600, 1000, 0.05)

    def at(tolerance):
        return lambda sums, units: log_tolerance_evidence(sums, units, tolerance)

    assert false_alarms(independent, at(0.01)) <= 0.05
    assert false_alarms(dependent, at(0.05)) <= 0.05
    # Planted mutant: a test for one look, repeated.
    assert false_alarms(independent, repeated) > 0.15


def repeated(sums: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Evidence 20 where a one-sided binomial test has p < 5 %."""
    return np.where(stats.binom.sf(sums - 1, units, 0.01) < 0.05, math.log(20.0), 0.0)


def test_calmer_traffic_is_no_breach():
    """Planted mutant: a two-sided mixture also alarms where exceedances are rarer."""
    two_sided = special.betaln(1, 5001) - special.xlog1py(5000, -0.01)
    assert two_sided > math.log(1000)
    assert float(log_tolerance_evidence(0, 5000, 0.01)) < 0


@pytest.mark.parametrize(("exceedances", "units"), [(0, 100), (3, 50), (120, 1000), (50, 50)])
def test_bounds_are_those_of_an_independent_implementation(exceedances, units):
    sequence = ville.BernoulliCS(alpha=0.05, prior=(1.0, 1.0), intersect=False)
    sequence.update(np.r_[np.ones(exceedances), np.zeros(units - exceedances)])
    low, high = sequence.interval()

    found = confidence_sequence(exceedances, units)

    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_bounds_hold_at_all_looks_together():
    rng = np.random.default_rng(1)
    missed = alone = 0
    for _ in range(100):
        sums = np.cumsum(rng.random(600) < 0.1)
        looks = [confidence_sequence(int(sums[t - 1]), t) for t in range(10, 601, 10)]
        missed += any(not look.low <= 0.1 <= look.high for look in looks)
        narrow = 1.96 * np.sqrt(0.09 / np.arange(5, 601, 5))
        alone += bool((np.abs(sums[4::5] / np.arange(5, 601, 5) - 0.1) > narrow).any())
    assert missed / 100 <= 0.05
    assert alone / 100 > 0.2  # planted mutant: bounds for one look, looked at for ever


def test_no_units_have_no_bounds():
    assert confidence_sequence(0, 0) is None


@pytest.mark.parametrize(("points", "rank", "units"), [(1, 1, 200), (8, 1, 200), (5, 2, 300)])
def test_a_reference_keeps_what_it_promises(points, rank, units):
    """Simulated with independent points, the worst case up to overlaps."""
    rng = np.random.default_rng(points)
    promised = reference_tolerance(points * rank, units)
    outside = []
    for _ in range(2000):
        # Uniform values: a bound at u leaves 1 - u outside; independent points multiply.
        bounds = rng.beta(units + 1 - rank, rank, size=points)
        outside.append(1.0 - bounds.prod())
    share = float((np.array(outside) <= promised).mean())
    assert share >= 0.94
    assert float((np.array(outside) <= promised / 2).mean()) < 0.9  # and not for nothing


def shares_outside(rng, points, units, runs):
    """Share of new units outside some bound, over reference sets.

    Args:
        points: For each the rank of its bound, and the chance that a unit reaches it.
    """
    found = []
    for _ in range(runs):
        inside = 1.0
        for rank, chance in points:
            came = rng.binomial(units, chance)
            if came < rank:
                continue  # such a point has no bound
            # Uniform values of those that came: the k-th largest leaves Beta(k, m + 1 - k) outside.
            inside *= 1.0 - chance * rng.beta(rank, came + 1 - rank)
        found.append(1.0 - inside)
    return np.array(found)


UNEVEN = [(1, 1.0)] * 6 + [(11, 1.0), (4, 0.5), *[(1, 0.02)] * 3]
"""Ranks above 1, and points that one unit in fifty reaches."""


def test_ranks_add_up_and_points_that_are_rarely_reached_count_as_one(record_property):
    rng = np.random.default_rng(8)
    units, blocks = 400, sum(rank for rank, _ in UNEVEN)
    promised = reference_tolerance(blocks, units)
    outside = shares_outside(rng, UNEVEN, units, 3000)
    kept = float((outside <= promised).mean())
    record_property("kept", kept)
    assert kept >= 0.945
    assert float((outside <= 0.7 * promised).mean()) < 0.9  # and not for nothing
    # Planted mutants: one block for each point; and one block less for each rank.
    assert float((outside <= reference_tolerance(len(UNEVEN), units)).mean()) < 0.6
    fewer = sum(max(1, rank - 1) for rank, _ in UNEVEN)
    assert float((outside <= reference_tolerance(fewer, units)).mean()) < 0.94
    # What was promised by the largest rank and the fewest units of any point: nothing.
    assert reference_tolerance(len(UNEVEN) * 11, 8) == 1.0


def test_only_rare_points_keep_the_promise_as_well():
    rng = np.random.default_rng(9)
    points = [(1, 0.01)] * 4
    outside = shares_outside(rng, points, 300, 3000)
    assert float((outside <= reference_tolerance(4, 300)).mean()) >= 0.945


def test_evidence_falls_as_the_tolerance_grows():
    """Claim 9 of the README, on a grid: wherever it is above 1."""
    tolerances = np.linspace(0.002, 0.998, 499)
    risen = 0
    for units in (1, 2, 7, 60, 900):
        for above in sorted({0, 1, units // 20, units // 3, units}):
            counts = np.full(tolerances.shape, above)
            found = log_tolerance_evidence(counts, np.full(tolerances.shape, units), tolerances)
            alone = [float(log_tolerance_evidence(above, units, one)) for one in (0.002, 0.998)]
            assert found[[0, -1]].tolist() == pytest.approx(alone)
            falls = found[1:] <= found[:-1] + 1e-12
            assert falls[found[:-1] > 0.0].all(), (above, units)
            assert (found[tolerances >= above / units] <= 1e-12).all()
            risen += int((~falls).sum())
    assert risen > 0  # below 1 it may rise: the condition is needed


def test_lower_shares_are_those_of_the_confidence_sequence():
    counts, totals = np.array([0, 1, 7, 200, 30]), np.array([5, 1, 400, 10_000, 30])
    found = lower_shares(counts, totals, 0.01)
    for share, count, total in zip(found, counts.tolist(), totals.tolist(), strict=True):
        assert share == pytest.approx(confidence_sequence(count, total, 0.01).low, abs=1e-12)
    assert found[0] == 0.0
    assert lower_shares([0], [0], 0.01).tolist() == [0.0]


def test_lower_shares_are_below_the_share_at_all_looks_together():
    rng = np.random.default_rng(10)
    missed = alone = 0
    totals = np.arange(1, 801)
    for _ in range(200):
        counts = np.cumsum(rng.random(800) < 0.02)
        missed += bool((lower_shares(counts, totals, 0.05) > 0.02).any())
        spread = np.sqrt(0.02 * 0.98 / totals)
        alone += bool((counts / totals - 1.645 * spread > 0.02)[99:].any())
    assert missed / 200 <= 0.05
    assert alone / 200 > 0.15  # planted mutant: bounds for one look, looked at for ever


def test_a_small_reference_promises_nothing():
    assert reference_tolerance(100, 64) == 1.0


def test_units_to_breach_is_where_the_evidence_passes():
    units = units_to_breach(0.05, 0.01, math.log(1000))
    assert units is not None
    assert log_tolerance_evidence(0.05 * units, units, 0.01) >= math.log(1000)
    assert log_tolerance_evidence(0.05 * (units - 1), units - 1, 0.01) < math.log(1000)
    assert units_to_breach(0.01, 0.01, math.log(20)) is None


@pytest.mark.parametrize(
    ("exceedances", "units", "tolerance"), [(-1, 5, 0.1), (6, 5, 0.1), (1, 5, 0.0), (1, 5, 1.0)]
)
def test_impossible_counts_are_named(exceedances, units, tolerance):
    with pytest.raises(ValueError, match=r"must (lie|be)"):
        log_tolerance_evidence(exceedances, units, tolerance)
