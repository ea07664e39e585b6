"""Requests of the demo: each answer is checked, and none that is missing is overlooked."""

import json
import time

import numpy as np
import pytest

from calidrift_analyzer.demo._data import Condition
from calidrift_analyzer.demo._traffic import Traffic
from calidrift_analyzer.demo.stack._load import Load

ENOUGH = 60.0


def answer(version, digits=32):
    return 200, json.dumps({"version": version, "digits": [0] * digits}).encode()


def until(ready):
    deadline = time.monotonic() + ENOUGH
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_answers_are_counted_by_version_and_conditions_shift(server):
    version = ["one"]
    with server(lambda path, body: answer(version[0])) as (address, answers):
        with Load(address, Traffic(0), 200.0, (Condition.LOW_LIGHT,)) as load:
            until(lambda: load.served.requests >= 5)
            calm = len(answers.asked)
            version[0] = "two"
            load.shift((Condition.NOISY,))
            until(lambda: load.served.answers.get("two", 0) >= 5)
        served = load.served

    assert served.lost == 0
    assert served.requests == sum(served.answers.values()) == len(answers.asked)
    assert served.first_ns["one"] < served.first_ns["two"] <= time.time_ns()
    assert served.slowest_seconds > 0
    segments = [headers["X-Segment"] for _, headers, _ in answers.asked]
    assert set(segments[:calm]) <= {"low-light", "noisy"}
    assert segments[0] == "low-light"
    assert segments[-1] == "noisy"
    path, _, body = answers.asked[0]
    assert path == "/classify"
    assert np.frombuffer(body, np.float32).shape == (32 * 64,)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ((500, b"broken"), "status 500"),
        ((None, b""), "Disconnected"),
        ((200, b"no json"), "Expecting value"),
        ((200, b"{}"), "digits"),
        (answer("one", digits=31), "31 digits of 32"),
    ],
    ids=["status", "cut", "text", "fields", "rows"],
)
def test_whatever_is_no_good_answer_is_a_loss(bad, told, server):
    replies = iter([answer("one"), bad])
    with (
        server(lambda path, body: next(replies, answer("one"))) as (address, _),
        Load(address, Traffic(0), 200.0, (Condition.LOW_LIGHT,)) as load,
    ):
        until(lambda: load.served.requests >= 4)
        served = load.stop()

    assert served.lost == 1
    [loss] = served.loss
    assert told in loss


def test_a_service_that_is_gone_loses_everything_and_ends_nothing(server):
    with server(lambda path, body: answer("one")) as (address, _):
        pass
    with Load(address, Traffic(0), 200.0, (Condition.LOW_LIGHT,)) as load:
        until(lambda: load.served.lost >= 10)
        served = load.stop()

    assert served.answers == {}
    assert len(served.loss) == 5
