"""Units of production by hand, and a life after a promotion through the real store."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from calidrift_agent._profile import CalibrationProfile, ReferenceOrigin
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument, ReferenceSource
from calidrift_analyzer.records import ObservedUnits, PointUnits

PROVISIONAL = ReferenceOrigin(source=ReferenceSource.PROVISIONAL)
SECOND = 1_000_000_000
EPOCH = 1_900_000_000 * SECOND


@dataclass
class Production:
    """What the first units under a profile showed."""

    profile: CalibrationProfile

    def observed(self, units=512, wanted=512, measured=None, points=None, **changes):
        sketch = MagnitudeSketch()
        sketch.update(np.linspace(-3, 3, 500, dtype=np.float32))
        if points is None:
            points = [PointUnits(name, units, 0, 2.5, sketch) for name in self.profile.points]
        measured = units if measured is None else measured
        fields = {
            "model": "net",
            "profile": self.profile.digest,
            "instrument": Instrument.RANGE,
            "wanted": wanted,
            "units": units,
            "measured": measured,
            "began_ns": EPOCH if measured else 0,
            "until_ns": EPOCH + 2 * measured * SECOND,
            "first_ns": EPOCH if units else 0,
            "last_ns": EPOCH + 2 * units * SECOND,
            "windows": units // 8,
            "coarse_windows": 0,
            "points": tuple(points),
        }
        return ObservedUnits(**{**fields, **changes})


@pytest.fixture
def calibrated(traffic):
    values = {name: traffic.rng.normal(size=(64, 16)) for name in ("a:input", "b:input")}
    return traffic.profile(values)


@pytest.fixture
def ranges(calibrated):
    """Ranges only, as they come out of a graph."""
    points = {
        name: replace(one, observed_bound=None, sketch=None)
        for name, one in calibrated.points.items()
    }
    return replace(calibrated, points=points, units=0)


@pytest.fixture
def provisional(calibrated):
    """As recalibration leaves it."""
    return replace(calibrated, reference=PROVISIONAL)


@pytest.fixture
def production():
    return Production
