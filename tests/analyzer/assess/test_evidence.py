"""The alarm's promise, held against oracles that do not know its formula."""

import math
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from scipy import special, stats

from calidrift_analyzer.assess import (
    exceedances_to_alarm,
    log_evidence,
    smallest_detectable,
    units_to_alarm,
)

ALPHA = 0.05


def evidence(exceedances, units, rank, reference):
    return np.exp(log_evidence(exceedances, units, rank=rank, reference_units=reference))


def null_of_wrong_rank(exceedances, units, rank, reference):
    """Mutant: the bound taken for the (k+1)-th largest."""
    return evidence(exceedances, units, rank + 1, reference)


def null_without_plus_one(exceedances, units, rank, reference):
    """Mutant: Beta(k, n-k) in place of Beta(k, n+1-k)."""
    inside = units - exceedances
    mode = (rank - 1) / (reference - 1)
    null = special.betaln(rank + exceedances, reference - rank + inside) - special.betaln(
        rank, reference - rank
    )
    mixture = special.betaln(1.0 + exceedances, 1.0 + inside) + np.log(
        special.betaincc(1.0 + exceedances, 1.0 + inside, mode)
    )
    return np.exp(mixture - math.log1p(-mode) - null)


def integral(above: int, inside: int, start: Fraction) -> Fraction:
    """Exact integral of p^above (1-p)^inside from `start` to 1, by the binomial theorem."""
    total = Fraction(0)
    for j in range(inside + 1):
        power = above + j + 1
        total += Fraction(math.comb(inside, j) * (-1) ** j, power) * (1 - start**power)
    return total


def exact(above: int, units: int, rank: int, reference: int) -> Fraction:
    """E(S, t) as a fraction, from the integrals that define it."""
    mode = Fraction(rank - 1, reference - 1)
    inside = units - above
    mixture = integral(above, inside, mode) / (1 - mode)
    below = reference - rank
    null = integral(rank - 1 + above, below + inside, Fraction(0)) / integral(
        rank - 1, below, Fraction(0)
    )
    return mixture / null


def mean_over_orderings(statistic, rank, reference, units):
    """Mean of a statistic, and chance that it ever reaches 1/alpha, over all orders of n+t units.

    Exchangeability says that all (n+t)! orders are equally likely; nothing else is used.
    """
    total, crossed, count = 0.0, 0, 0
    for order in permutations(range(reference + units)):
        bound = sorted(order[:reference], reverse=True)[rank - 1]
        sums = np.cumsum([value > bound for value in order[reference:]])
        path = statistic(sums, np.arange(1, units + 1), rank, reference)
        total += path[-1]
        crossed += bool((path >= 1 / 0.3).any())
        count += 1
    return total / count, crossed / count


CASES = [(1, 3, 4), (2, 4, 3), (3, 4, 4), (1, 5, 3)]


@pytest.mark.parametrize(("rank", "reference", "units"), CASES)
def test_mean_one_over_all_orderings(rank, reference, units):
    mean, crossed = mean_over_orderings(evidence, rank, reference, units)
    assert mean == pytest.approx(1.0, abs=1e-12)
    assert crossed <= 0.3


@pytest.mark.parametrize("mutant", [null_of_wrong_rank, null_without_plus_one])
@pytest.mark.parametrize(("rank", "reference", "units"), [(1, 3, 4), (2, 4, 3)])
def test_the_orderings_catch_a_wrong_null(mutant, rank, reference, units):
    mean, _ = mean_over_orderings(mutant, rank, reference, units)
    assert abs(mean - 1.0) > 0.01


@pytest.mark.parametrize(("rank", "reference"), [(1, 2), (1, 9), (2, 9), (5, 12), (11, 12)])
def test_one_step_is_fair_under_the_urn(rank, reference):
    """E[E(t+1) | S, t] = E(t), with the urn's chance (k+S)/(n+1+t), in exact fractions."""
    for units in range(12):
        for above in range(units + 1):
            chance = Fraction(rank + above, reference + 1 + units)
            expected = chance * exact(above + 1, units + 1, rank, reference) + (1 - chance) * exact(
                above, units + 1, rank, reference
            )
            assert expected == exact(above, units, rank, reference)


@pytest.mark.parametrize(("rank", "reference"), [(1, 2), (1, 9), (2, 9), (5, 12), (11, 12)])
def test_logs_equal_the_exact_fractions(rank, reference):
    for units in (0, 1, 2, 7, 30):
        for above in range(units + 1):
            wanted = float(exact(above, units, rank, reference))
            assert evidence(above, units, rank, reference) == pytest.approx(wanted, rel=1e-9)


def test_urn_chance_is_that_of_the_ranks():
    """(k+S)/(n+1+t) counted out: among all orders, the next unit given the path so far."""
    rank, reference, units = 2, 4, 2
    seen: dict[tuple[int, int], list[int]] = {}
    for order in permutations(range(reference + units + 1)):
        bound = sorted(order[:reference], reverse=True)[rank - 1]
        bits = [int(value > bound) for value in order[reference:]]
        for past in range(units + 1):
            seen.setdefault((past, sum(bits[:past])), []).append(bits[past])
    for (past, above), nexts in seen.items():
        assert Fraction(sum(nexts), len(nexts)) == Fraction(rank + above, reference + 1 + past)


def test_grows_with_exceedances():
    """Ties make exceedances rarer, so this is what makes them harmless."""
    for rank, reference in ((1, 50), (4, 50), (20, 50)):
        values = log_evidence(
            np.arange(101), np.full(101, 100), rank=rank, reference_units=reference
        )
        assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("rank", [1, 5])
def test_fewer_exceedances_than_expected_never_alarm(rank):
    units = np.unique(np.logspace(0, 8, 400).astype(int))
    values = log_evidence(np.zeros_like(units), units, rank=rank, reference_units=200)
    assert (values <= 0).all()


def test_two_sided_mixture_would_alarm_on_quiet_traffic():
    """Why the mixture starts at the mode: the plain one fires when traffic gets *tamer*."""
    units = np.arange(1, 20_000)
    plain = special.betaln(1, 1 + units) - (special.betaln(5, 196 + units) - special.betaln(5, 196))
    assert plain.max() > math.log(20)


def test_nothing_can_be_learned_when_the_bound_is_the_smallest():
    assert (log_evidence([0, 5], [5, 5], rank=1, reference_units=1) == 0).all()
    assert (log_evidence([0, 5], [5, 5], rank=3, reference_units=3) == 0).all()
    assert smallest_detectable(3, 3, math.log(20)) is None
    assert units_to_alarm(1.0, rank=3, reference_units=3, log_threshold=1.0) is None


@pytest.mark.parametrize(("rank", "reference"), [(0, 5), (6, 5)])
def test_impossible_reference_is_refused(rank, reference):
    with pytest.raises(ValueError, match="1 <= k <= n"):
        log_evidence(0, 0, rank=rank, reference_units=reference)
    with pytest.raises(ValueError, match="calibrate again"):
        smallest_detectable(rank, reference, 1.0)


@pytest.mark.parametrize(("above", "units"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(above, units):
    with pytest.raises(ValueError, match="between 0 and units"):
        log_evidence(above, units, rank=1, reference_units=5)


def test_large_counts_stay_finite():
    value = log_evidence(10**9, 10**12, rank=3, reference_units=4096)
    assert np.isfinite(value)
    assert log_evidence(0, 10**9, rank=8, reference_units=64) == -np.inf


# ---- the promise, simulated ------------------------------------------------------------------


def streams(rank, reference, length, count, seed):
    """Exceedances of `count` streams without drift, each with a reference of its own."""
    rng = np.random.default_rng(seed)
    bound = np.sort(rng.lognormal(size=(count, reference)), axis=1)[:, -rank]
    return np.cumsum(rng.lognormal(size=(count, length)) > bound[:, None], axis=1)


def repeated_binomial(sums, rank, reference):
    """What one would write first: a binomial test of the rate k/(n+1), after every unit."""
    units = np.arange(1, sums.shape[1] + 1)
    return special.bdtrc(sums - 1, units, rank / (reference + 1)) < ALPHA


@pytest.mark.parametrize(("rank", "reference"), [(1, 50), (1, 400), (5, 200)])
def test_no_drift_no_alarm_whatever_the_looks(rank, reference):
    sums = streams(rank, reference, 1500, 1500, seed=rank * 1000 + reference)
    units = np.arange(1, sums.shape[1] + 1)
    path = log_evidence(
        sums, np.broadcast_to(units, sums.shape), rank=rank, reference_units=reference
    )
    alarms = float((path.max(axis=1) >= math.log(1 / ALPHA)).mean())
    assert alarms <= ALPHA
    naive = float(repeated_binomial(sums, rank, reference).any(axis=1).mean())
    assert naive > 0.2, "the baseline must fail, or the streams test nothing"


def test_wrong_null_breaks_the_promise(monkeypatch):
    """The simulation can fail: with half the units it claims, the reference promises too much."""
    sums = streams(1, 100, 1500, 1500, seed=5)
    units = np.broadcast_to(np.arange(1, sums.shape[1] + 1), sums.shape)
    claimed = log_evidence(sums, units, rank=1, reference_units=1000)
    assert float((claimed.max(axis=1) >= math.log(1 / ALPHA)).mean()) > 2 * ALPHA


def test_many_points_share_one_alpha():
    """50 points that all see the same traffic plus noise: the joint threshold holds."""
    rng = np.random.default_rng(11)
    reference, length, points, runs = 128, 300, 50, 200
    alarms = 0
    for _ in range(runs):
        common = rng.normal(size=(reference + length, 1))
        scores = common + 0.5 * rng.normal(size=(reference + length, points))
        bound = scores[:reference].max(axis=0)
        sums = np.cumsum(scores[reference:] > bound, axis=0)
        units = np.broadcast_to(np.arange(1, length + 1)[:, None], sums.shape)
        path = log_evidence(sums, units, rank=1, reference_units=reference)
        alarms += bool((path >= math.log(points / ALPHA)).any())
    assert alarms / runs <= ALPHA


def test_ties_only_make_it_rarer():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 4, size=(1500, 40 + 600))
    sums = np.cumsum(scores[:, 40:] > scores[:, :40].max(axis=1)[:, None], axis=1)
    units = np.broadcast_to(np.arange(1, 601), sums.shape)
    path = log_evidence(sums, units, rank=1, reference_units=40)
    assert float((path.max(axis=1) >= math.log(1 / ALPHA)).mean()) <= ALPHA


# ---- what can be seen ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "single", "fifty"),
    [(128, 0.060, 0.088), (512, 0.018, 0.025), (2048, 0.0052, 0.0071), (8192, 0.0015, 0.0019)],
)
def test_detection_limits(units, single, fifty):
    assert smallest_detectable(1, units, math.log(20)) == pytest.approx(single, rel=0.05)
    assert smallest_detectable(1, units, math.log(1000)) == pytest.approx(fifty, rel=0.05)
    closed = 1 - (1 / (units * 1000)) ** (1 / (units - 1))
    assert smallest_detectable(1, units, math.log(1000)) == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_limit_is_where_alarms_end(rank):
    threshold = math.log(400)
    limit = smallest_detectable(rank, 256, threshold)
    assert (
        units_to_alarm(limit * 0.98, rank=rank, reference_units=256, log_threshold=threshold)
        is None
    )
    found = units_to_alarm(limit * 1.5, rank=rank, reference_units=256, log_threshold=threshold)
    assert found is not None
    assert log_evidence(1.5 * limit * found, found, rank=rank, reference_units=256) >= threshold


def test_the_rate_prior_is_the_law_of_order_statistics():
    """Beta(k, n+1-k), by simulation: what a new unit exceeds the k-th largest of n with."""
    rng = np.random.default_rng(1)
    rates = 1 - np.sort(rng.random((20_000, 40)), axis=1)[:, -3]
    assert stats.kstest(rates, stats.beta(3, 38).cdf).pvalue > 0.01


def test_enumerated_paths_weigh_one():
    """Sum over all 0/1 paths of chance times evidence is 1 at every length."""
    rank, reference = 2, 7
    for length in (1, 5, 9):
        total = 0.0
        for bits in product((0, 1), repeat=length):
            chance, above = 1.0, 0
            for past, bit in enumerate(bits):
                rate = (rank + above) / (reference + 1 + past)
                chance *= rate if bit else 1 - rate
                above += bit
            total += chance * float(evidence(above, length, rank, reference))
        assert total == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize(("above", "units", "rank"), [(0, 0, 1), (1, 40, 1), (2, 120, 3)])
def test_exceedances_in_a_row_until_the_alarm(above, units, rank):
    """By counting up, with exact fractions."""
    threshold = Fraction(60)
    more = 1
    while exact(above + more, units + more, rank, 20) < threshold:
        more += 1
    found = exceedances_to_alarm(
        above, units, rank=rank, reference_units=20, log_threshold=math.log(threshold)
    )
    assert found == more


def test_no_row_is_long_enough_where_nothing_can_be_learned():
    assert exceedances_to_alarm(3, 3, rank=4, reference_units=4, log_threshold=1.0) is None
