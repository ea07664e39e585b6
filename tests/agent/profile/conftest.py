"""A profile with every kind of point."""

import numpy as np
import pytest

from calidrift_agent._profile import (
    CalibrationProfile,
    ClipBound,
    Fingerprint,
    ObservedBound,
    PointProfile,
)
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument

CREATED = "2030-01-31T12:00:00+00:00"


def sketch_of(seed: int) -> MagnitudeSketch:
    sketch = MagnitudeSketch()
    values = np.random.default_rng(seed).standard_normal(1000).astype(np.float32)
    sketch.update(np.append(values, np.float32([np.nan, np.inf, 0.0, 1e-30, 1e30])))
    return sketch


def observed_points() -> list[PointProfile]:
    return [
        PointProfile("stem:input", None, ObservedBound.from_absmax([0.1, 1 / 3]), sketch_of(1)),
        PointProfile("head:input", None, ObservedBound.from_absmax([2.5]), sketch_of(2)),
        PointProfile("dead:input"),
    ]


def range_points() -> list[PointProfile]:
    return [
        PointProfile("stem:input", ClipBound.of_quantizer(0.1 / 3, 3, 0, 255, "uint8")),
        PointProfile(
            "block.add:input",
            ClipBound.of_quantizer(0.07, 3, 0, 127, "uint8"),
            aliases=("head:input",),
        ),
    ]


def profile_of(points, units=0, instrument=Instrument.RANGE, **fingerprint) -> CalibrationProfile:
    return CalibrationProfile(
        points={point.name: point for point in points},
        units=units,
        instrument=instrument,
        fingerprint=Fingerprint(**fingerprint),
        created=CREATED,
    )


@pytest.fixture
def observed() -> CalibrationProfile:
    return profile_of(
        observed_points(), units=2, weights="aa", graph="bb", data="set", versions={"torch": "2"}
    )


@pytest.fixture
def ranges() -> CalibrationProfile:
    return profile_of(range_points(), weights="cc", graph="dd", isa="avx2")


@pytest.fixture
def full(observed) -> CalibrationProfile:
    """Every field filled in at least one point."""
    rails = PointProfile(
        "fc:input",
        ClipBound.of_quantizer(0.1, 128, 0, 255, "uint8"),
        ObservedBound.from_absmax([1e-9, 7.0], rank=2),
        sketch_of(3),
        rail_low_rate=1 / 3,
        rail_high_rate=0.0,
        aliases=("fc2:input", "größe:input"),
    )
    return profile_of(
        [*observed.points.values(), rails],
        units=2,
        instrument=Instrument.CLIP,
        weights="aa",
        preprocessing="p",
        versions={"torch": "2.13", "calidrift": "0.1"},
        isa="avx2",
    )


@pytest.fixture
def make_profile():
    """The function `profile_of`."""
    return profile_of
