"""Canaries beside their peers: how often the good ones are refused, and the bad ones found."""

import dataclasses
from math import comb

import numpy as np
import pytest
from scipy.stats import beta, fisher_exact

from calidrift_analyzer.assess import CANARY_RISK, canary_units, next_canary_look
from calidrift_analyzer.assess import _canary as module
from calidrift_analyzer.records import CanaryMeasure, CanaryWindows

SECOND = 10**9
MEASURES = len(CanaryMeasure)


def windows(rows):
    """Of (canary, start in seconds, units, bad per measure); each measure is of the units."""
    table = [(*row[:3], *row[3]) for row in rows]
    found = np.array(table, np.int64).reshape(len(table), 3 + MEASURES)
    of = np.repeat(found[:, 2:3], MEASURES, axis=1)
    return CanaryWindows(
        found[:, 0].astype(bool), found[:, 1] * SECOND, found[:, 2], found[:, 3:], of
    )


def cut(told, end):
    """The first windows only: what somebody saw who asked earlier."""
    return CanaryWindows(*(getattr(told, field.name)[:end] for field in dataclasses.fields(told)))


def tail(bad, of, peers_bad, peers_of):
    """Probability of `bad` or more, counted out: every way to spread all bad ones at random."""
    total, marked = of + peers_of, bad + peers_bad
    ways = sum(
        comb(marked, many) * comb(total - marked, of - many)
        for many in range(bad, min(of, marked) + 1)
    )
    return ways / comb(total, of)


def drawn(rng, rates, units, peers=1, size=25):
    """A canary and its peers in windows that arrive in turn, until there is enough of both."""
    rounds = -(-units // size)
    canary = rng.binomial(size, np.broadcast_to(rates[0], (rounds, MEASURES)))
    beside = rng.binomial(size, np.broadcast_to(rates[1], (rounds, peers, MEASURES)))
    rows = []
    for number in range(rounds):
        rows.append((1, number, size, canary[number]))
        rows += [(0, number, size, one) for one in beside[number]]
    return windows(rows)


def refused(told, units):
    """Whether any look finds the canary worse."""
    taken = 0
    while (look := next_canary_look(told, units, taken)) is not None:
        if look.worse:
            return True
        taken += 1
    assert taken == 3
    return False


def share(found):
    """An estimate with its exact 99 % limits."""
    bad, of = int(np.sum(found)), len(found)
    lower = 0.0 if bad == 0 else float(beta.ppf(0.01, bad, of - bad + 1))
    upper = 1.0 if bad == of else float(beta.ppf(0.99, bad + 1, of - bad))
    return lower, bad / of, upper


@pytest.mark.parametrize(
    ("bad", "of", "peers_bad", "peers_of"),
    [(0, 10, 0, 10), (3, 10, 0, 10), (40, 1000, 10, 1000), (5, 250, 40, 2250), (7, 7, 0, 9)],
)
def test_p_is_the_tail_of_the_hypergeometric_distribution(bad, of, peers_bad, peers_of):
    rows = [(1, 0, of, (bad, 0, 0)), (0, 0, peers_of, (peers_bad, 0, 0))]
    found = next_canary_look(windows(rows), 20, 0).comparisons[0] if of >= 5 else None

    assert found.p == pytest.approx(tail(bad, of, peers_bad, peers_of), rel=1e-9)
    table = [[bad, of - bad], [peers_bad, peers_of - peers_bad]]
    assert found.p == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-9)
    assert (found.canary_bad, found.canary_of) == (bad, of)
    assert (found.peers_bad, found.peers_of) == (peers_bad, peers_of)


def test_a_measure_that_a_side_has_not_shown_says_nothing():
    told = windows([(1, 0, 50, (0, 50, 0)), (0, 0, 50, (0, 0, 0))])
    told.of[1, 1] = 0
    look = next_canary_look(told, 40, 0)
    assert look.comparisons[1].p is None
    assert look.worse == ()


def test_looks_are_taken_at_a_quarter_half_and_all_of_the_side_with_fewer():
    told = windows([(side, number, 10, (0, 0, 0)) for number in range(5) for side in (1, 0, 0)])
    marks = []
    while (look := next_canary_look(told, 40, len(marks))) is not None:
        marks.append((look.mark, look.units, look.peers, look.last))
    assert marks == [(10, 10, 10, False), (20, 20, 20, False), (40, 40, 60, True)]
    assert next_canary_look(told, 40, 3) is None
    assert canary_units(told) == (50, 100)


def test_a_look_depends_on_the_units_alone_and_not_on_when_somebody_asks():
    rng = np.random.default_rng(3)
    told = drawn(rng, (0.3, 0.1), 200, peers=3)
    late = [next_canary_look(told, 200, taken) for taken in range(3)]

    early, taken = [], 0
    for end in range(len(told.units) + 1):
        look = next_canary_look(cut(told, end), 200, taken)
        if look is not None:
            early.append(look)
            taken += 1

    assert early == late


def test_peers_count_from_when_the_canary_shows_something():
    told = windows([(0, 0, 500, (500, 0, 0)), (1, 5, 50, (0, 0, 0)), (0, 5, 50, (1, 0, 0))])
    look = next_canary_look(told, 40, 0)
    assert (look.units, look.peers) == (50, 50)
    assert look.comparisons[0].peers_bad == 1


def test_nothing_was_shown():
    nothing = windows([])
    assert canary_units(nothing) == (0, 0)
    assert next_canary_look(nothing, 20, 0) is None
    alone = windows([(1, 0, 500, (0, 0, 0))])
    assert canary_units(alone) == (500, 0)
    assert next_canary_look(alone, 20, 0) is None


def test_the_clearest_measure_comes_first():
    told = windows([(1, 0, 100, (30, 60, 0)), (0, 0, 100, (0, 0, 0))])
    assert [one.measure for one in next_canary_look(told, 100, 0).worse] == [
        CanaryMeasure.OTHER_CLASS,
        CanaryMeasure.UNITS_OUTSIDE,
    ]


ROUNDS = 4_000


def false_refusals(rates, peers, rounds=ROUNDS):
    """Of canaries that are exactly as good as their peers, with all three measures at work."""
    rng = np.random.default_rng([11, peers])
    return share([refused(drawn(rng, (rates, rates), 80, peers, 20), 80) for _ in range(rounds)])


@pytest.mark.slow
@pytest.mark.parametrize("rates", [0.02, 0.5], ids=str)
@pytest.mark.parametrize("peers", [1, 4])
def test_a_canary_as_good_as_its_peers_is_refused_once_in_a_hundred_at_most(rates, peers):
    _, _, upper = false_refusals(rates, peers)
    assert upper <= CANARY_RISK


@pytest.mark.slow
@pytest.mark.parametrize("mutant", ["no Bonferroni", "windows counted twice"])
def test_the_law_finds_planted_mistakes(mutant, monkeypatch):
    if mutant == "no Bonferroni":
        monkeypatch.setattr(module, "_TESTS", 1)
    else:
        compared = module._compared
        monkeypatch.setattr(
            module,
            "_compared",
            lambda measure, *counts: compared(measure, *(2 * one for one in counts)),
        )
    lower, _, _ = false_refusals(0.5, 1, rounds=1_000)
    assert lower > CANARY_RISK


@pytest.mark.slow
def test_four_percent_beside_one_are_found_within_a_thousand_units():
    """The power that the documentation states: at least 90 % where there are nine peers."""
    rng = np.random.default_rng(5)
    bad = np.array([0.04, 0.0, 0.0]), np.array([0.01, 0.0, 0.0])
    lower, found, _ = share([refused(drawn(rng, bad, 1_000, 9), 1_000) for _ in range(300)])
    alone, _, _ = share([refused(drawn(rng, bad, 1_000, 1), 1_000) for _ in range(300)])
    assert lower > 0.9, found
    assert alone > 0.7
