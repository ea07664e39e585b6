"""Starting, freezing and muting: after a page that asks again, with the scope, in the audit."""

import pytest

from calidrift_analyzer.records import JobState, MuteState
from calidrift_analyzer.store import StoreLostError

TRIGGER, PROMOTE = "t" * 32, "p" * 32
TOKENS = f"""
[starter]
secret = "{TRIGGER}"
scopes = ["read", "trigger"]

[chief]
secret = "{PROMOTE}"
scopes = ["read", "promote"]
"""
ASKING = ["/start?model=net", "/freeze?model=net", "/freeze", "/thaw", "/mute?model=net"]


def audit(site):
    rows = site.get("/audit").json()["items"]
    return [(one["action"], one["subject"], one["actor"], one["outcome"]) for one in rows]


def links(page):
    return [one.get("href", "") for one in page.all("a")]


def mutes(site):
    return site.run(lambda store: store.annotations.active("net"))


def test_a_job_is_started_by_a_form_and_leads_to_its_page(site, pages):
    assert "/start?model=net" in links(pages.read(site.http.get("/models/net")))

    answer = pages.decide(
        site, "/start?model=net", model="net", kind="recalibration", note="a new camera"
    )

    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/1")
    found = site.wait("awaiting_approval")["job"]
    assert (found["trigger"], found["cause"], found["actor"]) == ("api", "a new camera", "local")
    assert ("recalibration", "job 1", "local", "done") in audit(site)


def test_a_revalidation_can_be_started_too(site, pages):
    site.stages.hold = JobState.VALIDATING
    page = pages.read(site.http.get("/start?model=other"))

    pages.decide(site, "/start?model=other", model="other", kind="revalidation")

    assert [one["value"] for one in page.all("option")] == ["recalibration", "revalidation"]
    assert site.get("/jobs/1").json()["job"]["kind"] == "revalidation"
    site.stages.hold = None


def test_what_cannot_be_started_says_why_and_starts_nothing(drifted, pages):
    second = pages.decide(drifted, "/start?model=net", model="net", kind="recalibration")
    odd = pages.decide(drifted, "/start?model=net", model="net", kind="luck")
    nobody = pages.decide(drifted, "/start?model=net", model="nobody", kind="recalibration")

    assert "one job at a time" in pages.read(second, 409).text
    assert "choose one of recalibration, revalidation" in pages.read(odd, 400).text
    assert "no model 'nobody' is configured" in pages.read(nobody, 404).text
    assert len(drifted.get("/jobs").json()["items"]) == 1
    assert "/start?model=net" not in links(pages.read(drifted.http.get("/models/net")))


def test_a_model_is_frozen_and_thawed(drifted, pages):
    asked = pages.read(drifted.http.get("/freeze?model=net"))
    assert "Freeze net?" in asked.text
    assert asked.field("model") == "net"
    frozen = pages.decide(drifted, "/freeze?model=net", model="net", note="audit week")
    page = pages.read(drifted.http.get("/models/net"))
    refused = pages.decide(drifted, "/jobs/1/approve")

    assert (frozen.status_code, frozen.headers["location"]) == (303, "/models/net")
    assert "audit week" in page.text
    assert "/thaw?model=net" in links(page)
    assert "/freeze?model=net" not in links(page)
    assert "frozen by local" in pages.read(refused, 409).text

    pages.decide(drifted, "/thaw?model=net", model="net")

    assert "/freeze?model=net" in links(pages.read(drifted.http.get("/models/net")))
    assert audit(drifted)[0] == ("thaw", "net", "local", "done")
    assert ("freeze", "net", "local", "done") in audit(drifted)


def test_every_model_is_frozen_from_the_overview(drifted, pages):
    assert "/freeze" in links(pages.read(drifted.http.get("/")))

    answer = pages.decide(drifted, "/freeze", model="", note="holidays")

    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    overview = pages.read(drifted.http.get("/"))
    assert "every model, by local" in overview.text
    assert "/thaw" in links(overview)
    assert "/thaw" in links(pages.read(drifted.http.get("/models/net"))), "not net alone"
    pages.decide(drifted, "/thaw", model="")
    assert "every model, by local" not in pages.read(drifted.http.get("/")).text


def test_a_point_is_muted_with_an_end_and_a_reason(drifted, pages):
    here = "/models/net/points/a%3Ainput"
    assert "/mute?model=net&point=a%3Ainput" in links(pages.read(drifted.http.get(here)))

    answer = pages.decide(
        drifted, "/mute?model=net&point=a%3Ainput", **MUTE, point="a:input", **{"from": "a:input"}
    )

    assert (answer.status_code, answer.headers["location"]) == (303, here)
    [given] = [one for one in mutes(drifted) if one.point == "a:input"]
    assert given.until_ns - given.created_ns == 24 * 3_600 * 10**9
    page = pages.read(drifted.http.get(here))
    assert "because: <b>a new lens</b> (by local)" in page.text
    assert "/unmute?model=net&point=a%3Ainput" in links(page)
    assert audit(drifted)[0] == ("mute", "a:input", "local", "done")


MUTE = {"model": "net", "hours": "24", "reason": "<b>a new lens</b>"}


def test_a_mute_is_ended_before_its_time(drifted, pages):
    asked = pages.read(drifted.http.get("/unmute?model=net&point=b:*"))

    answer = pages.decide(
        drifted, "/unmute?model=net&point=b:*", model="net", point="b:*", note="fixed"
    )

    assert "muted until" in asked.text
    assert (answer.status_code, answer.headers["location"]) == (303, "/models/net")
    assert not mutes(drifted)
    [ended] = drifted.run(lambda store: store.annotations.mutes("net"))
    assert (ended.state, ended.ended_by, ended.ended_because) == (
        MuteState.UNMUTED,
        "local",
        "fixed",
    )
    assert audit(drifted)[0] == ("unmute", "b:*", "local", "done")
    gone = pages.read(drifted.http.get("/unmute?model=net&point=b:*"), 409)
    assert "has ended already" in gone.text


def test_the_whole_model_is_muted_and_unmuted(drifted, pages):
    pages.decide(drifted, "/mute?model=net", **MUTE, point=" ")
    page = pages.read(drifted.http.get("/models/net"))

    assert "the whole model: muted until" in page.text
    assert "/unmute?model=net&point=" in links(page)
    pages.decide(drifted, "/unmute?model=net", model="net", point="")
    assert [one.point for one in mutes(drifted)] == ["b:*"]


def test_a_mute_that_is_none_is_refused_and_kept_nowhere(drifted, pages):
    for fields, status, told in (
        ({"hours": "", "reason": "x"}, 400, "a mute always ends"),
        ({"hours": "87600", "reason": "x"}, 400, "a mute always ends"),
        ({"hours": "24", "reason": " "}, 400, "a mute needs a reason"),
        ({"hours": "24", "reason": "a\nb"}, 400, "a mute needs a reason"),
        ({"hours": "24", "reason": "x" * 501}, 400, "a mute needs a reason"),
        ({"hours": "24", "reason": "x", "point": "a:inptu"}, 404, "did you mean 'a:input'?"),
        ({"hours": "24", "reason": "x", "point": "x" * 600}, 400, "at most 512"),
        ({"hours": "24", "reason": "x", "point": "q"}, 404, "no point of net is called 'q'"),
        ({"hours": "24", "reason": "x", "model": "nobody"}, 404, "no model 'nobody'"),
    ):
        answer = pages.decide(drifted, "/mute?model=net", **{"model": "net", **fields})

        assert told in pages.read(answer, status).text, fields
    assert [one.point for one in mutes(drifted)] == ["b:*"]
    long = pages.decide(drifted, "/unmute?model=net&point=b:*", model="net", point="b:*",
                        note="x" * 501)  # fmt: skip
    other = pages.decide(drifted, "/unmute?model=net&point=b:*", model="net", point="a:*")
    assert "500 characters on one line" in pages.read(long, 400).text
    assert "is not muted by that name" in pages.read(other, 404).text
    assert [one.point for one in mutes(drifted)] == ["b:*"]


def test_a_commit_that_was_lost_is_looked_for_before_it_is_made_again(drifted, pages, monkeypatch):
    for durable in (True, False):
        for way in ("mute", "unmute"):
            drifted.run(lambda store, durable=durable: lose(store, monkeypatch, durable))
            asked = f"/{way}?model=net&point=a%3Ainput"
            answer = pages.decide(drifted, asked, **MUTE, point="a:input")

            assert answer.status_code == 303
            assert [one.point for one in mutes(drifted)].count("a:input") == (way == "mute")
    ways = [one[0] for one in audit(drifted)]
    assert (ways.count("mute"), ways.count("unmute")) == (2, 2)


def lose(store, monkeypatch, durable):
    """Let the next commit be the last one of this database, durable or not."""
    connection, left = store._connection, [1]
    commit = connection._commit

    def dying():
        if not left:
            return commit()
        left.clear()
        if durable:
            commit()
        else:
            connection.rows("ROLLBACK")
        raise StoreLostError("the disk is full")

    monkeypatch.setattr(connection, "_commit", dying)


@pytest.fixture
def guarded(make_site, tokens_file):
    return make_site(tokens=tokens_file(TOKENS))


def test_each_form_needs_its_scope(guarded, pages):
    pages.post(guarded, "/sign-in", {"token": PROMOTE})
    page = pages.read(guarded.http.get("/models/net"))
    form = pages.read(guarded.http.get("/freeze")).field("form_token")

    assert "/freeze?model=net" in links(page)
    assert not {"/start?model=net", "/mute?model=net"} & set(links(page))
    for path in ("/start", "/mute", "/unmute"):
        pages.read(guarded.http.get(f"{path}?model=net"), 403)
        pages.read(pages.post(guarded, path, {"form_token": form, **MUTE}), 403)
    pages.post(guarded, "/sign-in", {"token": TRIGGER})
    page = pages.read(guarded.http.get("/models/net"))
    form = pages.read(guarded.http.get("/mute?model=net")).field("form_token")
    assert "/freeze?model=net" not in links(page)
    assert {"/start?model=net", "/mute?model=net"} <= set(links(page))
    for path in ("/freeze", "/thaw"):
        pages.read(guarded.http.get(f"{path}?model=net"), 403)
        pages.read(pages.post(guarded, path, {"form_token": form, "model": "net"}), 403)
    muted = pages.decide(guarded, "/mute?model=net", **MUTE)
    assert muted.status_code == 303, "points that nobody knows yet can be muted"
    [one] = mutes(guarded)
    assert one.author == "starter"


def test_without_a_session_every_form_asks_to_sign_in(guarded, pages):
    for path in ASKING:
        assert pages.read(guarded.http.get(path), 401).field("next") == path


def test_a_form_of_another_site_switches_nothing(drifted, pages):
    form = pages.read(drifted.http.get("/freeze")).field("form_token")
    for path in ("/start", "/freeze", "/thaw", "/mute", "/unmute"):
        body = {"form_token": form, "kind": "recalibration", "point": "b:*", **MUTE}
        pages.read(pages.post(drifted, path, body, origin="https://evil.example"), 403)
        pages.read(pages.post(drifted, path, {**body, "form_token": "x"}), 403)
    assert [one.point for one in mutes(drifted)] == ["b:*"]
    assert not [one for one in audit(drifted) if one[0] in {"freeze", "mute", "unmute"}]


def test_names_that_are_hostile_stay_text(drifted, pages):
    for path in ("/mute?model=net&point=", "/unmute?model=net&point=", "/start?model="):
        answer = drifted.http.get(path + pages.hostile.replace("&", "%26").replace("#", "%23"))
        assert "<script>alert" not in answer.text
