"""The whole life of a version: promotion, burn-in, reference, watching; in simulation.

A traffic of correlated, heavy-tailed points is calibrated, drifts, is repaired with selected
samples and goes on. What alarms in how many lives is counted, through the functions that judge real
windows. The mutants take the bounds of selected samples as if they were of random units.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from calidrift_agent._profile import (
    CalibrationProfile,
    Fingerprint,
    ObservedBound,
    PointProfile,
    ReferenceOrigin,
)
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument, ReferenceSource
from calidrift_analyzer.assess import AssessRules
from calidrift_analyzer.assess._intervals import interval
from calidrift_analyzer.assess._sequential import evidence_of
from calidrift_analyzer.assess._service_level import service_levels
from calidrift_analyzer.records import ModelHistory, ObservedUnits, PointUnits
from calidrift_analyzer.reference import learn

ALPHA = 0.05
POINTS = tuple(f"p{number}:input" for number in range(5))
REFERENCE = 250
"""Not a multiple of the window: the reference is of the 256 units of whole windows."""
WINDOW = 8
WATCHED = 1_200
SECOND = 1_000_000_000


def traffic(rng, units):
    """Absmax of each unit at each point: log-normal, half of it shared by all points."""
    shared = rng.normal(size=(units, 1))
    return np.exp(0.6 * (0.7 * shared + 0.7 * rng.normal(size=(units, len(POINTS)))))


def profile_of(bounds, units, source=ReferenceSource.PROVISIONAL):
    return CalibrationProfile(
        points={
            name: PointProfile(name, observed_bound=ObservedBound(value, 1, units, (value,)))
            for name, value in zip(POINTS, map(float, bounds), strict=True)
        },
        units=units,
        instrument=Instrument.RANGE,
        fingerprint=Fingerprint(),
        created="2030-01-01T00:00:00+00:00",
        reference=ReferenceOrigin(source=source),
    )


def history(peaks, profile):
    """Windows of units, held against the bounds of a profile as agents do it."""
    windows = peaks[: len(peaks) // WINDOW * WINDOW].reshape(-1, WINDOW, len(POINTS))
    bounds = [one.observed_bound.value for one in profile.points.values()]
    above = windows > bounds
    count = len(windows)
    return ModelHistory(
        model="net",
        profile=profile.digest,
        points=POINTS,
        end_ns=np.arange(1, count + 1) * SECOND,
        seen=np.full(count, WINDOW),
        request_units=np.full(count, WINDOW),
        request_covered=WINDOW - above.any(axis=2).sum(axis=1),
        units=np.full((count, len(POINTS)), WINDOW),
        exceedances=above.sum(axis=1),
    )


def first_units(peaks, profile):
    """The first whole windows with enough units: their number and their largest absmax only."""
    units = -(-REFERENCE // WINDOW) * WINDOW
    return ObservedUnits(
        model="net",
        profile=profile.digest,
        instrument=Instrument.RANGE,
        wanted=REFERENCE,
        units=units,
        measured=units,
        began_ns=SECOND,
        until_ns=2 * SECOND,
        first_ns=SECOND,
        last_ns=2 * SECOND,
        windows=units // WINDOW,
        coarse_windows=0,
        points=tuple(
            PointUnits(name, units, 0, float(peaks[:units, row].max()), MagnitudeSketch())
            for row, name in enumerate(POINTS)
        ),
    )


@dataclass
class Outcome:
    """Whether the tolerance alarm spoke in the burn-in, and the evidence after it; and when."""

    tolerated: bool
    alarm: int | None

    @property
    def calm(self):
        return self.tolerated and self.alarm is None


def evidence(peaks, profile):
    """Units until any point alarms; None where none does."""
    log_threshold = math.log(len(POINTS) / ALPHA)
    looks = history(peaks, profile)
    found = [
        evidence_of(looks, name, point.observed_bound, log_threshold).alarm
        for name, point in profile.points.items()
    ]
    return min((one.observed for one in found if one is not None), default=None)


def within_tolerance(peaks, profile):
    levels = service_levels(history(peaks, profile), profile, AssessRules(alpha=ALPHA))
    return all(level.breach is None for level in levels)


def live(provisional, peaks):
    """One life: burn-in under the provisional profile, then watching under the learned one."""
    profile = profile_of(provisional, 512)
    observed = first_units(peaks, profile)
    learned = learn(observed, profile)
    return Outcome(
        within_tolerance(peaks[: observed.units], profile),
        evidence(peaks[observed.units :], learned),
    )


def selected(rng, pool=4_000):
    """Bounds of 448 units of dim traffic and the 64 largest of so many units of this one."""
    dim, pool = traffic(rng, 448) / 8.0, traffic(rng, pool)
    chosen = pool[np.argsort(pool.max(axis=1))[-64:]]
    return np.concatenate([dim, chosen]).max(axis=0)


def mixed(rng):
    """Bounds of 448 units of dim traffic and 64 of this one: 512 in name, 64 in fact."""
    return np.concatenate([traffic(rng, 448) / 8.0, traffic(rng, 64)]).max(axis=0)


def test_without_drift_a_life_is_calm(record_property):
    rng = np.random.default_rng(20)
    lives = [live(selected(rng), traffic(rng, 256 + WATCHED)) for _ in range(400)]
    alarmed = sum(not one.calm for one in lives)
    bound = interval(alarmed, len(lives)).high
    record_property("false alarms", f"{alarmed} of {len(lives)} lives, at most {bound:.1%} (95 %)")
    assert bound <= ALPHA, f"{alarmed} of {len(lives)} lives, at most {bound:.1%}"


def test_the_law_notices_selected_units_that_pass_for_random_ones():
    # Too few of them are of this traffic: it cries wolf, far more often than promised.
    rng = np.random.default_rng(21)
    profiles = (profile_of(mixed(rng), 512, ReferenceSource.CALIBRATION) for _ in range(100))
    alarmed = sum(evidence(traffic(rng, WATCHED), profile) is not None for profile in profiles)
    assert interval(alarmed, 100).low > 2 * ALPHA


def test_extreme_samples_that_pass_for_random_ones_miss_drift():
    rng = np.random.default_rng(22)
    missed = found = 0
    for _ in range(40):
        bounds, calm = selected(rng, 40_000), traffic(rng, 256)
        drifted = 2.5 * traffic(rng, WATCHED)
        mutant = profile_of(bounds, 512, ReferenceSource.CALIBRATION)
        missed += evidence(drifted, mutant) is None
        found += live(bounds, np.concatenate([calm, drifted])).alarm is not None
    assert found >= 36
    assert missed >= 20


def test_drift_in_the_burn_in_is_found_by_the_tolerance_alarm():
    rng = np.random.default_rng(23)
    lives = []
    for _ in range(40):
        burn = np.concatenate([traffic(rng, 128), 4.0 * traffic(rng, 128)])
        lives.append(live(selected(rng), np.concatenate([burn, traffic(rng, 80)])))
    assert sum(not one.tolerated for one in lives) == 40


def test_drift_after_it_is_found_by_the_evidence():
    rng = np.random.default_rng(24)
    delays = []
    for _ in range(40):
        peaks = np.concatenate([traffic(rng, 256 + 200), 3.0 * traffic(rng, 1_000)])
        delays.append(live(selected(rng), peaks).alarm)
    assert None not in delays
    assert np.median(delays) - 200 <= 80


@pytest.mark.parametrize("wrong", ["rank", "units"])
def test_the_law_notices_a_reference_that_claims_too_much(wrong, monkeypatch):
    """Planted mutants of `learn`: the second largest as the largest, or ten times the units."""
    rng = np.random.default_rng(25)

    def mutate(peaks):
        profile = profile_of(selected(rng), 512)
        learned = learn(first_units(peaks, profile), profile)
        tops = np.sort(peaks[:256], axis=0)[::-1]
        if wrong == "rank":
            return profile_of(tops[7], 256, ReferenceSource.CALIBRATION)
        bounds = [one.observed_bound.value for one in learned.points.values()]
        return profile_of(bounds, 2_560, ReferenceSource.CALIBRATION)

    alarmed = 0
    for _ in range(60):
        peaks = traffic(rng, 256 + WATCHED)
        alarmed += evidence(peaks[256:], mutate(peaks)) is not None
    assert interval(alarmed, 60).low > ALPHA
