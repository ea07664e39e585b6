"""Intervals against oracles, each law proven able to fail."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from calidrift_analyzer.validate._statistics import (
    accuracy_of,
    agreement_of,
    coverage_lower_bound,
    median_ratio,
    sqnr_of,
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


TRIALS = 80


def holds_in(share, trials, successes, slack=3.5):
    """Whether `successes` of `trials` are compatible with a rate of at least `share`."""
    return successes / trials >= share - slack * np.sqrt(share * (1 - share) / trials)


def covers(rng, resampled):
    """How often an interval of `accuracy_of` holds the true difference of 2 points."""
    hits = 0
    for _ in range(TRIALS):
        fp32 = rng.random(400) < 0.90
        flipped = rng.random(400) < 0.05
        int8 = np.where(flipped, rng.random(400) < 0.5, fp32)
        truth = 0.05 * (0.5 - 0.90)
        found = resampled(fp32.astype(float), int8.astype(float), rng)
        hits += found.low <= truth <= found.high
    return hits


def test_the_paired_interval_covers_the_true_difference(rng):
    def paired(fp32, int8, rng):
        return accuracy_of(fp32, int8, None, rng).difference

    hits = covers(rng, paired)

    assert holds_in(0.95, TRIALS, hits)


def test_a_paired_interval_that_is_half_as_wide_would_be_caught(rng):
    def mutant(fp32, int8, rng):
        found = accuracy_of(fp32, int8, None, rng).difference
        middle, half = (found.low + found.high) / 2, (found.high - found.low) / 4
        return type(found)(found.estimate, middle - half, middle + half)

    assert not holds_in(0.95, TRIALS, covers(rng, mutant))


def test_pairing_narrows_the_interval(rng):
    fp32 = (rng.random(500) < 0.9).astype(float)
    int8 = fp32.copy()
    int8[:5] = 1 - int8[:5]

    found = accuracy_of(fp32, int8, None, rng)

    assert found.difference.high - found.difference.low < 0.5 * (found.fp32.high - found.fp32.low)
    assert found.difference.low <= found.difference.estimate <= found.difference.high
    assert found.samples == 500


def covers_clusters(rng, grouped):
    """How often the interval holds the true mean where four samples are right or wrong together."""
    groups = np.repeat(np.arange(100), 4)
    hits = 0
    for _ in range(TRIALS):
        scores = np.repeat((rng.random(100) < 0.8).astype(float), 4)
        found = accuracy_of(scores, scores, None, rng, groups=groups if grouped else None).fp32
        hits += found.low <= 0.8 <= found.high
    return hits


def test_the_interval_counts_groups_and_would_be_wrong_if_it_counted_samples(rng):
    assert holds_in(0.95, TRIALS, covers_clusters(rng, grouped=True))
    assert not holds_in(0.95, TRIALS, covers_clusters(rng, grouped=False))


def test_groups_of_one_sample_change_nothing():
    scores = (np.random.default_rng(1).random(60) < 0.7).astype(float)

    alone = accuracy_of(scores, scores, None, np.random.default_rng(2))
    named = accuracy_of(scores, scores, None, np.random.default_rng(2), groups=range(60))

    # Groups are sorted by name, so the same draws pick other samples: equal up to resampling.
    assert named.fp32.estimate == alone.fp32.estimate
    assert named.fp32.low == pytest.approx(alone.fp32.low, abs=0.03)
    assert named.fp32.high == pytest.approx(alone.fp32.high, abs=0.03)


def test_groups_of_unequal_size_keep_the_mean_of_the_samples(rng):
    scores = np.array([1.0] * 30 + [0.0, 1.0] * 5)
    groups = ["large"] * 30 + [f"small {number}" for number in range(10)]

    found = accuracy_of(scores, scores, None, rng, groups=groups).fp32

    assert found.estimate == scores.mean()
    assert found.low < scores.mean() < found.high


def test_the_interval_of_a_mean_agrees_with_the_binomial_one(rng):
    scores = np.repeat([1.0, 0.0], [180, 20])

    found = accuracy_of(scores, scores, None, rng)
    exact = binomtest(180, 200).proportion_ci(0.95, method="wilson")

    assert found.fp32.low == pytest.approx(exact.low, abs=0.012)
    assert found.fp32.high == pytest.approx(exact.high, abs=0.012)
    assert (found.difference.low, found.difference.high) == (0.0, 0.0)


def test_the_same_seed_gives_the_same_interval():
    scores = np.random.default_rng(0).random(50)

    def found():
        return accuracy_of(scores, scores[::-1], None, np.random.default_rng(3))

    assert found() == found()


def test_large_sets_are_resampled_in_pieces(rng):
    scores = (rng.random(5000) < 0.5).astype(float)

    found = accuracy_of(scores, scores, None, rng)

    assert found.fp32.high - found.fp32.low == pytest.approx(
        2 * 1.96 * np.sqrt(0.25 / 5000), rel=0.1
    )


def test_segments_are_listed_with_the_one_that_lost_most_first(rng):
    fp32 = np.array([1, 1, 1, 1, 1, 0], float)
    int8 = np.array([1, 1, 1, 0, 0, 1], float)

    found = accuracy_of(fp32, int8, ["day", "day", "night", "night", "night", "dusk"], rng)

    assert [(one.name, one.samples) for one in found.segments] == [
        ("night", 3),
        ("day", 2),
        ("dusk", 1),
    ]
    assert found.worst_segment.fp32 == 1.0
    assert found.worst_segment.int8 == pytest.approx(1 / 3)
    assert accuracy_of(fp32, int8, None, rng).worst_segment is None


@pytest.mark.parametrize(("covered", "units"), [(1, 1), (95, 100), (300, 300), (0, 10), (577, 600)])
def test_the_coverage_bound_is_clopper_pearson(covered, units):
    exact = binomtest(covered, units, alternative="greater").proportion_ci(0.95, method="exact").low

    assert coverage_lower_bound(covered, units) == pytest.approx(exact, abs=1e-12)


def misses(rng, bound, truth=0.96, units=120):
    return sum(bound(int(rng.binomial(units, truth)), units) > truth for _ in range(4000))


def test_the_coverage_bound_is_rarely_too_high(rng):
    assert misses(rng, coverage_lower_bound) <= 4000 * 0.05 + 4 * np.sqrt(4000 * 0.05 * 0.95)


def test_a_bound_from_the_normal_approximation_would_be_caught(rng):
    def mutant(covered, units):
        share = covered / units
        return share - 1.645 * np.sqrt(share * (1 - share) / units)

    assert misses(rng, mutant) > 4000 * 0.05 + 4 * np.sqrt(4000 * 0.05 * 0.95)


def test_no_units_cover_nothing():
    assert coverage_lower_bound(0, 0) == 0.0


def test_sqnr_is_that_of_the_literature(rng):
    reference = rng.normal(size=(100, 10))
    given = reference + rng.normal(size=reference.shape) * 0.01

    total, bulk = sqnr_of(reference, given)

    signal, noise = torch.tensor(reference), torch.tensor(reference - given)
    assert total == pytest.approx(20 * np.log10(float(signal.norm() / noise.norm())))
    assert bulk < total  # the same noise under less signal


def test_the_bulk_leaves_the_few_largest_values_out(rng):
    reference = rng.normal(size=10_000)
    given = reference + 0.01
    reference[0], given[0] = 1e4, 0.5e4

    total, bulk = sqnr_of(reference, given)

    assert total < 7
    assert bulk > 35


@pytest.mark.parametrize(
    ("reference", "given"),
    [([0.0, 0.0], [0.0, 1.0]), ([1.0, 2.0], [1.0, 2.0]), ([1.0, np.nan], [1.0, 1.0]), ([], [])],
    ids=["no signal", "equal", "not finite", "empty"],
)
def test_an_sqnr_that_is_no_number_is_none(reference, given):
    assert sqnr_of(np.array(reference), np.array(given)) == (None, None)


def test_agreement_counts_decisions():
    reference = np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0]])
    given = np.array([[0.0, 9.0], [1.0, 2.0], [0.5, 0.6]])

    assert agreement_of(reference, given) == pytest.approx(2 / 3)
    for other in (reference[:, :1], reference.ravel(), reference[:0], reference[None]):
        assert agreement_of(other, other) is None


def test_the_ratio_of_pairs_sees_through_a_drifting_clock(rng):
    load = np.linspace(1, 5, 30)  # the machine gets slower and slower
    fp32 = 2.0 * load * rng.uniform(0.99, 1.01, 30)
    int8 = 1.0 * load * rng.uniform(0.99, 1.01, 30)

    found = median_ratio(int8, fp32, rng)

    assert found.estimate == pytest.approx(0.5, abs=0.01)
    assert found.low <= found.estimate <= found.high
    assert found.high - found.low < 0.02
