"""`mute`, `unmute`, `mutes`, `mark`, `marks`, and what stands beside the alarm by them."""

import os
import pwd
import re
import time

import numpy as np
import pytest

from calidrift_analyzer.cli._annotated import read_moment, read_span
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import Mute, VersionRow
from calidrift_analyzer.store import Store

SECOND = 10**9
BEGIN = 1_800_000_000 * SECOND
"""Start of the first window that `traffic` makes."""
CONFIG = '[analyzer]\ndatabase = "calidrift.duckdb"\n'


@pytest.fixture
def drifted(shop, traffic):
    """A database in which `fc:input` and `layer1.conv:input` of the model `net` drifted."""
    shop.configure(CONFIG)
    rng = traffic.rng
    names = ("conv1:input", "fc:input", "layer1.conv:input")
    profile = traffic.profile({name: rng.normal(size=(512, 32)) for name in names})
    bounds = [point.observed_bound.value for point in profile.points.values()]
    meta = traffic.meta(points=names, profile=profile.digest)
    windows = [
        traffic.unit_window(
            number, [rng.normal(size=(20, 32)) * (scale if at else 1.0) for at in range(3)], bounds
        )
        for number, scale in enumerate((1.0, 1.0, 3.0))
    ]
    with Store.open(shop.root / "calidrift.duckdb") as store:
        store.put_profile(profile)
        store.ingest(meta, windows, batch=store.next_batch())
    return shop


def kept(shop):
    with Store.open(shop.root / "calidrift.duckdb") as store:
        return store.annotations.mutes()


def mute(shop, *words):
    status, out, err = shop.run("mute", *words, "--for", "7d", "--reason", "new camera")
    assert (status, err) == (0, "")
    return out


class TestSpans:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("1m", 60), ("90m", 5_400), ("12h", 43_200), ("7d", 604_800), ("366d", 31_622_400)],
    )
    def test_good(self, text, seconds):
        assert read_span(text) == seconds

    @pytest.mark.parametrize(
        "text",
        [
            "7",
            "0d",
            "7D",
            "-1d",
            "1.5h",
            "1d12h",
            "ever",
            "367d",
            "53w",
            "9999999d",
            "d",
            "",
            "7 d",
        ],
    )
    def test_bad(self, text):
        with pytest.raises(ConfigurationError, match=r"e\.g\. --for 7d"):
            read_span(text)


class TestMoments:
    NOW = BEGIN + 3_600 * SECOND

    @pytest.mark.parametrize(
        "text",
        [
            "2027-01-15 08:00",
            "2027-01-15T08:00:00Z",
            "2027-01-15 08:00:00 UTC",
            "2027-01-15T09:00+01:00",
            " 2027-01-15 03:00:00-05:00 ",
        ],
    )
    def test_good(self, text):
        assert read_moment(text, self.NOW) == BEGIN

    def test_fractions_are_exact(self):
        assert read_moment("2027-01-15 08:00:00.000001", self.NOW) == BEGIN + 1_000

    @pytest.mark.parametrize("text", ["yesterday", "", "08:00", "15.01.2027", "1800000000"])
    def test_bad(self, text):
        with pytest.raises(ConfigurationError, match="without an offset: UTC"):
            read_moment(text, self.NOW)

    @pytest.mark.parametrize("text", ["2027-01-15 10:00", "1969-01-01", "9999-12-31"])
    def test_not_yet_or_never(self, text):
        with pytest.raises(ConfigurationError, match="something that has happened"):
            read_moment(text, self.NOW)


def test_the_user_is_that_of_the_system(monkeypatch):
    assert user_name() == pwd.getpwuid(os.getuid()).pw_name

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert user_name() == f"uid {os.getuid()}"


class TestMute:
    def test_it_is_kept_with_who_why_and_until_when(self, drifted):
        before = time.time_ns()
        out = mute(drifted, "net", "fc:input")
        assert re.match(
            r"net: fc:input is muted until \d{4}-\d\d-\d\d \d\d:\d\d UTC because: ", out
        )
        assert "their evidence keeps counting" in out
        (found,) = kept(drifted)
        assert (found.model, found.point, found.reason) == ("net", "fc:input", "new camera")
        assert found.author == user_name()
        assert before <= found.created_ns <= time.time_ns()
        assert found.until_ns - found.created_ns == 7 * 86_400 * SECOND

    def test_an_alias_is_the_point_that_it_is_an_alias_of(self, shop, traffic):
        from dataclasses import replace

        shop.configure(CONFIG)
        profile = traffic.profile({"q:input": np.ones((64, 4))})
        point = replace(profile.points["q:input"], aliases=("k:input",))
        profile = replace(profile, points={"q:input": point})
        with Store.open(shop.root / "calidrift.duckdb") as store:
            store.put_profile(profile)
            meta = traffic.meta(points=("q:input",), profile=profile.digest)
            store.ingest(meta, [traffic.unit_window(0, [np.ones((5, 4))], [1.0])], batch=1)
        mute(shop, "net", "k:input")
        assert kept(shop)[0].point == "q:input"

    def test_a_pattern_names_its_points(self, drifted):
        out = mute(drifted, "net", "*c*:input")
        assert "points: conv1:input, fc:input, layer1.conv:input" in out
        _, document = drifted.json("mute", "net", "l*", "--for", "2h", "--reason", "x")
        assert document["points"] == ["layer1.conv:input"]
        assert document["mute"]["state"] == "active"

    def test_a_declared_model_without_traffic_can_be_muted(self, shop):
        status, out, err = shop.run("mute", "shop", "fc", "--for", "1h", "--reason", "x")
        assert status == 0
        assert "shop: fc is muted" in out
        assert "could not be checked" in err

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("mute",), "give --for"),
            (("mute", "net", "fc:input", "--reason", "x"), "a mute needs an end"),
            (("mute", "net", "--for", "ever", "--reason", "x"), "--for is 'ever'"),
            (("mute", "net", "--for", "7d"), "--reason is missing"),
            (("mute", "net", "--for", "7d", "--reason", "  "), "--reason is missing"),
            (("mute", "net", "--for", "7d", "--reason", "a\nb"), "cannot be printed"),
            (("mute", "net", "--for", "7d", "--reason", "x" * 501), "has 501 characters"),
            (("mute", "--for", "7d", "--reason", "x"), "no model is named"),
            (("mute", "nett", "--for", "7d", "--reason", "x"), "known: net"),
            (("mute", "net", "fc:inpt", "--for", "7d", "--reason", "x"), "mean 'fc:input'?"),
            (("mute", "net", "zzz*", "--for", "7d", "--reason", "x"), "known: conv1:input"),
            (("unmute",), "no model is named"),
            (("unmute", "net"), "nothing of net is muted"),
            (("mark", "net"), "the text of the marker is missing"),
            (("mark", "net", "x", "--at", "soon"), "--at is 'soon'"),
            (("mark", "nett", "x"), "known: net"),
            (("mark",), "no model is named"),
            (("mutes", "nett"), "known: net"),
            (("marks", "nett"), "known: net"),
        ],
        ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
    )
    def test_bad_words_are_one_sentence_and_change_nothing(self, drifted, words, told):
        status, out, err = drifted.run(*words)
        assert (status, out) == (2, "")
        assert told in err
        assert err.count("\n") == 1
        assert kept(drifted) == ()


class TestUnmute:
    def test_it_ends_the_mute_and_says_so(self, drifted):
        mute(drifted, "net", "fc:input")
        mute(drifted, "net")
        status, out, _ = drifted.run("unmute", "net", "fc:input", "--reason", "it is back")
        assert status == 0
        assert "net: fc:input is no longer muted" in out
        assert [one.what for one in kept(drifted) if one.state == "active"] == ["the whole model"]
        status, _, _ = drifted.run("unmute", "net")
        assert status == 0
        assert not [one for one in kept(drifted) if one.state == "active"]

    def test_all_at_once(self, drifted):
        mute(drifted, "net", "fc:input")
        mute(drifted, "net")
        _, document = drifted.json("unmute", "net", "--all")
        assert len(document["ended"]) == 2
        assert {one.state for one in kept(drifted)} == {"unmuted"}

    def test_a_point_under_a_pattern_is_told_which(self, drifted):
        mute(drifted, "net", "fc*")
        status, _, err = drifted.run("unmute", "net", "fc:input")
        assert status == 2
        assert "fc:input is under 'fc*': end that one" in err
        status, _, err = drifted.run("unmute", "net")
        assert "the whole model of net is not muted" in err


class TestLists:
    def test_active_ones_and_with_all_the_whole_story(self, drifted):
        assert "nothing is muted; --all lists what was" in drifted.run("mutes")[1]
        assert "nothing was ever muted" in drifted.run("mutes", "--all")[1]
        mute(drifted, "net", "fc:input")
        mute(drifted, "net", "layer1*")
        drifted.run("unmute", "net", "layer1*", "--reason", "solved")
        with Store.open(drifted.root / "calidrift.duckdb") as store:
            store.annotations.mute(
                Mute(
                    model="net",
                    point="old:input",
                    created_ns=BEGIN - 100 * 86_400 * SECOND,
                    until_ns=time.time_ns() - SECOND,
                    reason="long ago",
                    author="bob",
                )
            )
        _, out, _ = drifted.run("mutes")
        assert "fc:input" in out
        assert "layer1*" not in out
        assert "long ago" not in out
        _, out, _ = drifted.run("mutes", "net", "--all")
        squeezed = " ".join(re.sub("[│┃]", " ", out).split())
        assert "expired" in out
        assert "solved" in squeezed
        _, document = drifted.json("mutes", "--all")
        assert sorted(one["state"] for one in document["mutes"]) == [
            "active",
            "expired",
            "unmuted",
        ]

    def test_marks(self, drifted):
        assert "nothing is marked" in drifted.run("marks")[1]
        status, out, _ = drifted.run("mark", "net", "deployed v3", "--at", "2026-01-15 08:00")
        assert (status, out) == (0, "net: marked 2026-01-15 08:00:00 UTC: deployed v3\n")
        drifted.run("mark", "net", "new client")
        _, out, _ = drifted.run("marks", "net")
        assert out.index("new client") < out.index("deployed v3")
        _, document = drifted.json("marks")
        assert [one["kind"] for one in document["markers"]] == ["marked", "marked"]


class TestBesideTheAlarm:
    def test_a_muted_alarm_is_shown_with_its_mute(self, drifted):
        mute(drifted, "net", "fc:input")
        for command in ("status", "coverage"):
            status, out, _ = drifted.run(command)
            assert status == 0
            assert re.search(
                r"fc:input: muted until \S+ \S+ UTC because: new camera \(by .*\); "
                r"alarms under it: fc:input\n",
                out,
            ), command
            assert "every point that drifted with harm is muted" not in out
        _, out, _ = drifted.run("status")
        assert "net: drifted_harmful" in out
        _, out, _ = drifted.run("coverage")
        assert "drifted harmful, muted" in out

    def test_when_all_is_muted_it_says_that_nothing_will_happen(self, drifted):
        mute(drifted, "net")
        _, out, _ = drifted.run("status")
        assert "the whole model: muted until" in out
        assert "no repair starts by itself, and the exported alarm is off" in out

    def test_a_mute_without_an_alarm_is_shown_too(self, drifted):
        mute(drifted, "net", "conv1:input")
        assert "no alarm under it" in drifted.run("status")[1]

    def test_json_has_both(self, drifted):
        mute(drifted, "net", "fc:input")
        for command in ("status", "coverage"):
            _, document = drifted.json(command)
            (model,) = document["models"]
            points = {one["name"]: one for one in model["points"]}
            assert points["fc:input"]["muted"]["reason"] == "new camera"
            assert points["fc:input"]["alarm"] is not None
            assert points["conv1:input"]["muted"] is None
            assert model["muted"] is None

    def test_the_alarm_is_latched_and_kept_whatever_is_muted(self, drifted):
        drifted.run("status")
        with Store.open(drifted.root / "calidrift.duckdb") as store:
            profile = store.observed("net")[0].profile
            before = store.outcomes.alarms("net", profile)
        mute(drifted, "net")
        drifted.run("status")
        drifted.run("unmute", "net")
        _, document = drifted.json("status")
        assert document["models"][0]["verdict"] == "drifted_harmful"
        with Store.open(drifted.root / "calidrift.duckdb") as store:
            assert store.outcomes.alarms("net", profile) == before
            assert len(before) == 2

    def test_what_happened_just_before_stands_beside_it(self, drifted):
        _, document = drifted.json("status")
        since = document["models"][0]["alarm"]["since_ns"]
        with Store.open(drifted.root / "calidrift.duckdb") as store:
            store.outcomes.record_version(
                VersionRow(
                    model="net",
                    version="000012-abc",
                    action="promoted",
                    created_ns=since - 180 * SECOND,
                    profile="p",
                    document="{}",
                )
            )
        told = "the drift began 3 min after: version 000012-abc was promoted ("
        assert told in drifted.run("status")[1]
        assert told in drifted.run("coverage")[1]
        _, document = drifted.json("status")
        (marker,) = document["models"][0]["markers"]
        assert marker["drift_after_seconds"] == pytest.approx(180.0)
        assert marker["kind"] == "promoted"

    def test_what_happened_in_between_is_not_called_before(self, drifted):
        from calidrift_analyzer.records import Marker

        _, document = drifted.json("status")
        alarm = document["models"][0]["alarm"]
        with Store.open(drifted.root / "calidrift.duckdb") as store:
            at_ns = (alarm["since_ns"] + alarm["end_ns"]) // 2
            store.annotations.mark(Marker(model="net", at_ns=at_ns, text="new client"))
            store.annotations.mark(Marker(model="other", at_ns=at_ns, text="not mine"))
        _, out, _ = drifted.run("status")
        assert "while the drift began: new client (2027-01-15 08:00:0" in out
        assert "not mine" not in out
