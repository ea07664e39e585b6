"""How much and how often: a caller that asks too much is slowed, the others are not."""

import pytest

from calidrift_analyzer.service._limits import RateLimit


def test_a_burst_is_admitted_then_the_rate():
    limit = RateLimit(60)

    assert [limit.admit("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert limit.admit("a", 0.0) == pytest.approx(1.0)
    assert limit.admit("a", 0.5) == pytest.approx(0.5)
    assert limit.admit("a", 1.0) == 0.0
    assert limit.admit("a", 1.0) > 0


def test_callers_do_not_pay_for_each_other():
    limit = RateLimit(1)

    assert limit.admit("a", 0.0) == 0.0
    assert limit.admit("a", 0.0) > 0
    assert limit.admit("b", 0.0) == 0.0


def test_a_bucket_never_overflows():
    limit = RateLimit(2)
    limit.admit("a", 0.0)

    assert [limit.admit("a", 10_000.0) > 0 for _ in range(3)] == [False, False, True]


def test_callers_that_come_once_are_forgotten():
    limit = RateLimit(10)
    for number in range(10_000):
        limit.admit(str(number), float(number))

    assert len(limit._left) <= 4_096


def test_too_many_requests_are_429_with_the_time_to_wait(make_site):
    site = make_site(requests_per_minute=3)

    answers = [site.get("/models") for _ in range(4)]

    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert answers[-1].json()["title"] == "Too Many Requests"


def test_guessing_tokens_is_slowed_too(make_site, tokens_file):
    site = make_site(
        requests_per_minute=3,
        tokens=tokens_file('[eye]\nsecret = "0123456789abcdef"\nscopes = ["read"]\n'),
    )
    wrong = {"Authorization": "Bearer guess-guess-guess"}
    right = {"Authorization": "Bearer 0123456789abcdef"}

    guesses = [site.get("/models", headers=wrong).status_code for _ in range(5)]

    assert guesses == [401, 401, 401, 429, 429]
    assert site.get("/models", headers=right).status_code == 200, "who has a token is not slowed"


@pytest.mark.parametrize("declared", ["-1", "much", "99999999999999999999"])
def test_a_length_that_cannot_be_is_413(declared, site):
    answer = site.http.post("/api/v1/jobs", content=b"{}", headers={"Content-Length": declared})

    assert answer.status_code == 413
