import numpy as np
import pytest
from scipy import special

from calidrift_analyzer.assess import interval, lower_bound


def test_clopper_pearson_covers_at_every_rate():
    """Exact coverage by summing the binomial: never below 95 %, at any rate."""
    for trials in (5, 40):
        bounds = [interval(k, trials) for k in range(trials + 1)]
        for rate in np.linspace(0.01, 0.99, 33):
            chance = sum(
                special.binom(trials, k) * rate**k * (1 - rate) ** (trials - k)
                for k, found in enumerate(bounds)
                if found.low <= rate <= found.high
            )
            assert chance >= 0.95 - 1e-9


def test_interval_ends():
    assert interval(0, 0) is None
    assert lower_bound(0, 0) is None
    assert lower_bound(0, 9) == 0.0
    assert interval(0, 9).low == 0.0
    assert interval(9, 9).high == 1.0
    assert lower_bound(299, 299) == pytest.approx(0.05 ** (1 / 299))
