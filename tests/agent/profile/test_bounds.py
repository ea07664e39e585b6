import math

import numpy as np
import pytest

from calidrift_agent._profile import TOP_LIMIT, ClipBound, ObservedBound
from calidrift_agent.errors import ConfigurationError


def test_clip_bound_comes_from_the_codes_not_from_the_type():
    bound = ClipBound.of_quantizer(0.25, 64, 0, 127, "uint8")  # reduce_range: 7 bits
    assert (bound.lo, bound.hi, bound.absmax) == (-16.0, 15.75, 16.0)


@pytest.mark.parametrize(
    "numbers",
    [
        (0.0, 0, 0, 255),
        (-1.0, 0, 0, 255),
        (math.nan, 0, 0, 255),
        (math.inf, 0, 0, 255),
        (1.0, 0, 255, 255),
        (1e308, 0, 0, 255),
    ],
)
def test_impossible_quantizers_are_refused(numbers):
    with pytest.raises(ConfigurationError, match="read the range again"):
        ClipBound.of_quantizer(*numbers, "uint8")


def test_observed_bound_equals_a_full_sort():
    absmax = np.random.default_rng(0).gamma(2.0, size=500)
    expected = np.sort(absmax)[::-1]
    for rank in (1, 2, TOP_LIMIT):
        bound = ObservedBound.from_absmax(absmax, rank=rank)
        assert bound is not None
        assert bound.value == expected[rank - 1]
        assert bound.top == tuple(expected[:TOP_LIMIT])
        assert (bound.rank, bound.units) == (rank, 500)


def coverage_error(rank_of_bound: int, rank_claimed: int) -> float:
    """z-score of exceedances of new units against rank / (n + 1), over 4000 calibrations."""
    rng, n, trials = np.random.default_rng(7), 20, 4000
    exceeded = 0
    for _ in range(trials):
        bound = ObservedBound.from_absmax(rng.standard_t(4, n), rank=rank_of_bound)
        assert bound is not None
        exceeded += abs(rng.standard_t(4)) > bound.value
    expected = rank_claimed / (n + 1)
    return (exceeded / trials - expected) / math.sqrt(expected * (1 - expected) / trials)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_new_unit_exceeds_the_bound_as_often_as_promised(rank):
    assert abs(coverage_error(rank, rank)) < 4


def test_the_law_notices_a_bound_of_the_wrong_rank():
    assert abs(coverage_error(2, 1)) > 4


def test_units_that_are_not_finite_count_as_infinitely_large():
    bound = ObservedBound.from_absmax([math.nan, 2.0, math.inf, 1.0, 2.0], rank=2)
    assert bound == ObservedBound(value=2.0, rank=4, units=5, top=(2.0, 2.0, 1.0))
    broken = [math.nan] * 40
    assert ObservedBound.from_absmax([*broken, 3.0]) == ObservedBound(3.0, 41, 41, (3.0,))
    assert ObservedBound.from_absmax([math.nan, math.inf]) is None
    assert ObservedBound.from_absmax([]) is None


def exceedance_error(*, honest: bool) -> float:
    """z-score of exceedances against rank / (n + 1) where every tenth unit is not finite.

    A planted mutant (`honest=False`) leaves those units out of the reference, as if they could
    not happen again.
    """
    rng, n, trials = np.random.default_rng(11), 30, 4000
    exceeded, expected, variance = 0, 0.0, 0.0
    for _ in range(trials):
        units = np.where(rng.random(n + 1) < 0.1, math.nan, np.abs(rng.standard_normal(n + 1)))
        reference, new = units[:-1], units[-1]
        bound = ObservedBound.from_absmax(reference if honest else reference[reference >= 0])
        assert bound is not None
        exceeded += not new <= bound.value
        chance = bound.rank / (bound.units + 1)
        expected, variance = expected + chance, variance + chance * (1 - chance)
    return (exceeded - expected) / math.sqrt(variance)


def test_broken_units_are_exchangeable_too():
    assert abs(exceedance_error(honest=True)) < 4


def test_the_law_notices_broken_units_that_were_left_out():
    assert abs(exceedance_error(honest=False)) > 4


def test_with_fewer_finite_units_than_the_rank_the_smallest_is_taken():
    bound = ObservedBound.from_absmax([3.0, 5.0], rank=4)
    assert bound is not None
    assert (bound.value, bound.rank) == (3.0, 2)


def test_float32_maxima_keep_their_value():
    value = np.float32(0.1)
    bound = ObservedBound.from_absmax(np.array([value]))
    assert bound is not None
    assert bound.value == float(value)


@pytest.mark.parametrize("rank", [0, -1, TOP_LIMIT + 1])
def test_ranks_outside_the_kept_ones_are_refused(rank):
    with pytest.raises(ConfigurationError, match="only ranks 1 to 32"):
        ObservedBound.from_absmax([1.0], rank=rank)


@pytest.mark.parametrize(
    ("value", "rank", "units", "top"),
    [
        (1.0, 2, 1, (1.0,)),
        (1.0, 0, 5, (1.0,)),
        (1.0, 1, 5, ()),
        (1.0, 1, 2, (2.0, 1.0)),
        (2.0, 2, 2, (2.0, 1.0)),
        (1.0, 4, 4, (2.0, 1.0, 0.5, 0.25)),
        (1.0, 1, 0, (1.0,)),
        (2.0, 1, 5, (1.0,)),
        (1.0, 1, 5, (1.0, 2.0)),
        (math.nan, 1, 5, (math.nan,)),
        (-1.0, 1, 5, (-1.0,)),
        (1.0, 1, 50, (1.0,) * 33),
    ],
)
def test_contradictory_order_statistics_are_refused(value, rank, units, top):
    with pytest.raises(ConfigurationError):
        ObservedBound(value=value, rank=rank, units=units, top=top)
