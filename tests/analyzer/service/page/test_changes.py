"""Signing in, and decisions: only from this site's own forms, only with the scope."""

import time

import pytest

from calidrift_agent.errors import RegistryError
from calidrift_analyzer.service.page import _changes, _sessions
from calidrift_analyzer.service.page._sessions import COOKIE, Session, Sessions

READ, PROMOTE = "r" * 32, "p" * 32
TOKENS = f"""
[viewer]
secret = "{READ}"
scopes = ["read"]

[chief]
secret = "{PROMOTE}"
scopes = ["read", "trigger", "promote"]

[feeder]
secret = "{"i" * 32}"
scopes = ["ingest"]
"""


@pytest.fixture
def guarded(make_site, tokens_file):
    site = make_site(tokens=tokens_file(TOKENS))
    site.post("/jobs", {"model": "net"}, headers={"Authorization": f"Bearer {PROMOTE}"})
    headers = {"Authorization": f"Bearer {READ}"}
    until = time.monotonic() + 30
    while time.monotonic() < until:
        state = site.get("/jobs/1", headers=headers).json()["job"]["state"]
        if state == "awaiting_approval":
            return site
        time.sleep(0.01)
    raise AssertionError(state)


def sign_in(site, pages, token, target="/"):
    return pages.post(site, "/sign-in", {"token": token, "next": target})


def state(site):
    headers = {"Authorization": f"Bearer {READ}"}
    return site.get("/jobs/1", headers=headers).json()["job"]["state"]


def test_without_a_token_every_page_asks_for_one_and_tells_nothing(guarded, pages):
    for path in (
        "/",
        "/models/net",
        "/models/net/points/a",
        "/jobs/1",
        "/jobs/1/approve",
        "/rollback?model=net",
    ):
        check_closed(path, guarded.http.get(path), pages)


def check_closed(path, answer, pages):
    page = pages.read(answer, 401)
    assert page.field("next") == path
    assert page.all("input")[-1]["type"] == "password"
    assert "www-authenticate" not in answer.headers
    assert "awaiting" not in page.text


def test_what_is_the_same_for_everybody_needs_no_token(guarded):
    assert guarded.http.get("/assets/page.css").status_code == 200


def test_a_token_gives_a_session_and_its_end_ends_it(guarded, pages):
    answer = sign_in(guarded, pages, READ, "/models/net?hours=24")
    inside = guarded.http.get("/models/net")
    page = pages.read(inside)
    out = pages.post(guarded, "/sign-out", {"form_token": page.field("form_token")})

    assert (answer.status_code, answer.headers["location"]) == (303, "/models/net?hours=24")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "max-age=28800" in cookie
    assert READ not in cookie
    assert "viewer" in page.text
    assert out.headers["location"] == "/sign-in"
    assert guarded.http.get("/").status_code == 401


def test_over_tls_the_cookie_goes_nowhere_else(guarded, pages):
    guarded.http.base_url = "https://127.0.0.1"

    answer = pages.post(guarded, "/sign-in", {"token": READ}, origin="https://127.0.0.1")

    assert "; secure" in answer.headers["set-cookie"].lower()


def test_another_token_is_refused_on_the_same_form(guarded, pages):
    for token, status, told in (
        ("", 401, "not known here, or has expired"),
        ("x" * 32, 401, "not known here, or has expired"),
        ("i" * 32, 403, "lacks the scope 'read'"),
    ):
        check_refused(token, status, told, guarded, pages)


def check_refused(token, status, told, guarded, pages):
    answer = sign_in(guarded, pages, token, "/jobs/1")

    page = pages.read(answer, status)
    assert told in page.text
    assert page.field("next") == "/jobs/1"
    assert "set-cookie" not in answer.headers


def test_signing_in_leads_to_no_other_site(guarded, pages):
    for target in (
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:1",
        "/\n/x",
    ):
        assert sign_in(guarded, pages, READ, target).headers["location"] == "/"


def test_guesses_are_limited(make_site, tokens_file, pages):
    site = make_site(tokens=tokens_file(TOKENS), requests_per_minute=1)

    answers = [sign_in(site, pages, "x" * 32) for _ in range(3)]

    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    pages.read(answers[-1], 429)


def test_whoever_follows_a_link_of_another_site_is_asked_once_more_from_here(guarded, pages):
    cross = pages.read(guarded.http.get("/", headers={"sec-fetch-site": "cross-site"}), 401)
    own = pages.read(guarded.http.get("/", headers={"sec-fetch-site": "same-origin"}), 401)

    assert [one["content"] for one in cross.all("meta") if "http-equiv" in one] == ["0"]
    assert not [one for one in own.all("meta") if "http-equiv" in one]


def test_a_viewer_sees_but_does_not_decide(guarded, pages):
    sign_in(guarded, pages, READ)
    page = pages.read(guarded.http.get("/jobs/1"))
    asked = guarded.http.get("/jobs/1/approve")
    sent = pages.post(guarded, "/jobs/1/approve", {"form_token": page.field("form_token")})

    assert "needs a token with the scope promote" in page.text
    assert "lacks the scope 'promote'" in pages.read(asked, 403).text
    assert "lacks the scope 'promote'" in pages.read(sent, 403).text
    assert state(guarded) == "awaiting_approval"


def test_an_approval_names_who_gave_it_and_why(guarded, pages):
    sign_in(guarded, pages, PROMOTE)

    answer = pages.decide(guarded, "/jobs/1/approve", note="looked <b>fine</b>")

    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/1")
    until = time.monotonic() + 30
    while state(guarded) != "promoted" and time.monotonic() < until:
        time.sleep(0.01)
    page = pages.read(guarded.http.get("/jobs/1"))
    assert "approved by chief: looked <b>fine</b>" in page.text
    assert "Approved by chief" in page.text


def test_on_this_machine_a_decision_needs_no_token_but_its_form(drifted, pages):
    refused = pages.post(drifted, "/jobs/1/cancel", {"form_token": ""})
    done = pages.decide(drifted, "/jobs/1/cancel", note="enough")

    assert "nothing was changed" in pages.read(refused, 403).text
    assert done.status_code == 303
    assert drifted.wait("cancelled")["job"]["sentence"] == "cancelled by local: enough"


def test_a_form_of_another_site_changes_nothing(drifted, pages):
    form = pages.read(drifted.http.get("/jobs/1/approve")).field("form_token")
    for origin, sent_by in FOREIGN:
        more = {} if sent_by is None else {"sec-fetch-site": sent_by}
        for path in ("/jobs/1/approve", "/jobs/1/cancel", "/rollback", "/sign-in", "/sign-out"):
            body = {"form_token": form, "model": "net"}
            answer = pages.post(drifted, path, body, origin=origin, **more)

            pages.read(answer, 403)
            assert "set-cookie" not in answer.headers
    assert drifted.get("/jobs/1").json()["job"]["state"] == "awaiting_approval"
    assert pages.post(drifted, "/jobs/1/cancel", {"form_token": form}).status_code == 303


FOREIGN = [
    ("https://evil.example", None),
    ("http://127.0.0.1:8080", None),
    ("null", None),
    (None, None),
    (None, "cross-site"),
    (None, "same-site"),
    ("http://127.0.0.1", "cross-site"),
]


def test_a_form_of_this_site_without_an_origin_counts(drifted, pages):
    form = pages.read(drifted.http.get("/jobs/1/cancel")).field("form_token")

    answer = pages.post(
        drifted, "/jobs/1/cancel", {"form_token": form}, origin=None,
        **{"sec-fetch-site": "same-origin"},
    )  # fmt: skip

    assert answer.status_code == 303


def test_a_form_without_its_token_changes_nothing(drifted, pages):
    pages.read(drifted.http.get("/jobs/1/approve"))
    for token in ("", "x", "\ud800", "é" * 40):
        body = {"form_token": token.encode("utf-8", "surrogatepass")}

        answer = pages.post(drifted, "/jobs/1/approve", body)

        assert answer.status_code in (400, 403)
    assert drifted.get("/jobs/1").json()["job"]["state"] == "awaiting_approval"


def test_the_form_of_another_session_changes_nothing(guarded, pages):
    sign_in(guarded, pages, PROMOTE)
    other = pages.read(guarded.http.get("/jobs/1/approve")).field("form_token")
    sign_in(guarded, pages, PROMOTE)

    answer = pages.post(guarded, "/jobs/1/approve", {"form_token": other})

    pages.read(answer, 403)
    assert state(guarded) == "awaiting_approval"


def test_a_foreign_name_of_this_machine_is_refused(drifted, pages):
    answer = drifted.http.get("/", headers={"host": "rebound.example"})

    assert "only this machine may ask" in pages.read(answer, 403).text


def test_what_is_no_form_is_refused(site, pages):
    for content, kind, status in (
        (b"{}", "application/json", 415),
        (b"", "text/plain", 415),
        (b"a=" + b"x" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a=1" for _ in range(50)), "application/x-www-form-urlencoded", 400),
    ):
        headers = {"content-type": kind, "origin": pages.here}

        answer = site.http.post("/jobs/1/approve", content=content, headers=headers)

        pages.read(answer, status)


def test_a_note_that_is_none_is_refused(drifted, pages):
    for note in ("x" * 501, "a\nb", "a\x00b"):
        answer = pages.decide(drifted, "/jobs/1/approve", note=note)

        assert "500 characters on one line" in pages.read(answer, 400).text
    assert drifted.get("/jobs/1").json()["job"]["state"] == "awaiting_approval"


def test_what_cannot_be_done_is_told_in_a_sentence(drifted, pages):
    pages.decide(drifted, "/jobs/1/cancel")
    drifted.wait("cancelled")

    answer = pages.decide(drifted, "/jobs/1/approve")

    assert "only a job that awaits approval can be approved" in pages.read(answer, 409).text


def test_a_rollback_offers_what_there_is_and_does_what_was_chosen(promoted, pages, monkeypatch):
    asked = []
    monkeypatch.setattr(
        _changes,
        "take_back",
        lambda owner, contract, to, *, actor: asked.append((contract.name, to, actor)),
    )
    page = pages.read(promoted.http.get("/rollback?model=net"))
    answer = pages.decide(promoted, "/rollback?model=net", model="net", to=promoted.versions[0])

    assert [one["value"] for one in page.all("option")] == [promoted.versions[0]]
    assert promoted.versions[1] in page.text
    assert (answer.status_code, answer.headers["location"]) == (303, "/models/net")
    assert asked == [("net", promoted.versions[0], "local")]
    overview = pages.read(promoted.http.get("/models/net"))
    assert [one for one in overview.all("a") if one["href"] == "/rollback?model=net"]


def test_a_rollback_that_is_refused_says_why(promoted, site, pages):
    nowhere = pages.decide(promoted, "/rollback?model=net", model="net", to="../../etc")
    nobody = pages.decide(promoted, "/rollback?model=net", model="nobody", to="")
    missing = promoted.http.get("/rollback?model=other")

    pages.read(nowhere, 409)
    assert "no model 'nobody' is configured" in pages.read(nobody, 404).text
    assert "there is no earlier version of other" in pages.read(missing, 409).text
    assert issubclass(RegistryError, OSError)


def test_a_session_ends_by_itself_and_there_are_never_too_many(monkeypatch):
    class Asked:
        def __init__(self, key):
            self.cookies = {COOKIE: key}

    monkeypatch.setattr(_sessions, "_MOST_SESSIONS", 2)
    lasting, short = Sessions(), Sessions(seconds=0.0)
    first, second, third = (lasting.open(name) for name in ("a", "b", "c"))
    gone = short.open("d")

    assert lasting.find(Asked(first.key)) is None
    assert lasting.find(Asked(second.key)) == second
    assert lasting.find(Asked(third.key)) == third
    assert short.find(Asked(gone.key)) is None
    assert len({second.key, third.key, second.form_token, third.form_token}) == 4
    assert "secret" not in repr(Session(key="k", secret="secret", form_token="f", ends=0.0))
