"""Alerts of Alertmanager and Grafana: one job for each, whatever is repeated or turned around."""

import hashlib
import hmac
import json
import time

import pytest

from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import JobState
from calidrift_analyzer.service import _api_hooks
from calidrift_analyzer.store._connection import Connection, StoreLostError

GROUP = '{}:{model="net"}'


def alert(model="net", status="firing", fingerprint="f9b6468460f3b44b", **more):
    """As Alertmanager 0.25 and 0.33 send it."""
    return {
        "status": status,
        "labels": {
            "alertname": "CalidriftDrift",
            "model": model,
            "severity": "critical",
            "action": "recalibrate",
        },
        "annotations": {"summary": f"{model} drifted", "runbook_url": "https://example.org"},
        "startsAt": "2026-11-20T23:45:03.698Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://vm:9914/graph",
        "fingerprint": fingerprint,
        **more,
    }


def alertmanager(*alerts, **more):
    return {
        "receiver": "recal",
        "status": "firing",
        "alerts": list(alerts) or [alert()],
        "groupLabels": {"model": "net"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://vm:9913",
        "version": "4",
        "groupKey": GROUP,
        "truncatedAlerts": 0,
        "notification_reason": "first notification",
        **more,
    }


def grafana(*alerts, **more):
    body = alertmanager(*(alerts or [alert(values={"A": 1.0}, silenceURL="http://g")]), **more)
    return {**body, "version": "1", "orgId": 1, "title": "t", "state": "alerting", "message": "m"}


@pytest.mark.parametrize(
    ("path", "body"), [("alertmanager", alertmanager()), ("grafana", grafana())]
)
def test_an_alert_becomes_a_job(path, body, site):
    answer = site.post(f"/webhooks/{path}", body)

    assert answer.status_code == 202
    [told] = answer.json()["alerts"]
    assert (told["job"], told["new"], told["refused"]) == (1, True, False)
    job = site.wait("awaiting_approval")["job"]
    assert (job["trigger"], job["cause"]) == (path, f"CalidriftDrift of {path}")


def test_the_same_alert_again_changes_nothing(site):
    answers = [site.post("/webhooks/alertmanager", alertmanager()) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [202] * 5
    assert [a.json()["alerts"][0]["job"] for a in answers] == [1] * 5
    assert [a.json()["alerts"][0]["new"] for a in answers] == [True] + [False] * 4
    assert len(site.get("/jobs").json()["items"]) == 1


def fingerprints(count):
    return [alert(fingerprint=f"{number:016x}") for number in range(count)]


@pytest.fixture
def commits(site, monkeypatch):
    """What was committed to the store since."""
    found = []
    commit = Connection._commit

    def noted(connection):
        found.append(connection)
        commit(connection)

    monkeypatch.setattr(Connection, "_commit", noted)
    return found


def test_many_alerts_are_one_transaction(site, commits):
    site.service.worker.stop()

    answer = site.post("/webhooks/alertmanager", alertmanager(*fingerprints(60)))

    told = answer.json()["alerts"]
    assert len(commits) == 1
    assert [one["new"] for one in told] == [True] + [False] * 59
    assert {one["sentence"] for one in told[1:]} == {
        "job 1 of net is queued; one job at a time works on a model: let it finish, or cancel it"
    }
    again = site.post("/webhooks/alertmanager", alertmanager(*fingerprints(60)))
    assert again.json()["alerts"][0]["sentence"] == "this alert led to job 1 already"
    assert len(site.get("/audit").json()["items"]) == 50, "one page; refusals are told once"
    assert site.run(lambda store: len(store.jobs.audit(limit=1_000))) == 60


def test_an_alert_that_is_listed_often_is_looked_at_once(site, monkeypatch):
    site.service.worker.stop()
    asked = []
    order = _api_hooks.order_job
    monkeypatch.setattr(
        _api_hooks, "order_job", lambda *given: asked.append(given) or order(*given)
    )

    told = site.post("/webhooks/alertmanager", alertmanager(*[alert()] * 40)).json()["alerts"]

    assert len(asked) == 1
    assert [(one["job"], one["new"]) for one in told] == [(1, True)] + [(1, False)] * 39


def test_firing_and_resolved_in_one_body_are_both_heard(site):
    site.service.worker.stop()

    told = site.post(
        "/webhooks/alertmanager", alertmanager(alert(), alert(), alert(status="resolved"))
    ).json()["alerts"]

    assert [one["job"] for one in told] == [1, 1, 1]
    assert site.get("/jobs/1").json()["job"]["state"] == "cancelled"


def test_a_body_that_fails_in_the_middle_changes_nothing_and_may_be_sent_again(site, monkeypatch):
    """5xx says that a retry helps: it finds nothing of the first try."""
    site.service.worker.stop()
    order, asked = _api_hooks.order_job, []

    def fails(*given):
        asked.append(given)
        if len(asked) == 3:
            raise StoreError("the disk is full")
        return order(*given)

    body = alertmanager(*fingerprints(4))
    with monkeypatch.context() as patched:
        patched.setattr(_api_hooks, "order_job", fails)
        failed = site.post("/webhooks/alertmanager", body)
    nothing = site.get("/jobs").json()["items"], site.get("/audit").json()["items"]
    again = site.post("/webhooks/alertmanager", body)

    assert failed.status_code >= 500
    assert nothing == ([], [])
    assert again.status_code == 202
    assert [one["new"] for one in again.json()["alerts"]] == [True, False, False, False]


def test_a_commit_that_is_lost_after_it_was_written_makes_no_second_job(site, monkeypatch):
    site.service.worker.stop()
    commit, lost = Connection._commit, []

    def loses(connection):
        commit(connection)
        if not lost:
            lost.append(connection)
            connection.reopen()
            raise StoreLostError("it died after the commit")

    monkeypatch.setattr(Connection, "_commit", loses)

    told = site.post("/webhooks/alertmanager", alertmanager(*fingerprints(3))).json()["alerts"]

    assert lost
    assert [one["job"] for one in told] == [1, None, None]
    assert len(site.get("/jobs").json()["items"]) == 1
    assert site.run(lambda store: len(store.jobs.audit(limit=1_000))) == 3


def test_another_beginning_is_another_alert(site):
    site.post("/webhooks/alertmanager", alertmanager())
    site.wait("awaiting_approval")
    site.post("/jobs/1/cancel")

    again = alert(startsAt="2026-11-21T00:00:00Z")
    answer = site.post("/webhooks/alertmanager", alertmanager(again))

    assert answer.json()["alerts"][0]["job"] == 2


def test_a_resolved_alert_cancels_what_has_not_begun(site):
    site.stages.hold = JobState.SELECTING
    site.post("/webhooks/alertmanager", alertmanager(alert("net")))
    site.wait("selecting")
    site.post("/webhooks/alertmanager", alertmanager(alert("other", fingerprint="b")))

    resolved = site.post(
        "/webhooks/alertmanager",
        alertmanager(
            alert("net", status="resolved"),
            alert("other", status="resolved", fingerprint="b"),
            status="resolved",
        ),
    )

    running, queued = resolved.json()["alerts"]
    assert running["sentence"] == "the alert was resolved; job 1 goes on, it is selecting"
    assert queued["sentence"] == "the alert was resolved before job 2 began; it is cancelled"
    site.stages.hold = None
    site.wait("awaiting_approval")
    site.wait("cancelled", job=2)


def test_an_alert_that_new_ranges_do_not_cure_asks_for_nothing(site):
    for labels in ({"model": "net"}, {"model": "net", "action": "page"}):
        answer = site.post("/webhooks/alertmanager", alertmanager(alert(labels=labels)))
        [told] = answer.json()["alerts"]
        assert answer.status_code == 202
        assert told["sentence"] == "passed over: it has no label action='recalibrate'"
    assert site.get("/jobs").json()["items"] == []


def test_a_resolution_may_come_first(site):
    site.post("/webhooks/alertmanager", alertmanager(alert(status="resolved")))
    late = site.post("/webhooks/alertmanager", alertmanager())

    assert late.json()["alerts"][0]["job"] is None
    assert site.get("/jobs").json()["items"] == []


@pytest.mark.parametrize(
    "labels",
    [
        {"model": "nobody"},
        {},
        {"model": "../../etc/passwd"},
        {"model": "os:system"},
        {"model": "net; DROP TABLE jobs"},
    ],
    ids=["unknown", "none", "path", "code", "sql"],
)
def test_only_a_configured_model_can_be_named(labels, site):
    answer = site.post("/webhooks/alertmanager", alertmanager(alert(labels=labels)))

    assert answer.status_code == 202
    [told] = answer.json()["alerts"]
    assert told["refused"]
    assert told["sentence"].startswith("passed over: no ")
    assert site.get("/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("alertmanager", {}),
        ("alertmanager", []),
        ("alertmanager", {"version": "4", "alerts": "all of them"}),
        ("alertmanager", grafana()),
        ("grafana", alertmanager()),
        ("grafana", {"version": "1"}),
        ("alertmanager", alertmanager(alert(status="maybe"))),
        ("alertmanager", alertmanager(alert(labels={"model": ["net"]}))),
        ("alertmanager", alertmanager(alert(startsAt="yesterday"))),
        ("alertmanager", alertmanager(*[alert()] * 1001)),
        ("alertmanager", alertmanager(alert(fingerprint="f" * 300))),
    ],
    ids=range(11),
)
def test_what_is_no_alert_is_refused_for_good(path, body, site):
    answer = site.post(f"/webhooks/{path}", body)

    assert answer.status_code == 422, "a server would send anything from 500 on again"
    assert site.get("/jobs").json()["items"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"version": "4", "alerts": [', b"null"])
def test_what_is_no_json_is_refused_for_good(body, site):
    answer = site.http.post(
        "/api/v1/webhooks/alertmanager", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code in (400, 422)


def test_half_a_character_reaches_no_disk(site):
    text = json.dumps(alertmanager(alert(labels={"model": "net", "alertname": "\ud800"})))
    answer = site.http.post(
        "/api/v1/webhooks/alertmanager", content=text, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code in (202, 400, 422)
    assert site.get("/jobs").status_code == 200


def test_a_custom_template_of_grafana_needs_only_its_alerts(site):
    answer = site.post("/webhooks/grafana", {"alerts": [alert()]})

    assert answer.json()["alerts"][0]["job"] == 1


def test_while_the_database_is_away_a_retry_helps(site):
    site.service.owner._available = False

    answer = site.post("/webhooks/alertmanager", alertmanager())

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    site.service.owner._available = True
    again = site.post("/webhooks/alertmanager", alertmanager())
    assert again.json()["alerts"][0]["new"]


SECRET = "s3cret-of-grafana-0123456789"


@pytest.fixture
def guarded(make_site, tokens_file):
    return make_site(
        tokens=tokens_file(
            f'[grafana]\nsecret = "{SECRET}"\nscopes = ["trigger"]\nhmac = true\n'
            '[am]\nsecret = "s3cret-of-alertmanager"\nscopes = ["trigger"]\n'
            '[eye]\nsecret = "s3cret-of-a-reader-000"\nscopes = ["read"]\n'
        )
    )


def signed(secret=SECRET, moment=None, body=None, sent=None):
    """As `hmacConfig` with a timestamp header signs."""
    moment = str(int(time.time()) if moment is None else moment)
    content = json.dumps(grafana() if body is None else body).encode()
    mac = hmac.new(secret.encode(), moment.encode() + b":" + content, hashlib.sha256)
    return {
        "content": content if sent is None else sent,
        "headers": {
            "Content-Type": "application/json",
            "X-Grafana-Alerting-Signature": mac.hexdigest(),
            "X-Grafana-Alerting-Timestamp": moment,
        },
    }


def test_a_signed_body_is_let_in(guarded):
    answer = guarded.http.post("/api/v1/webhooks/grafana", **signed())

    assert answer.status_code == 202
    assert guarded.run(lambda store: store.jobs.find(1)).actor == "grafana"


@pytest.mark.parametrize(
    "given",
    [
        lambda: signed(secret="another-secret-0123456789"),
        lambda: signed(secret="s3cret-of-alertmanager"),
        lambda: signed(sent=json.dumps(grafana(alert("other"))).encode()),
        lambda: signed(moment=time.time() - 3_600),
        lambda: signed(moment=time.time() + 3_600),
        lambda: {**signed(), "headers": {"X-Grafana-Alerting-Signature": "00"}},
    ],
    ids=["secret", "bearer-secret", "body", "old", "ahead", "no-timestamp"],
)
def test_a_signature_that_is_wrong_or_old_is_not(given, guarded):
    answer = guarded.http.post("/api/v1/webhooks/grafana", **given())

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer s3cret-of-alertmanager", 202),
        ("bearer s3cret-of-alertmanager", 202),
        ("Bearer s3cret-of-a-reader-000", 403),
        (f"Bearer {SECRET}", 401),
        ("Bearer ", 401),
        ("Basic czNjcmV0", 401),
        (None, 401),
    ],
)
def test_a_token_needs_the_scope(header, status, guarded):
    headers = {} if header is None else {"Authorization": header}

    answer = guarded.post("/webhooks/alertmanager", alertmanager(), headers=headers)

    assert answer.status_code == status
