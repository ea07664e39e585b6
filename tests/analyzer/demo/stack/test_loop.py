"""The loop as it is seen from outside, played by a script: what is waited for, and what ends it."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from calidrift_analyzer.demo.stack import _loop as module
from calidrift_analyzer.demo.stack._load import Served
from calidrift_analyzer.demo.stack._loop import Loop
from calidrift_analyzer.demo.stack._programs import Programs
from calidrift_analyzer.errors import RefusedError

FIRST, SECOND = "000001-a", "000002-b"
STATES = ("queued", "selecting", "recalibrating", "validating", "awaiting_approval", "promoted")


class Script:
    """Servers and traffic of one turn; the attributes say how far it has come."""

    def __init__(self):
        self.shifted = False
        self.alarm = 0.0
        self.alerts = ()
        self.states = ()
        self.state, self.finished, self.sentence = "promoted", True, "version 1 serves"
        self.swapped = False
        self.sent = 0
        self.serves = FIRST
        self.told = []
        self.heeds = True
        self.looks = 0
        self.behind = timedelta()
        self.began = datetime.now(UTC)

    # the traffic
    def shift(self, conditions):
        self.shifted = True
        self.alarm, self.alerts, self.states = 1.0, ("CalidriftDriftAlarm",), STATES
        self.swapped, self.sent, self.serves = True, 2, SECOND

    def slow_down(self, factor):
        self.slower = factor

    @property
    def served(self):
        first = {SECOND: 5 * 10**18} if self.swapped else {}
        return Served(10, 0, (), {FIRST: 10}, first, self.serves, 0.1)

    # the servers
    def roll_back(self, to, note):
        self.told.append(to)
        if self.heeds:
            self.serves = to or FIRST
        return f"{self.serves} serves again"

    def names(self, expression, label):
        return (self.serves,)

    def value(self, expression):
        if "version_attempts" in expression:
            return 2.0 if "served" in expression else None
        if "version_info" in expression:
            return 1.0 if self.serves in expression else None
        if "coverage" in expression:
            return 0.99 if expression.endswith(">= 0.95") else 0.4
        wanted = float(expression.rpartition("==")[2])
        if self.alarm == wanted:
            self.alarm = 0.0  # it has ended when somebody looks again
            return wanted
        return None

    def model(self):
        profile = "new" if self.shifted else "old"
        return {"units": 100, "profile": profile, "version": self.serves, **self.judged()}

    def judged(self):
        self.looks += 1  # a second passes between two looks
        last = datetime.now(UTC) + timedelta(seconds=self.looks)
        return {"last_window": last.isoformat(), "assessed": (last + self.behind).isoformat()}

    def firing(self):
        found, self.alerts = self.alerts, ()
        return tuple({"labels": {"alertname": name}} for name in found)

    def fired(self):
        return ("CalidriftDriftAlarm",)

    def known_to_alertmanager(self):
        return 0

    def notifications(self):
        return self.sent, 0

    def jobs(self):
        if not self.states:
            return []
        created = self.began.isoformat()
        job = {"job": 3, "trigger": "alertmanager", "actor": "am", "cause": "c"}
        return [{**job, "created": created}]

    def job(self, number):
        steps = [
            {"state": state, "event": "entered", "sentence": state, "at": self.at(state)}
            for state in self.states
        ]
        job = {"state": self.state, "finished": self.finished, "sentence": self.sentence}
        return {"job": job, "steps": steps, "report": {"candidate": {"id": "sketch-mse"}}}

    def at(self, state):
        return (self.began + timedelta(seconds=STATES.index(state))).isoformat()


class Narrator:
    def __init__(self):
        self.told = []

    @contextmanager
    def step(self, what):
        self.told.append(what)
        yield lambda what, done, total: None


@pytest.fixture
def turn(tmp_path, monkeypatch):
    for name in ("_CALM_SECONDS", "_ALERT_SECONDS", "_SWAP_SECONDS", "_JUDGED_SECONDS"):
        monkeypatch.setattr(module, name, 0.3)
    script = Script()
    with Programs(tmp_path, 60.0) as programs:
        loop = Loop(script, script, programs, Narrator())
        yield loop, script


def test_every_step_is_noted_with_its_own_time(turn):
    loop, script = turn

    loop.go_round(60)

    assert [step.name for step in loop.steps] == [
        "metrics show the drift",
        "the rule fires",
        "Alertmanager calls the webhook",
        "captured requests are selected",
        "candidates are made",
        "candidates are validated against FP32",
        "a version is promoted",
        "the serving process swaps",
        "coverage is restored",
        "the alert resolves",
        "Alertmanager tells it",
        "somebody rolls back",
        "the serving process swaps back",
        "metrics name the version",
        "the promoted version serves again",
    ]
    took = {step.name: step.took_seconds for step in loop.steps}
    assert took["candidates are made"] == pytest.approx(1.0, abs=0.01)
    assert took["a version is promoted"] == pytest.approx(1.0, abs=0.01)
    assert (loop.job, loop.version, loop.candidate) == (3, SECOND, "sketch-mse")
    assert (loop.first, script.told) == (FIRST, [None, SECOND])
    told = {step.name: step.told for step in loop.steps}
    assert told["metrics name the version"] == (
        f"{FIRST}; loads that ran every planned INT8 kernel: 2, that did not: 0"
    )
    assert loop.alerts == ("CalidriftDriftAlarm",)
    assert (loop.coverage_before, loop.coverage_after) == (0.4, 0.99)
    assert "the serving process swaps" in loop._narrator.told


def test_an_alert_before_the_shift_ends_it(turn):
    loop, script = turn
    script.alerts = ("CalidriftCoverageLow",)

    with pytest.raises(RefusedError, match=r"before the traffic had shifted.*another --seed"):
        loop.go_round(60)

    assert not script.shifted


def test_too_few_units_are_no_judgement(turn):
    loop, _ = turn

    with pytest.raises(RefusedError, match="low-light requests are judged"):
        loop.go_round(101)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {
                "states": STATES[:4],
                "state": "refused",
                "sentence": "candidate sketch-mse was refused",
            },
            "job 3 was not promoted: candidate sketch-mse was refused",
        ),
        ({"swapped": False}, "the serving process swaps"),
        ({"sent": 1}, "Alertmanager tells it"),
        ({"alerts": ()}, "a rule fires"),
        ({"states": ()}, "Alertmanager calls the webhook"),
        ({"heeds": False}, "the serving process swaps back"),
        ({"behind": timedelta(seconds=-1)}, "it is judged again"),
    ],
    ids=["refused", "swap", "resolved", "rule", "webhook", "rollback", "judged"],
)
def test_what_does_not_come_is_named(changes, told, turn):
    loop, script = turn
    shift = script.shift

    def changed(conditions):
        shift(conditions)
        for name, value in changes.items():
            setattr(script, name, value)

    script.shift = changed

    with pytest.raises(RefusedError, match=told):
        loop.go_round(60)
