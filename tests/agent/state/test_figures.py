import math

import numpy as np
import pytest

from calidrift_agent._state import ReferenceFigures
from calidrift_agent._vocabulary import REQUEST_COLUMNS, RequestColumn


def counters(**columns):
    requests = np.zeros(REQUEST_COLUMNS, np.int64)
    for name, value in columns.items():
        requests[RequestColumn[name.upper()]] = value
    return requests


def test_nothing_compared_is_no_figure():
    assert ReferenceFigures.of(counters(seen=10, observed=5)) is None


def test_figures_are_means_over_units():
    noises, cosines = [0.01, 0.02, 1.0], [0.99, 0.9, -0.5]
    found = ReferenceFigures.of(
        counters(
            compared=3,
            ranked=2,
            agreed=1,
            noise_ppb=sum(round(one * 1e9) for one in noises),
            distance_ppb=sum(round((1 - one) / 2 * 1e9) for one in cosines),
        )
    )
    assert found.compared == 3
    assert found.sqnr_db == pytest.approx(-10 * math.log10(np.mean(noises)), abs=1e-6)
    assert found.cosine == pytest.approx(np.mean(cosines), abs=1e-8)
    assert found.agreement == 0.5


def test_without_classes_there_is_no_agreement():
    assert ReferenceFigures.of(counters(compared=3)).agreement is None
    assert ReferenceFigures.of(counters(compared=3, ranked=3)).agreement == 0.0


def test_equal_outputs_have_the_largest_figure_that_can_be_told():
    found = ReferenceFigures.of(counters(compared=1_000_000, ranked=1, agreed=1))
    assert found.sqnr_db == pytest.approx(93.01, abs=0.01)
    assert (found.cosine, found.agreement) == (1.0, 1.0)
