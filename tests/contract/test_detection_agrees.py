"""What the agent promises about detection is what the analyzer does."""

import math

import numpy as np
import pytest

from calidrift_agent._watch import _detection as agent
from calidrift_agent._watch._detection import ReferenceUnits
from calidrift_analyzer.assess import log_evidence, smallest_detectable, units_to_alarm

REFERENCES = [(1, 8), (1, 128), (1, 512), (2, 300), (5, 512), (20, 1000), (3, 3), (1, 1)]
LEVELS = [math.log(1 / 0.05), math.log(50 / 0.05), math.log(2000 / 0.05)]


@pytest.mark.parametrize(("rank", "units"), REFERENCES)
def test_evidence(rank, units):
    rng = np.random.default_rng(rank * 1000 + units)
    seen = np.concatenate([[1, 2, 3, 10], rng.integers(1, 100_000, 60)]).astype(float)
    exceeding = seen * rng.choice([0.0, 0.001, 0.01, 0.03, 0.2, 1.0], seen.size)
    wanted = log_evidence(exceeding, seen, rank=rank, reference_units=units)
    found = [
        agent.log_evidence(s, t, ReferenceUnits(rank, units))
        for s, t in zip(exceeding, seen, strict=True)
    ]
    finite = np.isfinite(wanted)  # scipy's tail underflows where ours is a logarithm
    assert finite.sum() > 40
    assert np.allclose(np.array(found)[finite], wanted[finite], rtol=1e-6, atol=1e-5)
    assert (np.array(found)[~finite] < -300).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("rank", "units"), REFERENCES)
def test_smallest_detectable(rank, units, level):
    wanted = smallest_detectable(rank, units, level)
    found = agent.smallest_detectable(ReferenceUnits(rank, units), level)
    assert found == pytest.approx(wanted) if wanted is not None else found is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rate", [0.005, 0.03, 0.1, 1.0])
@pytest.mark.parametrize(("rank", "units"), REFERENCES)
def test_units_to_alarm(rank, units, rate, level):
    wanted = units_to_alarm(rate, rank=rank, reference_units=units, log_threshold=level)
    assert agent.units_to_alarm(rate, ReferenceUnits(rank, units), level) == wanted


def test_a_wrong_formula_would_be_seen(monkeypatch):
    """Planted mutant: the mode of the reference left out of the tail."""
    real = agent._log_upper_tail
    monkeypatch.setattr(agent, "_log_upper_tail", lambda a, b, x: real(a, b, x / 2))
    wanted = float(log_evidence(4, 600, rank=5, reference_units=512))
    assert abs(agent.log_evidence(4, 600, ReferenceUnits(5, 512)) - wanted) > 1e-3
