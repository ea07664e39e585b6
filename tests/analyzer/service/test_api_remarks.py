"""Mutes and markers over HTTP, and the commands for them while the service holds the database."""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from calidrift_agent._command_line import run
from calidrift_analyzer.cli._person import user_name
from calidrift_analyzer.jobs import mark, mute, unmute
from calidrift_analyzer.records import Marker, Mute
from calidrift_analyzer.service._gate import user_header
from calidrift_analyzer.store import Store

DEADLINE = 120.0
MARK = {"model": "net", "text": "x"}
MUTE = {"model": "net", "point": "a:*", "seconds": 3_600, "reason": "a new camera"}
CONFIG = """
[service]
port = {port}
ingest_seconds = 3600
assess_seconds = 3600
{more}
[models.net]
factory = "user:factory"
example_inputs = "user:example_inputs"
calibration = "user:calibration"
evaluate = "user:evaluate"
"""


def audit(site):
    return [
        (one["action"], one["actor"], one["subject"]) for one in site.get("/audit").json()["items"]
    ]


def test_a_mute_is_kept_shown_beside_the_alarm_and_ended(site, traffic):
    site.record(traffic)
    site.service.tasks.assess()

    muted = site.post("/mutes", MUTE)
    points = {one["point"]: one["muted"] for one in site.get("/models/net/points").json()}
    listed = site.get("/mutes", params={"model": "net"}).json()
    ended = site.post("/mutes/end", {"model": "net", "point": "a:*", "reason": "it is back"})

    assert muted.status_code == 200
    assert muted.json()["points"] == ["a:input"]
    one = muted.json()["mute"]
    assert (one["point"], one["state"], one["author"]) == ("a:*", "active", "local")
    span = datetime.fromisoformat(one["until"]) - datetime.fromisoformat(one["created"])
    assert span == timedelta(hours=1)
    assert "a new camera" in points["a:input"]
    assert points["b:input"] is None
    assert listed == [one]
    assert [found["point"] for found in ended.json()["ended"]] == ["a:*"]
    assert site.get("/mutes").json() == []
    [past] = site.get("/mutes", params={"every": True}).json()
    assert (past["state"], past["ended_by"], past["ended_because"]) == (
        "unmuted",
        "local",
        "it is back",
    )
    assert [one for one in audit(site) if one[1] == "local"] == [
        ("unmute", "local", "a:*"),
        ("mute", "local", "a:*"),
    ]


def test_the_whole_model_and_everything_at_once(site, traffic):
    site.record(traffic)
    site.post("/mutes", MUTE)
    whole = site.post("/mutes", {**MUTE, "point": None})
    ended = site.post("/mutes/end", {"model": "net", "every": True})

    assert whole.json()["points"] == ["a:input", "b:input"]
    assert {one["point"] for one in ended.json()["ended"]} == {"a:*", None}
    assert [action for action, _, _ in audit(site)] == ["unmute", "unmute", "mute", "mute"]


def test_a_marker_is_kept_and_listed(site):
    now = site.post("/marks", {"model": "net", "text": "deployed 2.3"})
    then = site.post("/marks", {"model": "net", "text": "new client", "at": "2026-01-15T08:00:00"})
    east = site.post(
        "/marks", {"model": "net", "text": "new sensor", "at": "2026-01-15T08:00:00+01:00"}
    )

    assert [one.status_code for one in (now, then, east)] == [200, 200, 200]
    listed = site.get("/marks", params={"model": "net"}).json()
    assert [one["text"] for one in listed] == ["deployed 2.3", "new client", "new sensor"]
    moments = [datetime.fromisoformat(one["at"]) for one in listed[1:]]
    assert moments == [datetime(2026, 1, 15, hour, tzinfo=UTC) for hour in (8, 7)]
    assert {one["author"] for one in listed} == {"local"}
    assert site.get("/marks", params={"model": "other"}).json() == []
    assert [action for action, _, _ in audit(site)] == ["mark"] * 3


LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/mutes", {**MUTE, "model": "nobody"}, 404, "no model 'nobody'"),
        ("/mutes", {**MUTE, "point": "a:inpt"}, 404, "did you mean 'a:input'?"),
        ("/mutes", {**MUTE, "point": ""}, 422, "body.point"),
        ("/mutes", {**MUTE, "seconds": 10}, 422, "body.seconds"),
        ("/mutes", {**MUTE, "seconds": 400 * 86_400}, 422, "body.seconds"),
        ("/mutes", {**MUTE, "reason": "  "}, 422, "body.reason"),
        ("/mutes", {**MUTE, "reason": "a\nb"}, 422, "body.reason"),
        ("/mutes", {**MUTE, "reason": "a\u2028b"}, 422, "body.reason"),
        ("/mutes", {**MUTE, "until": "tomorrow"}, 422, "body.until"),
        ("/mutes/end", {"model": "net"}, 404, "nothing of net is muted"),
        ("/mutes/end", {"model": "nobody"}, 404, "no model 'nobody'"),
        ("/marks", {"model": "nobody", "text": "x"}, 404, "no model 'nobody'"),
        ("/marks", {"model": "net", "text": ""}, 422, "body.text"),
        ("/marks", {"model": "net", "text": "x", "at": "soon"}, 422, "body.at"),
        ("/marks", {"model": "net", "text": "x", "at": LATER}, 400, "has happened"),
        ("/marks", {"model": "net", "text": "x", "at": "1960-01-01T00:00:00Z"}, 400, "1970"),
    ],
    ids=range(16),
)
def test_what_cannot_be_said_is_a_problem_and_changes_nothing(
    path, body, status, told, site, traffic
):
    site.record(traffic)

    answer = site.post(path, body)

    assert answer.status_code == status
    assert told in answer.json()["detail"]
    assert site.get("/mutes", params={"every": True}).json() == []
    assert site.get("/marks").json() == []
    assert audit(site) == []


def test_it_takes_the_scope_trigger(make_site, tokens_file):
    path = tokens_file(
        '[eye]\nsecret = "0123456789abcdef"\nscopes = ["read"]\n'
        '[ci]\nsecret = "fedcba9876543210"\nscopes = ["trigger", "read"]\n'
    )
    site = make_site(tokens=path)
    secrets = ("0123456789abcdef", "fedcba9876543210")
    eye, ci = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
    orders = (
        ("/mutes", {"model": "net", "seconds": 60, "reason": "x"}),
        ("/marks", {"model": "net", "text": "x"}),
        ("/mutes/end", {"model": "net"}),
    )

    refused = [site.post(path, body, headers=eye).status_code for path, body in orders]
    unknown = [site.post(path, body).status_code for path, body in orders]
    done = [site.post(path, body, headers=ci).status_code for path, body in orders]

    assert (refused, unknown, done) == ([403] * 3, [401] * 3, [200] * 3)
    assert site.get("/mutes", headers=eye).status_code == 200
    assert site.get("/mutes").status_code == 401
    entries = site.get("/audit", headers=eye).json()["items"]
    assert {one["actor"] for one in entries} == {"ci"}


def test_without_tokens_the_audit_names_who_says_to_ask(site):
    def marked(name):
        headers = {} if name is None else {"X-Calidrift-User": name}
        return site.post("/marks", {"model": "net", "text": "x"}, headers=headers)

    told = [marked(name).json()["author"] for name in (None, "eve", "J%C3%BCrgen%20B.", "n" * 64)]
    wrong = [marked(name) for name in ("", "%20", "a%0Ab", "n" * 65)]

    assert told == ["local", "eve (local)", "Jürgen B. (local)", "n" * 64 + " (local)"]
    assert [one.status_code for one in wrong] == [400] * 4
    assert "X-Calidrift-User must be a name of at most 64" in wrong[0].json()["detail"]
    assert {actor for _, actor, _ in audit(site)} == set(told)


def test_with_tokens_nobody_says_who_they_are(make_site, tokens_file):
    path = tokens_file('[ci]\nsecret = "fedcba9876543210"\nscopes = ["trigger", "read"]\n')
    site = make_site(tokens=path)
    headers = {"Authorization": "Bearer fedcba9876543210", "X-Calidrift-User": "eve"}

    assert site.post("/marks", MARK, headers=headers).json()["author"] == "ci"
    assert site.post("/marks", MARK, headers={"X-Calidrift-User": "ci"}).status_code == 401


def test_all_names_of_this_machine_are_one_caller(make_site):
    site = make_site(requests_per_minute=2)

    answers = [
        site.post("/marks", MARK, headers={"X-Calidrift-User": name}).status_code
        for name in "abcdef"
    ]

    assert 429 in answers


@pytest.mark.parametrize(
    ("name", "sent"),
    [("eve", "eve"), ("Jürgen B.", "J%C3%BCrgen%20B."), ("local", ""), ("", "")],
    ids=["plain", "encoded", "nobody", "empty"],
)
def test_how_a_command_names_its_user(name, sent):
    assert user_header(name) == sent


def test_a_name_that_no_service_takes_is_cut():
    assert user_header("a\n\udce9" + "b" * 99) == "a" + "b" * 63


def test_a_mute_of_which_the_commit_was_lost_is_found_not_doubled(tmp_path, monkeypatch):
    """A full disk may take the database down after a commit became durable."""
    with Store.open(tmp_path / "x.duckdb") as store:
        asked = []

        def changing(book, change, *, done):
            asked.append(done())
            change()
            asked.append(done())

        monkeypatch.setattr(type(store.jobs), "changing", changing)
        now = time.time_ns()
        wanted = Mute(
            model="net", point=None, created_ns=now, until_ns=now + 10**12, reason="x", author="eve"
        )
        mute(store, wanted)
        unmute(store, "net", None, every=False, author="eve")
        mark(store, Marker(model="net", at_ns=now, text="x", author="eve", created_ns=now))

    assert asked == [None, True] * 3


@pytest.fixture
def serving(tmp_path, monkeypatch, answering):
    """A service in a process of its own; gives a configuration that names its port."""
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        '[ops]\nsecret = "0123456789abcdef"\nscopes = ["read", "trigger"]\n', encoding="utf-8"
    )
    tokens.chmod(0o600)
    more = 'tokens = "tokens.toml"'
    path = tmp_path / "calidrift.toml"
    path.write_text(CONFIG.format(port=0, more=more), encoding="utf-8")
    code = "from calidrift_agent._command_line import main; main()"
    words = [sys.executable, "-c", code, "serve", "--json", "--config", str(path)]
    with answering(words, limit=DEADLINE) as (_, url):
        path.write_text(CONFIG.format(port=urlsplit(url).port, more=more), encoding="utf-8")
        yield path


@pytest.mark.slow
def test_commands_go_through_the_service_that_holds_the_database(serving, capsys):
    def told(*words, status=0):
        capsys.readouterr()
        ended = run([*words, "--config", str(serving), "--json"])
        found = json.loads(capsys.readouterr().out)
        assert ended == status, found
        return found

    muted = told("mute", "net", "fc:input", "--for", "2h", "--reason", "a new camera")
    listed = told("mutes", "net")
    marked = told("mark", "net", "deployed 2.3", "--at", "2026-01-15 08:00")
    marks = told("marks")
    ended = told("unmute", "net", "fc:input", "--reason", "it is back")
    every = told("mutes", "--all")
    nothing = told("unmute", "net", status=2)
    wrong = told("mute", "nett", "--for", "2h", "--reason", "x", status=2)
    entries = told("jobs", "audit")["items"]
    seen = told("status", status=2)["error"]["message"]

    assert "the service on http://127.0.0.1:" in seen
    assert seen.endswith("do not stop it")
    one = muted["mute"]
    assert (one["point"], one["author"], one["state"]) == ("fc:input", "ops", "active")
    assert one["until_ns"] - one["created_ns"] == 7_200 * 10**9
    assert (muted["points"], listed["mutes"]) == ([], [one])
    assert marked["marker"]["at_ns"] == 1_768_464_000 * 10**9
    assert marks["markers"] == [marked["marker"]]
    assert [found["point"] for found in ended["ended"]] == ["fc:input"]
    assert every["mutes"][0]["ended_because"] == "it is back"
    assert "nothing of net is muted" in nothing["error"]["message"]
    assert "known: net" in wrong["error"]["message"]
    assert [found["action"] for found in entries] == ["unmute", "mark", "mute"]
    assert {found["actor"] for found in entries} == {"ops"}


def test_without_a_service_the_audit_names_the_person(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)
    path = tmp_path / "calidrift.toml"
    path.write_text(CONFIG.format(port=0, more=""), encoding="utf-8")
    for words in (
        ["mute", "net", "--for", "1h", "--reason", "x"],
        ["mark", "net", "deployed"],
        ["unmute", "net"],
    ):
        assert run([*words, "--config", str(path)]) == 0
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        entries = store.jobs.audit()

    assert [one.action for one in entries] == ["unmute", "mark", "mute"]
    assert {one.actor for one in entries} == {user_name()}
    assert "no point of net is known yet" in capsys.readouterr().err


def test_a_name_that_is_too_long_is_told(tmp_path, capsys, monkeypatch):
    path = tmp_path / "calidrift.toml"
    path.write_text(CONFIG.format(port=0, more=""), encoding="utf-8")

    status = run(["mute", "net", "x" * 600, "--for", "1h", "--reason", "x", "--config", str(path)])

    assert status == 2
    assert "point: String should have at most 512 characters" in capsys.readouterr().err
