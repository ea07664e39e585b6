"""The whole selection: what is picked, what is kept out, and how it compares with simple rules."""

import numpy as np
import pytest

from calidrift_analyzer.errors import ConfigurationError, NoDataError
from calidrift_analyzer.records import PickedBy, Suspicion, SuspicionReason
from calidrift_analyzer.select import _draw, _select, select


def random_maxima(seed=0, size=60, points=8):
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(-0.2, 0.5, (size, points))) * np.exp(rng.normal(0, 0.3, (size, 1)))


def without_guard(pool, budget, **options):
    return select(pool, budget, **({"corroboration": 0} | options))


def test_diagonal_pool(pool_of):
    pool = pool_of(np.where(np.eye(6, dtype=bool), 2.0, 1.0))
    got = without_guard(pool, 6, random_share=0.0)
    assert sorted(got.ids) == list(pool.ids)
    assert set(got.picked_by) == {PickedBy.RANGE}
    assert got.certificate == 1.0
    assert got.value == pytest.approx(got.attainable)
    assert got.uncovered == 6


def test_one_request_that_has_all(pool_of):
    pool = pool_of(np.vstack([np.where(np.eye(6, dtype=bool), 2.0, 1.0), np.full(6, 2.0)]))
    got = without_guard(pool, 1, random_share=0.0)
    assert got.ids == ("r0006",)
    assert got.certificate == 1.0


def test_covered_requests_are_never_picked(pool_of):
    maxima = random_maxima()
    pool = pool_of(maxima)
    got = without_guard(pool, 1000, random_share=0.5)
    uncovered = {pool.ids[row] for row in np.flatnonzero((maxima > 1).any(axis=1))}
    assert 0 < len(uncovered) < 60
    assert set(got.ids) == uncovered
    assert got.uncovered == len(uncovered)
    assert len(set(got.ids)) == len(got.ids)


def test_budget_is_shared(pool_of):
    pool = pool_of(random_maxima(size=300, points=40))
    got = without_guard(pool, 16, random_share=0.25)
    assert got.picked_by == (PickedBy.RANGE,) * 12 + (PickedBy.RANDOM,) * 4
    assert without_guard(pool, 16, random_share=1.0).picked_by == (PickedBy.RANDOM,) * 16
    assert without_guard(pool, 16, random_share=0.0).picked_by == (PickedBy.RANGE,) * 16


def test_what_greedy_does_not_need_is_drawn(pool_of):
    pool = pool_of(np.full((20, 3), 2.0))
    got = without_guard(pool, 5, random_share=0.0)
    assert got.picked_by == (PickedBy.RANGE,) + (PickedBy.RANDOM,) * 4
    assert got.ids[0] == "r0000"


def invariant_under_permutation(pool, permuted, choose):
    first = choose(pool)
    rng = np.random.default_rng(9)
    return all(choose(permuted(pool, rng.permutation(len(pool.ids)))) == first for _ in range(5))


def test_the_order_of_the_pool_does_not_matter(pool_of, permuted):
    maxima = random_maxima(size=80)
    maxima[7, 3], maxima[9, 1] = np.nan, 400.0
    maxima[20:40] = maxima[20]
    pool = pool_of(maxima, segments=tuple("ab"[row % 2] for row in range(80)))
    assert invariant_under_permutation(pool, permuted, lambda p: select(p, 20, seed=3))


def test_planted_mutant_drawing_by_row_number_depends_on_the_order(pool_of, permuted, monkeypatch):
    monkeypatch.setattr(
        _select,
        "random_order",
        lambda ids, inclusion, seed: np.random.default_rng(seed).permutation(len(ids)).tolist(),
    )
    pool = pool_of(random_maxima(size=80))
    assert not invariant_under_permutation(pool, permuted, lambda p: select(p, 20, seed=3))


def test_streaming_a_pool_in_parts_gives_the_same_ties(pool_of, permuted):
    # Captures arrive in bursts of equal maxima; whichever order they are read in, one id wins.
    maxima = np.repeat([[3.0, 1.0], [1.0, 3.0], [1.2, 1.2]], 20, axis=0)
    pool = pool_of(maxima)
    first = without_guard(pool, 8)
    assert first.ids[:2] == ("r0000", "r0020")
    late_first = permuted(pool, np.arange(60)[::-1])
    assert without_guard(late_first, 8) == first


def test_seed_changes_the_draw_only(pool_of):
    pool = pool_of(random_maxima(size=300))
    one, two = (without_guard(pool, 20, random_share=0.5, seed=seed) for seed in (0, 1))
    assert one == without_guard(pool, 20, random_share=0.5, seed=0)
    assert (
        one.ids[: one.picked_by.count(PickedBy.RANGE)]
        == (two.ids[: two.picked_by.count(PickedBy.RANGE)])
    )
    assert one.ids != two.ids


def test_a_lone_outlier_is_kept_out_and_named(pool_of):
    maxima = random_maxima(size=100)
    maxima[42, 5] = 1000.0
    pool = pool_of(maxima)
    got = select(pool, 50)
    lone = [s for s in got.suspicious if s.id == "r0042"]
    assert [(s.reason, s.point, s.maximum) for s in lone] == [(SuspicionReason.ALONE, "p5", 1000.0)]
    assert "r0042" not in got.ids
    assert "r0042" in without_guard(pool, 50).ids


def test_corroborated_extremes_are_picked(pool_of):
    maxima = np.full((30, 2), 0.5)
    maxima[:3, 0] = [10.0, 9.0, 8.0]
    maxima[3:5, 1] = [10.0, 9.0]
    got = select(pool_of(maxima), 10)
    assert {"r0000", "r0001", "r0002"} <= set(got.ids)
    assert [s.id for s in got.suspicious] == ["r0003", "r0004"]
    # Half an octave below still counts, more does not.
    maxima[:3, 0] = [10.0, 7.08, 7.08]
    assert "r0000" in select(pool_of(maxima), 10).ids
    maxima[:3, 0] = [10.0, 7.06, 7.06]
    assert "r0000" not in select(pool_of(maxima), 10).ids


def test_covered_extremes_need_no_corroboration(pool_of):
    got = select(pool_of([[0.001, 2.0], [0.9, 2.0], [0.1, 2.0]]), 3)
    assert got.suspicious == ()
    assert len(got.ids) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maxima_that_are_not_finite(pool_of, bad):
    maxima = np.full((10, 2), 2.0)
    maxima[4, 1] = bad
    for corroboration in (0, 2):
        got = select(pool_of(maxima), 10, corroboration=corroboration)
        assert "r0004" not in got.ids
        assert len(got.ids) == 9
        assert got.suspicious == (Suspicion("r0004", SuspicionReason.NOT_FINITE, "p1", None),)
        assert got.uncovered == 10


def test_points_without_a_bound_are_left_out(pool_of):
    pool = pool_of([[0.5, 9.0], [2.0, 9.0], [2.0, 9.0], [2.0, 9.0]], bounds=np.array([1.0, np.nan]))
    got = select(pool, 4)
    assert set(got.ids) == {"r0001", "r0002", "r0003"}
    assert got.uncovered == 3


def test_nothing_uncovered_is_an_empty_selection(pool_of):
    got = select(pool_of(np.full((5, 3), 0.5)), 4)
    assert (got.ids, got.picked_by, dict(got.by_segment)) == ((), (), {})
    assert (got.value, got.attainable, got.upper_bound, got.certificate) == (0, 0, 0, 1.0)
    assert got.uncovered == 0


def test_segments_are_counted(pool_of):
    segments = ("night", None, "day", "night", "day")
    got = without_guard(pool_of(np.full((5, 2), 2.0), segments=segments), 5)
    assert dict(got.by_segment) == {"": 1, "day": 2, "night": 2}
    with pytest.raises(TypeError):
        got.by_segment["day"] = 3


def test_the_draw_stands_for_the_traffic():
    ids = [f"x{number}" for number in range(200)]
    rare = [0.1 if number < 50 else 1.0 for number in range(200)]
    first = [_draw.random_order(ids, rare, seed)[0] for seed in range(800)]
    # Rare captures stand for ten requests each: 500 of 650.
    share = np.mean([row < 50 for row in first])
    assert share == pytest.approx(500 / 650, abs=0.05)
    evenly = [_draw.random_order(ids, [1.0] * 200, seed)[0] for seed in range(800)]
    assert np.mean([row < 50 for row in evenly]) == pytest.approx(0.25, abs=0.05)


def test_a_new_request_does_not_reshuffle_the_draw():
    ids = [f"x{number}" for number in range(100)]
    before = [ids[row] for row in _draw.random_order(ids[:99], [1.0] * 99, 5)]
    after = [ids[row] for row in _draw.random_order(ids, [1.0] * 100, 5)]
    assert [name for name in after if name != "x99"] == before


def test_bad_arguments(pool_of):
    pool = pool_of(np.full((3, 2), 2.0))
    with pytest.raises(NoDataError, match="no captured requests"):
        select(pool_of(np.zeros((0, 2))), 4)
    with pytest.raises(ConfigurationError, match="at least 1 request, got 0"):
        select(pool, 0)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigurationError, match="between 0 and 1"):
            select(pool, 4, random_share=share)
    with pytest.raises(ConfigurationError, match="corroboration"):
        select(pool, 4, corroboration=-1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"bounds": np.ones(3)}, r"bounds of 3 requests at 2 points must have the shape \(2,\)"),
        ({"segments": (None,)}, "segments"),
        ({"ids": ("a", "b", "a")}, "request 'a' is given twice"),
        ({"points": ("p", "p")}, "point 'p' is given twice"),
        ({"inclusion": np.array([1.0, 0.0, 1.0])}, "above 0 and at most 1"),
        ({"inclusion": np.array([1.0, np.nan, 1.0])}, "above 0 and at most 1"),
        ({"bounds": np.array([1.0, -1.0])}, "must not be negative"),
    ],
)
def test_pools_that_cannot_be(pool_of, overrides, message):
    with pytest.raises(ConfigurationError, match=message):
        pool_of(np.full((3, 2), 2.0), **overrides)


POINTS, SEGMENTS = 24, 6


def traffic(rng, size, means, segments):
    """Requests of a mixture of segments: maxima (size, P) and 16 elements at each point."""
    chosen = rng.choice(segments, size)
    level = means[chosen] + rng.normal(0, 0.25, (size, 1))
    maxima = np.exp(level + rng.normal(0, 0.3, (size, POINTS)))
    elements = maxima[:, :, None] * rng.random((size, POINTS, 16)) ** 3
    elements[:, :, 0] = maxima
    return maxima, elements


def held_out_coverage(seed, pool_of, sketch_of, budget=16):
    """Request coverage on held-out traffic after widening the bounds by each rule's picks."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 0.5, (SEGMENTS, POINTS))
    calibration, _ = traffic(rng, 400, means, np.arange(2))
    captured, elements = traffic(rng, 1500, means, np.arange(SEGMENTS))
    held_out, _ = traffic(rng, 4000, means, np.arange(SEGMENTS))
    bounds = calibration.max(axis=0)
    sketches = tuple(sketch_of(elements[:, point].ravel()) for point in range(POINTS))
    pool = pool_of(captured, bounds=bounds, sketches=sketches)
    names = {name: row for row, name in enumerate(pool.ids)}
    excess = np.log2(np.maximum(captured / bounds, 1))
    uncovered = np.flatnonzero((excess > 0).any(axis=1))

    def greedy(**options):
        return [names[name] for name in select(pool, budget, **options).ids]

    rules = {
        "greedy": greedy(random_share=0.0),
        "greedy without guard": greedy(random_share=0.0, corroboration=0),
        "three quarters greedy": greedy(random_share=0.25),
        "random uncovered": rng.choice(uncovered, budget, replace=False),
        "random": rng.choice(len(captured), budget, replace=False),
        "top exceedance": np.argsort(-excess.max(axis=1))[:budget],
        "top summed exceedance": np.argsort(-excess.sum(axis=1))[:budget],
    }
    return {
        name: float((held_out <= np.maximum(bounds, captured[rows].max(axis=0))).all(axis=1).mean())
        for name, rows in rules.items()
    }


def test_held_out_coverage_beats_the_simple_rules(pool_of, sketch_of):
    runs = [held_out_coverage(seed, pool_of, sketch_of) for seed in range(5)]
    mean = {name: np.mean([run[name] for run in runs]) for name in runs[0]}
    assert mean["greedy"] > mean["top exceedance"]
    assert mean["greedy"] > mean["random uncovered"] + 0.02
    assert mean["random uncovered"] > mean["random"]
    assert mean["greedy without guard"] > mean["top summed exceedance"]
    assert mean["three quarters greedy"] > mean["random uncovered"]
    assert mean["greedy"] > 0.9
