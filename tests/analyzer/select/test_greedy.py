"""Laws of the greedy core: near-optimal, lazy equals naive, ties and certificates."""

from itertools import combinations

import numpy as np

from calidrift_analyzer.select._greedy import best_picks, greedy_picks, marginal_gains, upper_bound

NAMES = [f"r{row:04d}" for row in range(5000)]


def value_of(benefit, rows):
    rows = list(rows)
    return float(benefit[rows].max(axis=0).sum()) if rows else 0.0


def best_of(benefit, budget):
    rows = range(len(benefit))
    return max(value_of(benefit, some) for some in combinations(rows, min(budget, len(benefit))))


def naive(benefit, ids, budget):
    reached, picks = np.zeros(benefit.shape[1]), []
    floor = 1e-9 * benefit.max(axis=0).sum()
    while len(picks) < budget:
        gains = marginal_gains(benefit, reached)
        left = [(-gains[row], ids[row], row) for row in range(len(gains)) if row not in picks]
        if not left or -min(left)[0] <= floor:
            break
        row = min(left)[2]
        picks.append(row)
        reached = np.maximum(reached, benefit[row])
    return picks


def instances(count, rows, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size, points = rng.integers(1, rows + 1), rng.integers(1, 9)
        kind = rng.integers(3)
        if kind == 0:
            benefit = rng.random((size, points)) ** 4
        elif kind == 1:
            benefit = rng.integers(0, 3, (size, points)).astype(float)
        else:
            benefit = rng.pareto(1.5, (size, points)) * (rng.random((size, points)) < 0.4)
        yield benefit, int(rng.integers(1, 5))


def reaches_the_guarantee(pick):
    return all(
        value_of(benefit, pick(benefit, NAMES, budget)) >= 0.632 * best_of(benefit, budget) - 1e-12
        for benefit, budget in instances(120, 10)
    )


def test_at_least_0632_of_the_best_set():
    assert reaches_the_guarantee(greedy_picks)
    assert reaches_the_guarantee(best_picks)


def test_planted_mutants_miss_the_guarantee():
    def first_ones(benefit, ids, budget):
        return list(range(min(budget, len(benefit))))

    def without_updates(benefit, ids, budget):
        return np.argsort(-benefit.sum(axis=1), kind="stable")[:budget].tolist()

    assert not reaches_the_guarantee(first_ones)
    clones = np.array([[1.0, 0, 0]] * 3 + [[0, 0.9, 0], [0, 0, 0.9]])
    assert value_of(clones, without_updates(clones, NAMES, 3)) < 0.632 * best_of(clones, 3)
    assert value_of(clones, greedy_picks(clones, NAMES, 3)) == best_of(clones, 3)


def test_lazy_equals_naive():
    for benefit, _ in instances(150, 40, seed=1):
        for budget in (1, 3, 50):
            assert greedy_picks(benefit, NAMES, budget) == naive(benefit, NAMES, budget)


def test_planted_mutant_of_laziness_is_noticed():
    def never_reevaluates(benefit, ids, budget):
        gains = marginal_gains(benefit, np.zeros(benefit.shape[1]))
        return np.lexsort((ids[: len(gains)], -gains)).tolist()[:budget]

    differing = [
        never_reevaluates(benefit, NAMES, 3) != naive(benefit, NAMES, 3)
        for benefit, _ in instances(150, 40, seed=1)
    ]
    assert any(differing)


def test_gains_diminish():
    for benefit, _ in instances(60, 12, seed=2):
        small = benefit[:1].max(axis=0)
        large = benefit[:3].max(axis=0)
        assert (marginal_gains(benefit, large) <= marginal_gains(benefit, small)).all()


def test_known_instance_where_greedy_is_not_the_best():
    sets = [{1, 2, 3, 4}, {1, 2, 5}, {3, 4, 6}]
    benefit = np.array([[float(e in s) for e in range(1, 7)] for s in sets])
    picks = greedy_picks(benefit, NAMES, 2)
    assert value_of(benefit, picks) == 5
    assert best_of(benefit, 2) == 6
    value, bound = upper_bound(benefit, picks, 2)
    assert value == 5
    assert bound == 6


def test_diagonal_instance_needs_every_point_and_one_that_has_all_needs_one():
    diagonal = np.eye(7)
    assert sorted(greedy_picks(diagonal, NAMES, 100)) == list(range(7))
    assert upper_bound(diagonal, range(7), 7) == (7.0, 7.0)
    with_all = np.vstack([diagonal, np.ones(7)])
    assert greedy_picks(with_all, NAMES, 100) == [7]
    assert upper_bound(with_all, [7], 1) == (7.0, 7.0)


def attains_everything(pick):
    for benefit, _ in instances(60, 30, seed=3):
        picks = pick(benefit, NAMES, benefit.shape[1])
        if value_of(benefit, picks) < benefit.max(axis=0).sum() * (1 - 1e-8):
            return False
        if len(picks) > benefit.shape[1]:
            return False
    return True


def test_one_pick_for_each_point_attains_everything():
    assert attains_everything(best_picks)
    # Greedy alone spends picks on compromises and does not get there.
    assert not attains_everything(greedy_picks)


def test_best_picks_are_greedy_ones_unless_the_champions_fit():
    for benefit, budget in instances(60, 30, seed=5):
        picks = best_picks(benefit, NAMES, budget)
        greedy = greedy_picks(benefit, NAMES, budget)
        assert value_of(benefit, picks) >= value_of(benefit, greedy)
        assert len(set(picks)) == len(picks) <= budget
        if picks != greedy:
            assert value_of(benefit, picks) > value_of(benefit, greedy)


def bounds_the_best(bound_of):
    for benefit, budget in instances(120, 10, seed=4):
        picks = greedy_picks(benefit, NAMES, budget)
        if bound_of(benefit, picks, budget)[1] < best_of(benefit, budget) - 1e-9:
            return False
    return True


def test_the_upper_bound_holds():
    assert bounds_the_best(upper_bound)


def test_planted_mutant_of_the_bound_is_noticed():
    def only_the_largest_gain(benefit, picks, budget):
        return upper_bound(benefit, picks[:0], 1)

    def own_value(benefit, picks, budget):
        return 0.0, value_of(benefit, picks)

    assert not bounds_the_best(only_the_largest_gain)
    assert not bounds_the_best(own_value)


def test_ties_go_to_the_smaller_id_in_any_order():
    benefit = np.ones((6, 3))
    ids = ["f", "c", "a", "e", "b", "d"]
    assert [ids[row] for row in greedy_picks(benefit, ids, 4)] == ["a"]
    halves = np.array([[1.0, 0], [0, 1.0], [1.0, 0], [0, 1.0]])
    assert [ids[row] for row in greedy_picks(halves, ids, 4)] == ["a", "c"]


def test_nothing_to_gain():
    assert greedy_picks(np.zeros((3, 2)), NAMES, 2) == []
    assert greedy_picks(np.zeros((0, 2)), NAMES, 2) == []
    assert upper_bound(np.zeros((0, 2)), [], 2) == (0.0, 0.0)
    noise = np.array([[1.0, 0.0], [1.0, 1e-14]])
    assert greedy_picks(noise, NAMES, 2) == [1]
    assert greedy_picks(np.array([[1.0, 0.0], [0.0, 1e-14]]), NAMES, 2) == [0]
