"""Questions to Prometheus, Alertmanager and the analyzer, as these answer them."""

import json
import urllib.error
from urllib.parse import parse_qs, urlsplit

import pytest

from calidrift_analyzer.demo.stack._questions import Questions, moment_ns

FIRING = {"labels": {"alertname": "A", "action": "recalibrate"}, "state": "firing"}
METRICS = b"""# TYPE alertmanager_notifications_total counter
alertmanager_notifications_total{integration="webhook"} 4
alertmanager_notifications_total{integration="email"} 9
# TYPE alertmanager_notifications_failed_total counter
alertmanager_notifications_failed_total{integration="webhook"} 1
"""
ANSWERS = {
    "/api/v1/alerts": {
        "data": {
            "alerts": [
                FIRING,
                {**FIRING, "state": "pending"},
                {**FIRING, "labels": {"alertname": "B"}},
            ]
        }
    },
    "/api/v2/alerts": [FIRING],
    "/api/v1/jobs": {"items": [{"job": 2}, {"job": 1}]},
    "/api/v1/jobs/2": {"job": {"job": 2}},
    "/api/v1/models/digits": {"units": 3},
    "/api/v1/models/digits/rollback": {"sentence": "000001-a serves again"},
}


def sample(value, **labels):
    return {"metric": labels, "value": [1.0, value]}


@pytest.fixture
def asked(server):
    results = {"one": [sample("0.5")], "nan": [sample("NaN")], "names": []}
    results["names"] = [sample("1", alertname=name) for name in ("B", "A", "B")]

    def answer(path, body):
        parts = urlsplit(path)
        if parts.path == "/metrics":
            return 200, METRICS
        if parts.path == "/api/v1/query":
            [expression] = parse_qs(parts.query)["query"]
            if expression.startswith("max_over_time"):
                expression = "names" if 'action="' in expression else "none"
            if expression == "wrong":
                return 400, b'{"status":"error"}'
            return 200, json.dumps({"data": {"result": results.get(expression, [])}}).encode()
        return 200, json.dumps(ANSWERS[parts.path]).encode()

    with server(answer) as (address, answers):
        found = Questions(
            prometheus=address,
            alertmanager=address,
            analyzer=address,
            token="s3cret",
            decides="d3cide",
        )
        yield found, answers


@pytest.mark.parametrize(("expression", "value"), [("one", 0.5), ("none", None), ("nan", None)])
def test_no_sample_is_no_value(expression, value, asked):
    assert asked[0].value(expression) == value


def test_a_wrong_expression_is_no_silence(asked):
    with pytest.raises(urllib.error.HTTPError):
        asked[0].value("wrong")


def test_alerts_are_those_that_fire_and_ask_for_new_ranges(asked):
    assert asked[0].firing() == (FIRING,)
    assert asked[0].known_to_alertmanager() == 1
    assert asked[0].fired() == ("A", "B")
    assert asked[0].fired(repairs=False) == ()


def test_notifications_are_those_of_webhooks(asked):
    assert asked[0].notifications() == (4, 1)


def test_only_the_analyzer_gets_the_token(asked):
    questions, answers = asked

    assert [one["job"] for one in questions.jobs()] == [2, 1]
    assert questions.job(2) == {"job": {"job": 2}}
    assert questions.model() == {"units": 3}
    questions.firing()

    sent = [headers.get("Authorization") for _, headers, _ in answers.asked]
    assert sent == ["Bearer s3cret"] * 3 + [None]


def test_a_rollback_is_ordered_with_a_token_of_its_own(asked):
    questions, answers = asked

    assert questions.roll_back("000001-a", "why not") == "000001-a serves again"

    [(path, headers, body)] = answers.asked
    assert (path, headers["Authorization"]) == (
        "/api/v1/models/digits/rollback",
        "Bearer d3cide",
    )
    assert json.loads(body) == {"to": "000001-a", "note": "why not"}


def test_moments_are_utc():
    assert moment_ns("2027-01-15T08:00:00.5Z") == 1_800_000_000_500_000_000
    assert moment_ns("2027-01-15T08:00:00+00:00") == 1_800_000_000_000_000_000
