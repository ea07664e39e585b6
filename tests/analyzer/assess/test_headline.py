"""The first sentence: which segment it names, what comes first, and what to do."""

from dataclasses import replace

import pytest

from calidrift_analyzer.assess._headline import Headline
from calidrift_analyzer.records import (
    Alarm,
    Breach,
    HarmBreach,
    HarmLoss,
    Interval,
    MeasuredHarm,
    PointAssessment,
    ServiceLevel,
    Verdict,
)

MOMENT = 1_800_000_000 * 10**9
ALARM = Alarm(MOMENT, MOMENT - 10**9, 10, 5, 10, 100)
DRIFTED = PointAssessment(
    name="a:input",
    verdict=Verdict.DRIFTED_HARMFUL,
    sentence="",
    next_step="repair",
    units=10,
    exceedances=5,
    alarm=ALARM,
    sqnr_change_db=-7.0,
)
CALM = replace(
    DRIFTED, name="b:input", verdict=Verdict.NOT_DRIFTED, alarm=None, next_step="nothing to do"
)


def level(segment, units, outside, *, broken):
    return ServiceLevel(
        segment=segment,
        units=units,
        outside=outside,
        share=None,
        declared=0.01,
        tolerance=0.01,
        log10_evidence=0.0,
        log10_threshold=2.0,
        breach=Breach(MOMENT, units, outside) if broken else None,
        changes_ns=(),
        units_to_breach=None,
    )


def headline(*points, levels=(), harm=None, verdict=None, errors=False):
    return Headline(
        verdict=verdict or points[0].verdict,
        points=points,
        alarm=next((one.alarm for one in points if one.alarm), None),
        levels=levels,
        harm=harm,
        why_not="",
        uncollected="",
        errors=errors,
    )


def measured(mean, *, low=0.0, high=1.0, broken=False, recent=None):
    return MeasuredHarm(
        loss=HarmLoss.DISAGREEMENT,
        units=100,
        total=100 * mean,
        mean=Interval(mean, low, high),
        recent=recent,
        tolerance=0.05,
        log10_evidence=0.0,
        log10_threshold=1.3,
        breach=HarmBreach(MOMENT, 50, 10.0) if broken else None,
        units_to_breach=None,
    )


NIGHT = level("night", 20, 10, broken=True)
WHOLE = level(None, 1000, 11, broken=False)


def test_a_drift_of_one_segment_is_told_as_one():
    said = headline(DRIFTED, CALM, levels=(WHOLE, NIGHT)).sentence
    assert said.startswith("segment night (2 % of the traffic; the rest is in order) left")


@pytest.mark.parametrize(
    "levels",
    [
        (WHOLE,),
        (WHOLE, level("night", 20, 1, broken=False)),
        (WHOLE, NIGHT, level("day", 100, 5, broken=True)),
        # The rest of the traffic leaves the ranges as well, beyond what is tolerated.
        (level(None, 1000, 60, broken=True), NIGHT),
        # Most of what is outside is not of that segment.
        (level(None, 10_000, 40, broken=False), NIGHT),
        # There is no other traffic.
        (level(None, 20, 10, broken=True), NIGHT),
        (),
    ],
)
def test_a_drift_of_all_traffic_names_no_segment(levels):
    assert headline(DRIFTED, levels=levels).sentence.startswith("traffic left")


def test_it_says_where_how_bad_and_since_when():
    said = headline(DRIFTED, CALM).sentence
    assert "at 1 point of 2, with harm, since about 2027-01-15 07:59:59 UTC" in said
    assert "predicted at a:input: SQNR fell by 7.0 dB" in said
    both = headline(DRIFTED, replace(DRIFTED, name="c:input")).sentence
    assert "at 2 points of 2, 2 of them with harm" in both


def test_what_was_measured_comes_before_what_is_predicted():
    broken = measured(0.2, broken=True, recent=Interval(0.2, 0.1, 0.3))
    said = headline(DRIFTED, harm=broken).sentence
    assert said.index("20 % of the answers differ from FP32 since then (measured; 5 % tole") < (
        said.index("predicted at")
    )
    assert headline(DRIFTED, harm=broken).next_step == "repair"

    kept = measured(0.001, high=0.02, recent=Interval(0.001, 0.0, 0.02))
    said = headline(DRIFTED, harm=kept).sentence
    assert "by prediction, but not in the answers" in said
    assert "predicted at a:input" in said
    assert headline(DRIFTED, harm=kept).next_step.startswith("without haste")

    few = measured(0.0, high=0.02, recent=Interval(0.0, 0.0, 0.5))
    assert "too few to tell" in headline(DRIFTED, harm=few).sentence
    # Calm traffic before the drift must not make the answers look good.
    late = measured(0.001, high=0.02, recent=Interval(0.3, 0.1, 0.6))
    said = headline(DRIFTED, harm=late).sentence
    assert "30 % of the answers differ from FP32 since then" in said
    assert "by prediction" not in said


def test_calm_points_do_not_hide_a_broken_segment_or_harm():
    broken = headline(CALM, levels=(WHOLE, NIGHT, level("x", 5, 5, broken=True)))
    assert broken.sentence.startswith("segment night (and 1 more) breaks the service level since")
    assert "10 of 20 units left a range, 1 % tolerated" in broken.sentence
    assert "no alarm at any point yet" in broken.sentence
    assert "segment night" in broken.next_step
    assert "calidrift coverage" in broken.next_step

    whole = headline(CALM, levels=(level(None, 100, 9, broken=True),))
    assert whole.sentence.startswith("all traffic breaks the service level since")
    assert "this traffic" in whole.next_step

    harmed = headline(CALM, harm=measured(0.2, broken=True))
    assert harmed.sentence.startswith("20 % of the answers differ from FP32")
    assert "calidrift recalibrate" in harmed.next_step
    assert headline(CALM, harm=measured(0.0)).next_step == "nothing to do"
    assert "answers" not in headline(CALM, harm=measured(0.0)).sentence


def test_a_level_that_is_kept_again_is_told_in_the_past():
    """A breach is for ever; what is tolerated by now is not called broken."""
    calm = replace(level(None, 12_000, 47, broken=True), breach=Breach(MOMENT, 1_000, 27))
    found = headline(CALM, levels=(calm,))
    assert found.sentence.startswith(
        "all traffic broke the service level on 2027-01-15 08:00:00 UTC (27 of 1,000 units then); "
        "0.39 % overall, 1 % tolerated"
    )
    assert "what this traffic was until 2027-01-15 08:00:00 UTC" in found.next_step
    # What is still broken is told before it.
    both = headline(CALM, levels=(calm, replace(calm, segment="day"), NIGHT))
    assert both.sentence.startswith("segment night (and 1 more) breaks the service level since")


def test_a_segment_that_no_alarm_can_be_raised_about_is_named():
    lost = replace(
        level("night", 200, 200, broken=False), tolerance=1.0, share=Interval(1.0, 0.95, 1.0)
    )
    found = headline(CALM, levels=(WHOLE, lost))
    assert found.sentence == (
        "no alarm at any point yet; segment night: 200 of 200 units left a range, and the "
        "reference has too few units of it to tell whether that is new"
    )
    assert found.next_step.startswith("look with `calidrift coverage` which points segment night")
    more = headline(CALM, levels=(WHOLE, replace(lost, segment="day", outside=150), lost))
    assert "segment night (and 1 more): 200 of 200" in more.sentence


@pytest.mark.parametrize(
    "other",
    [
        {"share": Interval(0.3, 0.05, 0.6)},  # not surely far more than is declared
        {"tolerance": 0.01},  # an alarm can be raised about it
        {"breach": Breach(MOMENT, 5, 5)},  # and was
        {"share": None},
    ],
)
def test_other_segments_are_not_named_without_an_alarm(other):
    lost = replace(
        level("night", 200, 60, broken=False), tolerance=0.5, share=Interval(0.3, 0.2, 0.4)
    )
    assert "night: 60 of 200" in headline(CALM, levels=(WHOLE, lost)).sentence
    assert "too few" not in headline(CALM, levels=(WHOLE, replace(lost, **other))).sentence


def test_answers_compared_before_a_drift_say_nothing_about_it():
    before = measured(0.0, high=0.01)
    found = headline(DRIFTED, harm=before)
    assert "no answer was compared with FP32 since the drift began" in found.sentence
    assert "kept" not in found.sentence
    assert "not in the answers" not in found.sentence
    assert found.next_step == "repair"
    broken = headline(DRIFTED, harm=measured(0.01, broken=True)).sentence
    assert "broke on 2027-01-15 08:00:00 UTC (10 of 50 then, measured); no answer was" in broken


def test_a_breach_that_stays_is_told_with_its_date():
    calm = measured(0.01, broken=True)
    found = headline(CALM, harm=calm)
    assert found.sentence.startswith(
        "the tolerated 5 % of answers that differ from FP32 broke on 2027-01-15 08:00:00 UTC "
        "(10 of 50 then, measured); 1 % overall"
    )
    assert "yet INT8 answers differ" not in found.next_step
    assert "what was served until 2027-01-15 08:00:00 UTC" in found.next_step
    noise = replace(calm, loss=HarmLoss.NOISE)
    assert "the tolerated 5 % of noise in the outputs broke" in headline(CALM, harm=noise).sentence
    since = measured(0.01, broken=True, recent=Interval(0.002, 0.0, 0.01))
    assert "; 0.2 % since the drift began; predicted" in headline(DRIFTED, harm=since).sentence


def test_nan_is_never_harm_by_prediction_only():
    kept = measured(0.0, recent=Interval(0.0, 0.0, 0.01))
    found = headline(replace(DRIFTED, nan_elements=3, sqnr_change_db=0.0), harm=kept)
    assert "by prediction" not in found.sentence
    assert "predicted at a:input (finite values only): SQNR stayed the same" in found.sentence
    assert "NaN or Inf at 1 point of 1, and what that costs cannot be predicted" in found.sentence
    assert found.next_step == "repair"


def test_a_drift_that_ended_is_told_to_have_ended():
    over = replace(DRIFTED, ended_ns=MOMENT + 10**9)
    said = headline(over, CALM).sentence
    assert "07:59:59 UTC; inside the range again since about 2027-01-15 08:00:01 UTC; " in said
    assert "inside the range again" not in headline(over, replace(DRIFTED, name="c")).sentence


def test_noise_is_told_as_noise():
    noise = replace(measured(0.2, broken=True), loss=HarmLoss.NOISE)
    assert "outputs carry 20 % noise against FP32" in headline(CALM, harm=noise).sentence


def test_nan_comes_before_a_broken_level_in_what_to_do():
    sick = replace(CALM, nan_elements=3, next_step="find the NaN")
    found = headline(sick, levels=(WHOLE, NIGHT))
    assert found.next_step == "find the NaN"
    assert "NaN or Inf at 1 point of 1" in found.sentence
