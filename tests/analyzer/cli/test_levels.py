"""Lines about all traffic: many broken segments, noise, days of the week; and the wide cells."""

from dataclasses import replace

import pytest

from calidrift_analyzer.cli._explained import _level, _octaves, limit_lines
from calidrift_analyzer.cli._levels import harm_line, level_lines, season_line
from calidrift_analyzer.records import (
    Breach,
    HarmLoss,
    Interval,
    MeasuredHarm,
    ModelAssessment,
    ReturnLevel,
    Season,
    Seasons,
    ServiceLevel,
    Verdict,
)

MOMENT = 1_800_000_000 * 10**9
MODEL = ModelAssessment(
    model="net",
    profile="p",
    instrument=None,
    verdict=Verdict.NOT_DRIFTED,
    sentence="",
    next_step="",
    points=(),
    alpha=0.05,
    log10_threshold=2.0,
    units=100,
    served=1000,
)
LEVEL = ServiceLevel(
    segment=None,
    units=100,
    outside=5,
    share=Interval(0.05, 0.01, 0.12),
    declared=0.01,
    tolerance=0.01,
    log10_evidence=3.0,
    log10_threshold=2.0,
    breach=Breach(MOMENT, 100, 5),
    changes_ns=(MOMENT,),
    units_to_breach=10,
)
HARM = MeasuredHarm(
    loss=HarmLoss.NOISE,
    units=1_200,
    total=1.2,
    mean=Interval(0.001, 0.0, 0.01),
    recent=None,
    tolerance=0.05,
    log10_evidence=0.0,
    log10_threshold=1.3,
    breach=None,
    units_to_breach=294,
)


def test_of_many_broken_segments_three_have_a_line():
    segments = tuple(replace(LEVEL, segment=f"s{number}") for number in range(5))
    lines = list(level_lines(replace(MODEL, service_levels=(LEVEL, *segments))))
    assert [line.split(":")[0] for line in lines[:4]] == [
        "service level, all traffic",
        *(f"service level, segment s{number}" for number in range(3)),
    ]
    assert lines[4:] == ["and 2 more segments break the service level"]


def test_a_narrow_line_leaves_the_long_figures_out():
    model = replace(MODEL, service_levels=(LEVEL,))
    (wide,), (narrow,) = level_lines(model), level_lines(model, wide=False)
    for figure in ("between 1 % and 12 % at all looks", "last raised 2027-01-15"):
        assert figure in wide
        assert figure not in narrow
    assert "BROKEN since 2027-01-15 08:00:00 UTC (5 of 100 units then)" in narrow


def test_what_is_tolerated_of_single_segments_is_told():
    calm = replace(LEVEL, breach=None, changes_ns=())
    segments = (
        replace(calm, segment="rare", tolerance=1.0),
        replace(calm, segment="night", tolerance=0.085, reference_units=30),
        replace(calm, segment="new", tolerance=0.4),
        replace(calm, segment="day", reference_units=479),
    )
    model = replace(MODEL, service_levels=(LEVEL, *segments))
    for wide in (True, False):
        assert list(level_lines(model, wide=wide))[1:] == [
            "tolerated of single segments: day 1 %, night 8.5 % (30 reference units), new 40 %, "
            "rare any share"
        ]
    few = replace(MODEL, service_levels=(LEVEL, segments[-1]))
    assert len(list(level_lines(few, wide=False))) == 1  # as declared: nothing to tell
    assert list(level_lines(few))[1:] == ["tolerated of single segments: day 1 %"]
    many = tuple(replace(calm, segment=f"s{number}") for number in range(10))
    (line,) = list(level_lines(replace(MODEL, service_levels=(LEVEL, *many))))[1:]
    assert line.endswith("s7 1 %, and 2 more: --json")
    nothing = replace(calm, tolerance=1.0, reference_units=3)
    (line,) = level_lines(replace(MODEL, service_levels=(nothing,)), wide=False)
    assert "tolerated: any share (the reference is too small to promise less)" in line


def test_noise_and_what_would_be_found():
    assert harm_line(HARM) == (
        "measured beside FP32: noise of 0.1 % of the signal in the outputs, between 0 % and 1 % at "
        "all looks (1,200 compared); tolerated: 5 %; twice that would be found after about 294"
    )
    assert harm_line(HARM, wide=False) == (
        "measured beside FP32: noise of 0.1 % of the signal in the outputs (1,200 compared); "
        "tolerated: 5 %"
    )


def test_the_worst_day_stands_beside_the_worst_hour():
    found = Seasons(worst_hour=Season(23, 10, 1), worst_weekday=Season(6, 50, 2))
    assert season_line(found) == (
        "worst hour 23:00-00:00 UTC: 10 % of 10 units leave a range; worst day Sunday: 4 % of 50 "
        "units leave a range (a description, no alarm)"
    )
    assert season_line(Seasons()) is None


def test_points_that_stand_out_are_told_as_long_as_nothing_alarms():
    told = list(limit_lines(replace(MODEL, standing_out=("a:input",))))
    assert told == ["look first at a:input: they stand out now (a list for looking, no alarm)"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), (0.01, "0.0"), (-1.25, "-1.2"), (2.0, "+2.0")]
)
def test_octaves_have_a_sign(value, text):
    assert _octaves(value) == text


def test_an_advisory_level_has_its_interval_relative_to_the_bound():
    found = ReturnLevel(
        requests=10**6, level=3.0, low=2.5, high=9.0, shape=0.1, threshold=1.8, above=60, units=600
    )
    assert _level(found, 2.0) == "1.5 (1.2 to 4.5)"
    assert _level(None, 2.0) is None
    assert _level(found, None) is None


def test_what_was_compared_before_a_drift_is_said_to_be_that():
    assert "; none compared since the drift began (1,200 compared)" in harm_line(HARM, drifted=True)
    since = replace(HARM, recent=Interval(0.2, 0.1, 0.3))
    assert "; since the drift began 20 % (1,200 compared)" in harm_line(since, drifted=True)
