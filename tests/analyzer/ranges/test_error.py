"""The exact-integral error against closed forms, quadrature and published optima."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, special

from calidrift_analyzer.ranges import (
    Mass,
    SignedMass,
    _error,
    cumulative_error,
    error_sums,
    excess_energy,
)

EMPTY = Mass.of(*(np.zeros(0) for _ in range(3)))


def mass_of(cdf, top, intervals=60_000):
    """Mass of a density on (0, top], fine enough that uniform pieces are exact to 1e-8."""
    edges = np.linspace(0, top, intervals + 1)
    return Mass.of(edges[:-1], edges[1:], np.diff(cdf(edges)))


def gauss(intervals=60_000):
    return mass_of(lambda x: special.ndtr(x), 12.0, intervals)


def laplace(intervals=60_000):
    return mass_of(lambda x: -0.5 * np.exp(-x), 45.0, intervals)


def symmetric(half):
    return SignedMass(half, half, 1)


def mse(mass, clip, codes):
    clip, step = np.atleast_1d(clip), np.atleast_1d(clip) / codes
    every = np.full(clip.shape, float(codes))
    return sum(error_sums(mass, step, every, every))


@pytest.mark.parametrize(
    ("x", "clip", "codes", "value"),
    [
        (1.0, 1.0, 127, 5.166677e-6),
        (0.3, 1.0, 7, 4.868805e-4),
        (1.7, 1.0, 7, 0.1160340136),
        (5.0, 2.0, 127, 9.0000413334),
    ],
)
def test_published_values(x, clip, codes, value):
    assert float(cumulative_error(x, clip / codes, codes)) == pytest.approx(value, rel=2e-7)


def quadrature_agrees(function):
    for codes in (1, 3, 7, 127):
        for x in (0.01, 0.4, 1.0, 1.3, 4.0):
            step = 1.0 / codes

            def squared(t, step=step, codes=codes):
                return (t - min(round(t / step), codes) * step) ** 2

            breaks = np.unique(np.clip((np.arange(codes) + 0.5) * step, 0, x))
            pieces = [0.0, *breaks.tolist(), min(1.0, x), x]
            exact = sum(integrate.quad(squared, a, b)[0] for a, b in pairwise(pieces))
            if abs(float(function(x, step, codes)) - exact) > 1e-12 + 1e-10 * exact:
                return False
    return True


def test_quadrature():
    assert quadrature_agrees(cumulative_error)


def test_planted_mutants_fail_quadrature():
    def rule_of_thumb(x, step, codes):
        clip = step * codes
        return min(x, clip) * step**2 / 12 + max(x - clip, 0) ** 3 / 3

    def rounds_down(x, step, codes):
        ratio = min(x, step * codes) / step
        code = np.floor(ratio)
        return step**3 * (code / 12 + (ratio - code) ** 3 / 3) + max(x - step * codes, 0) ** 3 / 3

    assert not quadrature_agrees(rule_of_thumb)
    assert not quadrature_agrees(rounds_down)


def test_monotone_in_x_and_everything_is_clipped_without_codes():
    x = np.linspace(0, 3, 2001)
    for codes in (0, 1, 7, 127):
        values = cumulative_error(x, 1 / max(codes, 1), codes)
        assert (np.diff(values) >= -1e-18).all()
    np.testing.assert_allclose(cumulative_error(x, 0.1, 0), x**3 / 3)


GAUSS = {
    2: (1.22401, 0.1901740),
    3: (1.95231, 0.04685997),
    4: (2.47388, 0.01288939),
    5: (2.89873, 0.00369322),
    6: (3.27012, 0.001069289),
    7: (3.60746, 3.086218e-4),
    8: (3.92050, 8.830803e-5),
}
LAPLACE = {
    2: (2.00000, 0.5284822),
    3: (3.48640, 0.1661730),
    4: (4.81992, 0.05479044),
    5: (6.09804, 0.01817026),
    6: (7.35859, 0.00595903),
    7: (8.61784, 0.001919886),
    8: (9.88265, 6.066034e-4),
}


@pytest.mark.parametrize(
    ("half", "table"), [(gauss, GAUSS), (laplace, LAPLACE)], ids=["gauss", "laplace"]
)
def test_exact_optima_of_symmetric_grids(half, table):
    mass = symmetric(half())
    for bits, (clip, error) in table.items():
        codes = 2 ** (bits - 1) - 1
        assert float(mse(mass, clip, codes)[0]) == pytest.approx(error, rel=2e-6)
        around = clip * np.array([0.99, 0.999, 1.0, 1.001, 1.01])
        assert int(np.argmin(mse(mass, around, codes))) == 2


@pytest.mark.parametrize(
    ("levels", "step", "error"),
    [
        (2, 1.59577, 0.3633802),
        (4, 0.99569, 0.1188461),
        (8, 0.58602, 0.0374397),
        (16, 0.33520, 0.0115429),
        (32, 0.18814, 0.0034952),
        (64, 0.10406, 0.0010400),
        (128, 0.05687, 0.0003043),
        (256, 0.03076, 0.0000877),
    ],
)
def test_max_1960_mid_rise_optima_through_an_affine_grid(levels, step, error):
    # A mid-rise grid is an affine grid for values shifted by half a step.
    edges = np.linspace(-12, 12, 60_001)
    count = np.diff(special.ndtr(edges))
    low, high = edges[:-1] + step / 2, edges[1:] + step / 2
    up, down = low >= 0, high <= 0
    mass = SignedMass(
        Mass.of(low[up], high[up], count[up]),
        Mass.of(-high[down][::-1], -low[down][::-1], count[down][::-1]),
        1,
    )
    half = np.array([levels / 2.0])
    assert float(sum(error_sums(mass, np.array([step]), half, half - 1))[0]) == pytest.approx(
        error, rel=2e-3
    )


def test_uniform_by_absmax_is_exact():
    mass = symmetric(Mass.of(np.array([0.0]), np.array([2.0]), np.array([0.5])))
    error = float(mse(mass, 2.0, 127)[0])
    assert error == pytest.approx((2 / 127) ** 2 / 12, rel=1e-12)
    assert 10 * np.log10(mass.energy / error) == pytest.approx(20 * np.log10(254), abs=1e-9)


def test_overload_closed_forms():
    half = laplace()
    np.testing.assert_allclose(
        2 * excess_energy(half, [0, 1, 3, 10]), 2 * np.exp([0, -1, -3, -10]), rtol=1e-6
    )
    exponential = mass_of(lambda x: -np.exp(-x), 45.0)
    assert float(excess_energy(exponential, 3.0)) == pytest.approx(0.0995741, rel=1e-6)
    half = gauss()
    for clip, value in [(2, 0.0115375), (3, 4.068700e-4), (4, 6.180416e-6)]:
        assert 2 * float(excess_energy(half, clip)) == pytest.approx(value, rel=5e-6)


ACIQ_LAPLACE = [2.8307, 3.8972, 5.0286, 6.2048, 7.4131, 8.6456, 9.8968]
ACIQ_GAUSS = [1.7106, 2.1516, 2.5591, 2.9362, 3.2869, 3.6151, 3.9240]


@pytest.mark.parametrize(
    ("half", "alphas"), [(laplace, ACIQ_LAPLACE), (gauss, ACIQ_GAUSS)], ids=["laplace", "gauss"]
)
def test_aciq_constants_from_our_overload(half, alphas):
    # ACIQ models rounding as alpha**2 / (3 * 4**M) and clipping exactly, as we do.
    mass = half()
    for bits, alpha in enumerate(alphas, start=2):
        grid = alpha + np.linspace(-0.02, 0.02, 4001)
        modelled = 2 * excess_energy(mass, grid) + grid**2 / (3 * 4**bits)
        assert grid[np.argmin(modelled)] == pytest.approx(alpha, abs=2e-4)


def octav(mass, codes, start, iterations=40):
    """OCTAV's fixed point with the exact granular coefficient of a grid with `codes` codes."""
    clip = start
    for _ in range(iterations):
        above = mass.beyond(clip)
        total = float(mass.count.sum())
        moments = mass.count * (mass.upper + mass.lower) / 2
        below = mass.up_to(clip)
        first = moments.sum() - (below.count * (below.upper + below.lower) / 2).sum()
        clip = first / ((total - above) / (12 * codes**2) * 1.0 + above)
    return clip


@pytest.mark.parametrize("half", [gauss, laplace])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_octav_agrees_with_the_sweep(half, bits):
    mass, codes = half(intervals=5000), 2 ** (bits - 1) - 1
    clip = octav(mass, codes, start=3.0)
    sweep = np.linspace(1, 12, 221)
    best = mse(symmetric(mass), sweep, codes).min()
    assert 0.999 <= float(mse(symmetric(mass), clip, codes)[0]) / best <= 1.02


def test_one_value_is_exact_and_costs_nothing_on_the_grid():
    one = SignedMass(Mass.of(np.array([0.7]), np.array([0.7]), np.array([5.0])), EMPTY, 5)
    step, codes, none = np.array([0.1, 0.1, 0.7, 0.35]), np.array([7.0, 5.0, 1.0, 1.0]), np.zeros(4)
    granular, overload = error_sums(one, step, codes, none)
    np.testing.assert_allclose(granular, 0, atol=1e-30)
    np.testing.assert_allclose(overload, [0, 5 * 0.2**2, 0, 5 * 0.35**2], atol=1e-30)
    rounded, _ = error_sums(one, np.array([0.2]), np.array([10.0]), np.zeros(1))
    assert float(rounded[0]) == pytest.approx(5 * 0.1**2)


def test_hair_thin_intervals_are_values():
    thin = SignedMass(Mass.of(np.array([1.0]), np.array([1.0 + 1e-9]), np.array([3.0])), EMPTY, 3)
    granular, overload = error_sums(thin, np.array([0.3]), np.array([3.0]), np.zeros(1))
    assert float(granular[0]) == pytest.approx(0.0, abs=1e-15)
    assert float(overload[0]) == pytest.approx(3 * 0.1**2, rel=1e-6)


def test_planted_mutant_dropping_the_negative_side_is_noticed(monkeypatch):
    real = _error._side_sums
    monkeypatch.setattr(
        _error, "_side_sums", lambda mass, step, codes: real(mass, step, codes * 0.9)
    )
    with pytest.raises(AssertionError):
        test_exact_optima_of_symmetric_grids(gauss, GAUSS)


def test_mass_splits():
    mass = Mass.of(np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0]), np.array([4.0, 2.0, 7.0]))
    assert (mass.beyond(0.5), mass.beyond(1.5), mass.beyond(2.5), mass.beyond(3)) == (11, 8, 7, 0)
    below = mass.up_to(1.5)
    assert below.count.tolist() == [4.0, 1.0]
    assert below.upper.tolist() == [1.0, 1.5]
    assert mass.up_to(3.0).count.tolist() == [4.0, 2.0, 7.0]
    assert mass.up_to(0.0).count.size == 0
    assert mass.energy == pytest.approx(4 / 3 + 2 * 7 / 3 + 63)
