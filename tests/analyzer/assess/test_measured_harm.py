"""Harm measured beside FP32: the test of a bounded loss, from its sums alone."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import ville
from scipy import integrate

from calidrift_agent._vocabulary import RequestColumn
from calidrift_analyzer.assess import AssessRules
from calidrift_analyzer.assess._measured_harm import (
    harm_looks,
    measured_harm,
    since_drift,
)
from calidrift_analyzer.assess._tolerance import confidence_sequence, log_tolerance_evidence
from calidrift_analyzer.records import ComparedHistory, HarmLoss, ModelHistory

COMPARED = slice(RequestColumn.COMPARED, RequestColumn.DISTANCE_PPB + 1)
RULES = AssessRules()
SECOND = 10**9


def history(units, lost, *, ranked=True) -> ModelHistory:
    """Windows of a second each, with so many units compared and so much lost."""
    units, lost = np.array(units, np.int64), np.array(lost, np.float64)
    end_ns = np.arange(1, units.size + 1, dtype=np.int64) * SECOND
    none = np.zeros(0, np.int64)
    compared = ComparedHistory(
        looks=np.arange(units.size),
        compared=units,
        ranked=units if ranked else units * 0,
        agreed=units - lost.astype(np.int64) if ranked else units * 0,
        noise_ppb=units * 0 if ranked else (lost * 1e9).astype(np.int64),
    )
    empty = np.zeros((0, 0), np.int64)
    return ModelHistory("net", "p", (), end_ns, none, none, none, empty, empty, compared=compared)


@pytest.mark.parametrize(("total", "units"), [(0.4, 3), (2.75, 20), (30.3, 400)])
def test_evidence_of_sums_is_the_mixture_over_all_stakes(total, units):
    """Oracle: numerical integration over the alternatives."""
    limit = 0.05

    def ratio(rate):
        return math.exp(
            total * math.log(rate / limit)
            + (units - total) * (math.log1p(-rate) - math.log1p(-limit))
        )

    peak = max(total / units, limit)
    edges = [limit, *(peak + step * 0.02 for step in range(1, 8)), 1.0]
    area = sum(
        integrate.quad(ratio, low, high, epsrel=1e-10)[0]
        for low, high in itertools.pairwise(one for one in edges if one <= 1.0)
    )
    found = float(np.exp(log_tolerance_evidence(total, units, limit)))
    assert found == pytest.approx(area / (1 - limit), rel=1e-6)


def expected_evidence(losses, chances, units, limit):
    """Mean of E over all sequences of independent losses."""
    total = 0.0
    for path in itertools.product(range(len(losses)), repeat=units):
        chance = math.prod(chances[one] for one in path)
        sums = sum(losses[one] for one in path)
        total += chance * float(np.exp(log_tolerance_evidence(sums, units, limit)))
    return total


def test_it_is_fair_for_outcomes_and_less_than_fair_for_losses_between():
    limit = 0.2
    for units in range(1, 7):
        assert expected_evidence((0.0, 1.0), (0.8, 0.2), units, limit) == pytest.approx(1.0)
        for losses, chances in [
            ((0.0, 0.5), (0.6, 0.4)),
            ((0.1, 0.3), (0.5, 0.5)),
            ((0.0, 0.4, 1.0), (0.7, 0.2, 0.1)),
        ]:
            mean = sum(x * p for x, p in zip(losses, chances, strict=True))
            assert mean <= limit + 1e-12
            assert expected_evidence(losses, chances, units, limit) <= 1.0 + 1e-12
    # Planted mutant: sums of losses that are not bounded by 1 would not be fair.
    assert expected_evidence((0.0, 1.0), (0.75, 0.25), 4, limit) > 1.0


def test_false_alarms_while_the_tolerance_is_kept():
    """1,000 units at exactly the tolerated loss, looked at after every unit; a look-again test."""
    rng = np.random.default_rng(0)
    limit, runs, size = 0.05, 150, 1000
    noisy = rng.beta(0.5, 9.5, (runs, size))  # mean 0.05, between 0 and 1
    flips = (rng.random((runs, size)) < limit).astype(float)
    counts = np.arange(1, size + 1)
    for losses in (noisy, flips):
        sums = np.cumsum(losses, axis=1)
        evidence = log_tolerance_evidence(sums, counts[None, :], limit)
        assert (evidence.max(axis=1) >= math.log(20)).mean() <= 0.05
    # Planted mutant: a one-sided 5 % test at each look, from 30 units on.
    sums = np.cumsum(flips, axis=1)[:, 29:]
    spread = np.sqrt(counts[29:] * limit * (1 - limit))
    assert ((sums - limit * counts[29:]) / spread > 1.645).any(axis=1).mean() > 0.2


def test_it_finds_what_an_independent_betting_test_finds():
    """`ville` bets on each single loss; ours has only sums, and is not far behind."""
    rng = np.random.default_rng(1)
    ours, theirs = [], []
    for _ in range(20):
        losses = (rng.random(800) < 0.15).astype(float)
        evidence = log_tolerance_evidence(np.cumsum(losses), np.arange(1, 801), 0.05)
        ours.append(int(np.argmax(evidence >= math.log(20))) + 1)
        test = ville.BettingTest(0.05, alternative="greater", alpha=0.05).fit(losses)
        theirs.append(test.stopping_time())
    assert None not in theirs
    assert min(ours) > 1
    assert np.median(ours) <= 1.25 * np.median(theirs)


def test_bounds_hold_at_all_looks_and_overlap_those_of_hedged_capital():
    rng = np.random.default_rng(2)
    runs, size, truth = 100, 600, 0.1
    losses = rng.beta(0.4, 3.6, (runs, size))
    missed = 0
    for row in losses:
        sums = np.cumsum(row)
        looks = [confidence_sequence(float(sums[n - 1]), n) for n in range(50, size + 1, 50)]
        missed += not all(one.low <= truth <= one.high for one in looks)
    assert missed / runs <= 0.05
    for row in losses[:3]:
        theirs = ville.BettingCS(alpha=0.05, grid=2000, intersect=False).fit(row).interval()
        mine = confidence_sequence(float(row.sum()), size)
        # Ours knows sums only, so it contains what adapts to the variance.
        assert mine.low <= theirs[0] + 5e-3
        assert mine.high >= theirs[1] - 5e-3
        assert mine.high - mine.low <= 4 * (theirs[1] - theirs[0])


def test_how_units_fall_into_windows_does_not_matter():
    rng = np.random.default_rng(3)
    lost = rng.binomial(1, 0.2, 400)
    fine = measured_harm(history([1] * 400, lost), RULES)
    coarse = measured_harm(history([40] * 10, lost.reshape(10, 40).sum(axis=1)), RULES)
    assert fine.mean == coarse.mean
    assert fine.breach.units <= coarse.breach.units < fine.breach.units + 40
    # Planted mutant: one bet per window on its mean gives a window of 40 the weight of one unit.
    means = lost.reshape(10, 40).mean(axis=1)
    capital = log_tolerance_evidence(np.cumsum(means), np.arange(1, 11), 0.05)
    assert capital.max() < math.log(20)


def test_the_breach_is_the_first_look_that_passes():
    units, lost = [10] * 30, [0] * 20 + [4] * 10
    found = measured_harm(history(units, lost), RULES)
    sums = log_tolerance_evidence(np.cumsum(lost), np.cumsum(units), 0.05)
    first = int(np.flatnonzero(sums >= math.log(20))[0])
    assert found.loss is HarmLoss.DISAGREEMENT
    assert (found.breach.end_ns, found.breach.units) == ((first + 1) * SECOND, (first + 1) * 10)
    assert found.breach.total == (first - 19) * 4
    assert (found.units, found.total) == (300, 40.0)
    assert found.mean.estimate == pytest.approx(40 / 300)
    assert found.log10_evidence == pytest.approx(float(sums.max()) / math.log(10))
    assert not found.within
    assert harm_looks(history(units, lost), RULES) == (first, 29)
    later = since_drift(history(units, lost), 19)
    assert later.estimate == pytest.approx(0.4)
    # Bounds of the drifted part do not hold the diluted mean of all.
    assert later.low > found.mean.estimate


def test_a_tolerable_loss_is_known_to_be_tolerable_after_some_units():
    found = measured_harm(history([500], [5]), RULES)
    assert found.breach is None
    assert found.within
    assert not measured_harm(history([20], [0]), RULES).within
    assert harm_looks(history([500], [5]), RULES) == ()


def test_without_classes_the_noise_is_the_loss():
    found = measured_harm(history([50, 50], [10.5, 20.25], ranked=False), RULES)
    assert found.loss is HarmLoss.NOISE
    assert found.total == pytest.approx(30.75)
    assert found.breach.units == 50
    quiet = measured_harm(history([50], [0.005], ranked=False), RULES)
    assert quiet.mean.estimate == pytest.approx(1e-4)
    assert quiet.breach is None


def mixed(bench, ranked):
    """Windows of 20 units with noise of 40 %; so many of each have classes, and these agree."""
    bench.calibrate({"a:input": bench.normal(64)})
    bounds = [bench.profile.points["a:input"].observed_bound.value]
    windows = []
    for number, classes in enumerate(ranked):
        window = bench.traffic.unit_window(number, [bench.normal(20)], bounds)
        window.requests[COMPARED] = (20, classes, classes, 8 * 10**9, 0)
        windows.append(window)
    bench.store.ingest(bench.meta, windows, batch=bench.store.next_batch())
    return bench.store.history("net", bench.profile.digest)


@pytest.mark.parametrize("late", [1, 20])
def test_a_breach_by_noise_stays_when_outputs_with_classes_come(bench, late):
    before = measured_harm(mixed(bench, [0] * 20), RULES)
    after = measured_harm(mixed(bench, [0] * 20 + [late]), RULES)
    assert before.loss is after.loss is HarmLoss.NOISE
    assert before.breach == after.breach
    assert after.units == 420
    assert after.total == pytest.approx(20 * 8.0 + (8.0 if late == 1 else 0.0))
    assert after.log10_evidence >= before.log10_evidence


def test_each_window_counts_by_its_own_outputs(bench):
    found = mixed(bench, [20, 20, 1, 0]).compared
    assert found.looks.tolist() == [0, 1, 2, 3]
    assert found.compared.tolist() == [20] * 4
    assert found.ranked.tolist() == found.agreed.tolist() == [20, 20, 0, 0]
    assert found.noise_ppb.tolist() == [0, 0, 8 * 10**9, 8 * 10**9]
    harm = measured_harm(mixed(bench, [20, 20, 0]), RULES)
    assert (harm.loss, harm.total) == (HarmLoss.DISAGREEMENT, 8.0)


def test_answers_compared_before_a_drift_say_nothing_about_it(bench):
    bench.calibrate({"a:input": bench.normal(512)})
    send(bench, bench.normal(10), 0.5, 0, windows=8)
    bench.send(bench.normal(60, scale=40.0))
    found = bench.assess()
    assert found.verdict == "drifted_harmful"
    assert found.harm.within  # all 400 agreed: before the drift
    assert found.harm.recent is None
    assert "no answer was compared with FP32 since the drift began" in found.sentence
    assert "agree" not in found.next_step


def test_nothing_compared_is_no_answer():
    none = replace(history([1], [0]), compared=None)
    assert measured_harm(none, RULES) is None
    assert since_drift(none, 0) is None
    assert harm_looks(none, RULES) == ()
    assert since_drift(history([1], [0]), 10) is None


def send(bench, values, scale, wrong, windows=2):
    """Windows of ten units whose answers were compared with FP32; so many of 50 differ."""
    bounds = [point.observed_bound.value for point in bench.profile.points.values()]
    made = []
    for _ in range(windows):
        window = bench.traffic.unit_window(bench.number, [values * scale], bounds)
        window.requests[COMPARED] = (50, 50, 50 - wrong, 5 * 10**8, 10**8)
        made.append(window)
        bench.number += 1
    bench.store.ingest(bench.meta, made, batch=bench.store.next_batch())


def test_comparisons_come_back_from_the_store(bench):
    bench.calibrate({"a:input": bench.normal(512)})
    send(bench, bench.normal(10), 0.5, 15)
    bench.send(bench.normal(10))
    found = bench.store.history("net", bench.profile.digest).compared
    assert found.compared.tolist() == found.ranked.tolist() == [50, 50]
    assert found.agreed.tolist() == [35, 35]
    assert found.noise_ppb.tolist() == [0, 0]  # all outputs have classes
    assert found.looks.tolist() == [0, 1]


def test_measured_harm_makes_a_drift_harmful_whatever_is_predicted(bench):
    calm = bench.normal(512)
    bench.calibrate({"a:input": calm})
    points = {name: replace(p, clip_bound=None) for name, p in bench.profile.points.items()}
    bench.profile = replace(bench.profile, points=points)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    shifted = np.full((10, 64), np.abs(calm).max() * 1.01)
    send(bench, shifted, 1.0, 0, windows=4)
    harmless = bench.assess(harm_db=60.0)
    assert harmless.verdict == "drifted_harmless"
    assert harmless.harm.within
    send(bench, shifted, 1.0, 20, windows=4)
    found = bench.assess(harm_db=60.0)
    assert found.verdict == "drifted_harmful"
    assert found.points[0].verdict == "drifted_harmful"
    assert "20 % of the answers differ from FP32" in found.sentence
    assert "predicted at a:input" in found.sentence
    assert found.harm.recent.estimate == pytest.approx(0.2)
