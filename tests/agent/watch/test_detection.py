"""When an exceedance would be detected, said beforehand."""

import math
from dataclasses import replace

import pytest

from calidrift_agent._vocabulary import Instrument, Strategy
from calidrift_agent._watch import AttachReport, Reference
from calidrift_agent._watch._detection import (
    ReferenceUnits,
    _log_upper_tail,
    log_evidence,
    slowest_detection,
    smallest_detectable,
    units_to_alarm,
)
from calidrift_agent.errors import ConfigurationError

REPORT = AttachReport(
    model="net",
    points=("a", "b"),
    observed=(),
    skipped={},
    strategy=Strategy.INSTEAD,
    instrument=Instrument.RANGE,
    reference=Reference.OBSERVED,
    active=True,
    sampling_ratio=0.01,
    observed_calls=0,
    state_file=None,
    notes=(),
    references=(ReferenceUnits(1, 2000), ReferenceUnits(1, 4000)),
)


def test_the_time_follows_traffic_and_ratio():
    seconds = REPORT.detection_seconds(100.0)
    units = slowest_detection(REPORT.references, 0.01)
    assert seconds == units / (100.0 * 0.01)
    assert REPORT.detection_seconds(200.0) == pytest.approx(seconds / 2)
    assert replace(REPORT, sampling_ratio=0.1).detection_seconds(100.0) == pytest.approx(
        seconds / 10
    )
    assert REPORT.detection_seconds(100.0, exceedance=0.5) < seconds


def test_the_slowest_point_counts():
    level = math.log(2 / 0.05)
    assert slowest_detection(REPORT.references, 0.01) == max(
        units_to_alarm(0.01, one, level) for one in REPORT.references
    )


def test_what_is_too_small_for_the_reference_is_never_detected():
    report = replace(REPORT, references=(ReferenceUnits(1, 512),))
    assert report.detection_seconds(1000.0) is None
    assert report.detectable_exceedance == pytest.approx(0.0179, abs=1e-4)
    just = report.detectable_exceedance
    assert report.detection_seconds(1000.0, just * 1.01) is not None
    assert report.detection_seconds(1000.0, just * 0.99) is None


def test_no_reference_no_observation_no_time():
    bare = replace(REPORT, references=())
    assert bare.detection_seconds(10.0) is None
    assert bare.detectable_exceedance is None
    assert replace(REPORT, sampling_ratio=0.0).detection_seconds(10.0) is None
    # k = n tells nothing, and one such point is the slowest of all.
    dull = replace(REPORT, references=(ReferenceUnits(1, 2000), ReferenceUnits(3, 3)))
    assert dull.detection_seconds(10.0, 1.0) is None
    assert dull.detectable_exceedance is None


@pytest.mark.parametrize("traffic", [0.0, -1.0, math.inf, math.nan])
def test_traffic_that_is_none_is_refused(traffic):
    with pytest.raises(ConfigurationError, match=r"requests_per_second is .* number above 0"):
        REPORT.detection_seconds(traffic)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_an_exceedance_that_is_no_share_is_refused(share):
    with pytest.raises(ConfigurationError, match=r"exceedance is .* share of the units"):
        REPORT.detection_seconds(10.0, share)


def test_evidence_that_cannot_grow():
    assert log_evidence(5, 10, ReferenceUnits(4, 4)) == 0.0
    assert smallest_detectable(ReferenceUnits(4, 4), 3.0) is None
    assert units_to_alarm(1.0, ReferenceUnits(4, 4), 3.0) is None


def test_the_upper_tail_of_known_distributions():
    # beta(1, b): (1 - x)^b; beta(a, 1): 1 - x^a.
    for x in (0.01, 0.3, 0.9):
        assert _log_upper_tail(1.0, 7.5, x) == pytest.approx(7.5 * math.log1p(-x))
        assert _log_upper_tail(3.0, 1.0, x) == pytest.approx(math.log1p(-(x**3)))
    assert _log_upper_tail(50.0, 1e6, 0.9) < -1e5
