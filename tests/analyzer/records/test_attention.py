"""What mutes and markers decide, on assessments made by hand."""

from dataclasses import replace

import pytest

from calidrift_analyzer.records import (
    Alarm,
    Marker,
    ModelAssessment,
    Mute,
    PointAssessment,
    Verdict,
    alarm_in_force,
    annotated,
    needs_action,
    read_record,
    record_document,
)

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
DAY = 86_400 * SECOND


def point(name, verdict, observed=100) -> PointAssessment:
    drifted = verdict in (Verdict.DRIFTED_HARMFUL, Verdict.DRIFTED_HARMLESS)
    return PointAssessment(
        name=name,
        verdict=verdict,
        sentence="s",
        next_step="n",
        units=200,
        exceedances=50,
        log10_evidence=9.0,
        alarm=Alarm(NOW + 60 * SECOND, NOW, 50, 10, observed, 1000) if drifted else None,
    )


def model(*points, verdict=Verdict.DRIFTED_HARMFUL, first_ns=0) -> ModelAssessment:
    alarms = [one.alarm for one in points if one.alarm is not None]
    return ModelAssessment(
        model="net",
        profile="p",
        instrument=None,
        verdict=verdict,
        sentence="s",
        next_step="n",
        points=points,
        alpha=0.05,
        log10_threshold=2.0,
        units=200,
        served=1000,
        alarm=min(alarms, key=lambda one: one.observed) if alarms else None,
        first_ns=first_ns,
    )


def mute(what, until=NOW + DAY) -> Mute:
    return Mute(model="net", point=what, created_ns=NOW, until_ns=until, reason="why", author="eve")


DRIFTED = model(
    point("fc:input", Verdict.DRIFTED_HARMFUL),
    point("conv1:input", Verdict.DRIFTED_HARMFUL, observed=300),
    point("conv2:input", Verdict.DRIFTED_HARMLESS, observed=200),
)


class TestMutes:
    def test_without_any_every_alarm_counts(self):
        found = annotated(DRIFTED, [], [])
        assert found == DRIFTED
        assert needs_action(found)
        assert alarm_in_force(found).observed == 100

    def test_one_point_leaves_the_others(self):
        found = annotated(DRIFTED, [mute("fc:input")], [])
        assert needs_action(found)
        assert alarm_in_force(found).observed == 200
        assert found.point("fc:input").muted == mute("fc:input")
        assert found.point("conv1:input").muted is None

    def test_figures_verdicts_and_alarms_stay_what_they_are(self):
        found = annotated(DRIFTED, [mute(None)], [])
        assert (found.verdict, found.alarm) == (DRIFTED.verdict, DRIFTED.alarm)
        for before, after in zip(DRIFTED.points, found.points, strict=True):
            assert (before.verdict, before.alarm) == (after.verdict, after.alarm)
            assert before.log10_evidence == after.log10_evidence

    def test_harmful_points_muted_harmless_ones_ask_for_nothing(self):
        found = annotated(DRIFTED, [mute("fc:input"), mute("conv1:*")], [])
        assert not needs_action(found)
        assert alarm_in_force(found).observed == 200, "the harmless alarm is still exported"

    def test_a_pattern_over_all_and_the_whole_model_silence_it(self):
        for what in ("*", None):
            found = annotated(DRIFTED, [mute(what)], [])
            assert not needs_action(found)
            assert alarm_in_force(found) is None
        assert annotated(DRIFTED, [mute("*")], []).muted is None
        assert annotated(DRIFTED, [mute(None)], []).muted == mute(None)

    def test_of_several_the_one_that_ends_last_is_shown(self):
        late = mute("fc:*", until=NOW + 9 * DAY)
        found = annotated(DRIFTED, [mute("fc:input"), late, mute(None)], [])
        assert found.point("fc:input").muted == late

    def test_a_verdict_that_no_point_explains_is_muted_with_the_model_alone(self):
        odd = model(point("fc:input", Verdict.NOT_DRIFTED))
        assert needs_action(odd)
        assert needs_action(annotated(odd, [mute("*")], []))
        assert not needs_action(annotated(odd, [mute(None)], []))

    def test_a_calm_model_asks_for_nothing(self):
        calm = model(point("fc:input", Verdict.NOT_DRIFTED), verdict=Verdict.NOT_DRIFTED)
        assert not needs_action(calm)
        assert alarm_in_force(calm) is None

    def test_a_new_point_under_the_pattern_is_muted_too(self):
        assert mute("layer?.*").covers("layer9.new:input")
        assert not mute("layer?.*").covers("head:input")
        assert mute("a[0]").covers("a[0]"), "a name that looks like a pattern is itself, too"

    def test_they_stand_in_the_document_and_come_back(self):
        found = annotated(DRIFTED, [mute(None)], [Marker(model="net", at_ns=NOW, text="deployed")])
        document = record_document(found)
        assert document["points"][0]["muted"]["reason"] == "why"
        assert document["muted"]["until_ns"] == NOW + DAY
        assert document["markers"][0]["text"] == "deployed"
        assert read_record(ModelAssessment, document, source="here") == found


class TestMarkers:
    @pytest.mark.parametrize(
        ("at_ns", "seconds"),
        [
            (NOW - 180 * SECOND, 180.0),
            (NOW, 0.0),
            (NOW + 30 * SECOND, -30.0),
            (NOW + 60 * SECOND, -60.0),
            (NOW + 61 * SECOND, None),
            (NOW - DAY, 86_400.0),
            (NOW - DAY - SECOND, None),
        ],
    )
    def test_only_what_may_explain_the_drift_is_told(self, at_ns, seconds):
        found = annotated(DRIFTED, [], [Marker(model="net", at_ns=at_ns, text="deployed")])
        assert [one.drift_after_seconds for one in found.markers] == (
            [] if seconds is None else [seconds]
        )

    def test_the_nearest_comes_first(self):
        times = [NOW - 3_600 * SECOND, NOW - 5 * SECOND, NOW + 20 * SECOND]
        found = annotated(DRIFTED, [], [Marker(model="net", at_ns=at, text="x") for at in times])
        assert [one.drift_after_seconds for one in found.markers] == [5.0, -20.0, 3600.0]

    def test_a_drift_from_the_first_window_on_began_with_it(self):
        alarm = Alarm(NOW + 60 * SECOND, 0, 50, 10, 100, 1000)
        begun = replace(DRIFTED, alarm=alarm, first_ns=NOW)
        found = annotated(begun, [], [Marker(model="net", at_ns=NOW - 5 * SECOND, text="x")])
        assert [one.drift_after_seconds for one in found.markers] == [5.0]

    def test_without_an_alarm_there_is_nothing_to_explain(self):
        calm = model(point("fc:input", Verdict.NOT_DRIFTED), verdict=Verdict.NOT_DRIFTED)
        found = annotated(calm, [], [Marker(model="net", at_ns=NOW, text="deployed")])
        assert found.markers == ()
