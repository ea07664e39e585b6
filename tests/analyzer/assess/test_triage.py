import math

import numpy as np
import ville

from calidrift_analyzer.assess._tolerance import log_tolerance_evidence
from calidrift_analyzer.assess._triage import triage


def test_it_is_that_of_an_independent_implementation():
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = np.exp(rng.normal(2.0, 3.0, rng.integers(1, 30)))
        rejected = np.flatnonzero(np.asarray(ville.evalues.ebh(values, alpha=0.1)))
        found = triage({str(i): math.log(value) for i, value in enumerate(values)}, alpha=0.1)
        assert sorted(map(int, found)) == sorted(rejected.tolist())


def drifted_share(rng, listed) -> tuple[float, int]:
    """Mean share of calm points in the list, and how many drifted ones it holds."""
    wrong, right = [], 0
    for _ in range(200):
        shares = np.r_[np.full(35, 0.01), np.full(15, 0.10)]
        counts = rng.binomial(150, shares)
        values = log_tolerance_evidence(counts, np.full(50, 150), 0.01)
        names = listed({str(i): float(value) for i, value in enumerate(values)})
        calm = sum(int(name) < 35 for name in names)
        wrong.append(calm / max(len(names), 1))
        right += len(names) - calm
    return float(np.mean(wrong)), right


def test_few_of_the_listed_points_are_calm():
    rng = np.random.default_rng(1)
    wrong, right = drifted_share(rng, lambda values: triage(values, alpha=0.1))
    assert wrong <= 0.1
    assert right > 2000  # of 3,000: it is no list that is simply empty
    # Planted mutant: simply the strongest half.
    careless, _ = drifted_share(rng, lambda values: sorted(values, key=values.get)[25:])
    assert careless > 0.1


def test_nothing_stands_out_of_nothing():
    assert triage({}) == ()
