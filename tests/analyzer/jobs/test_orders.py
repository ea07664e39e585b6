"""Whether there will be a job: every refusal has its reason, and the same alert counts once."""

import time

import pytest

from calidrift_analyzer.config import Mode
from calidrift_analyzer.jobs import Order, freeze, order_job, resolve_trigger
from calidrift_analyzer.records import JobKind, JobState, Trigger
from calidrift_analyzer.store import Step, StoreLostError


def order(model="net", trigger=Trigger.ALERTMANAGER, key="a", **more):
    return Order(model=model, trigger=trigger, cause="an alert", actor="am", key=key, **more)


def ask(bench, *given, **more):
    return order_job(bench.store, order(*given, **more), bench.config.service)


def end(bench, job, state=JobState.PROMOTED):
    bench.store.jobs.step(Step(job=job, state=JobState.SELECTING, sentence="began"))
    bench.store.jobs.step(Step(job=job, state=state, sentence="ended"))


def audited(bench):
    return [(row.action, row.outcome, row.subject) for row in bench.store.jobs.audit()]


def test_an_order_is_a_job_and_an_entry_of_the_audit(bench):
    answer = ask(bench)

    job = bench.store.jobs.find(answer.job)
    assert (answer.job, answer.new, answer.refused) == (1, True, False)
    assert answer.sentence == "job 1 is queued"
    assert (job.model, job.state, job.trigger, job.actor, job.attempts) == (
        "net",
        JobState.QUEUED,
        Trigger.ALERTMANAGER,
        "am",
        1,
    )
    assert audited(bench) == [("recalibration", "done", "job 1")]


def test_the_same_alert_leads_to_one_job_for_ever(bench):
    ask(bench)
    again = ask(bench)
    end(bench, 1)
    later = ask(bench)

    assert (again.job, again.new, again.refused) == (1, False, False)
    assert (later.job, later.new) == (1, False)
    assert len(bench.store.jobs.page()) == 1


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.AWAITING_APPROVAL])
def test_one_job_at_a_time_works_on_a_model(state, bench):
    ask(bench)
    if state is not JobState.QUEUED:
        bench.store.jobs.step(Step(job=1, state=state, sentence="there"))

    second = ask(bench, key="b")
    other = ask(bench, "other", key="c")

    assert second.refused
    assert f"job 1 of net is {state.value.replace('_', ' ')}" in second.sentence
    assert other.new


def test_an_alert_that_was_refused_gets_its_job_when_nothing_speaks_against_it_any_more(bench):
    ask(bench)
    refused = [ask(bench, key="b") for _ in range(3)]
    end(bench, 1)
    accepted = ask(bench, key="b")

    assert [one.refused for one in refused] == [True] * 3
    assert accepted.job == 2
    assert audited(bench) == [
        ("recalibration", "done", "job 2"),
        ("recalibration", "refused", "an alert"),  # told once, however often it came
        ("recalibration", "done", "job 1"),
    ]


@pytest.mark.parametrize("trigger", [Trigger.ALARM, Trigger.GRAFANA, Trigger.SCHEDULE])
def test_after_a_recalibration_automatic_orders_wait_for_the_cool_down(trigger, bench):
    bench.told(cool_down_seconds=3_600.0)
    ask(bench)
    end(bench, 1)

    automatic = ask(bench, trigger=trigger, key="b")
    person = ask(bench, trigger=Trigger.API, key="")

    assert automatic.refused
    assert "ended less than cool_down_seconds (3600) ago" in automatic.sentence
    assert person.new


def test_the_cool_down_ends(bench):
    bench.told(cool_down_seconds=0.01)
    ask(bench)
    end(bench, 1)
    until = time.time_ns() + 10_000_000
    while time.time_ns() <= until:
        pass

    assert ask(bench, key="b").new


@pytest.mark.parametrize(
    ("seconds", "refused"), [(365 * 86_400, False), (60, True)], ids=["a year", "a minute"]
)
def test_a_clock_that_was_set_back_makes_nobody_wait_for_it(seconds, refused, bench, monkeypatch):
    bench.told(cool_down_seconds=3_600.0)
    right = time.time_ns
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time_ns", lambda: right() + seconds * 10**9)
        ask(bench)
        end(bench, 1)

    assert ask(bench, key="b").refused is refused


class Clock:
    """A clock that is right, but for `ahead` days."""

    def __init__(self, monkeypatch):
        self.now = time.time_ns
        self.ahead = 0.0
        monkeypatch.setattr(time, "time_ns", lambda: self.now() + int(self.ahead * DAY_NS))


DAY_NS = 86_400 * 10**9


@pytest.mark.parametrize("told_before", [False, True], ids=["first refusal", "told before"])
@pytest.mark.parametrize("days", [0.1, 0.9, 365.0])
def test_a_clock_that_is_set_back_neither_lifts_the_daily_cap_nor_keeps_it_for_ever(
    days, told_before, bench, monkeypatch
):
    bench.told(daily_cap=2)
    clock = Clock(monkeypatch)
    clock.ahead = days
    for key in ("a", "b"):
        end(bench, ask(bench, key=key).job)
    if told_before:
        assert ask(bench, key="c").refused

    clock.ahead = 0.0
    assert "within 24 hours" in ask(bench, key="c").sentence
    clock.ahead = 0.99
    assert "within 24 hours" in ask(bench, key="c").sentence
    clock.ahead = 1.01
    assert ask(bench, key="c").new


def test_a_clock_that_is_set_forward_is_a_day_that_passed(bench, monkeypatch):
    bench.told(daily_cap=1)
    clock = Clock(monkeypatch)
    end(bench, ask(bench).job)
    assert ask(bench, key="b").refused

    clock.ahead = 1.01

    assert ask(bench, key="b").new


def test_the_clock_of_one_model_is_that_of_all(bench, monkeypatch):
    """What anybody does behind a job says how late it can have been at most."""
    bench.told(daily_cap=1)
    clock = Clock(monkeypatch)
    clock.ahead = 365.0
    end(bench, ask(bench).job)
    clock.ahead = 0.0
    ask(bench, "other", key="d")
    clock.ahead = 1.01

    assert ask(bench, key="b").new


def test_a_job_that_never_began_counts_for_no_cool_down_and_no_cap(bench):
    bench.told(cool_down_seconds=3_600.0, daily_cap=1)
    ask(bench)
    bench.store.jobs.step(Step(job=1, state=JobState.CANCELLED, sentence="never mind"))

    assert ask(bench, key="b").new


def test_the_daily_cap_holds_for_people_too_and_for_each_model_alone(bench):
    bench.told(daily_cap=2)
    for key in ("a", "b"):
        end(bench, ask(bench, key=key).job)

    third = ask(bench, trigger=Trigger.COMMAND, key="")

    assert third.refused
    assert "recalibrated 2 times within 24 hours, and daily_cap is 2" in third.sentence
    assert ask(bench, "other", key="d").new
    assert ask(bench, key="", kind=JobKind.REVALIDATION).new


def test_where_recalibration_is_off_only_what_serves_may_be_measured(bench):
    bench.told(mode=Mode.OFF)

    assert "recalibration is off" in ask(bench).sentence
    assert ask(bench, key="", kind=JobKind.REVALIDATION).new


@pytest.mark.parametrize("frozen", ["net", ""])
def test_a_frozen_model_gets_no_job(frozen, bench):
    freeze(bench.store, frozen, frozen=True, actor="eve", note="audit week")

    answer = ask(bench)

    assert answer.refused
    assert "frozen by eve: audit week; thaw it first" in answer.sentence
    freeze(bench.store, frozen, frozen=False, actor="eve")
    assert ask(bench).new


def test_a_resolved_alert_cancels_a_job_that_has_not_begun(bench):
    ask(bench)

    answer = resolve_trigger(bench.store, order())
    again = resolve_trigger(bench.store, order())

    assert bench.state() == "cancelled"
    assert "resolved before job 1 began" in answer.sentence
    assert again.sentence == "resolved already"
    assert audited(bench)[0] == ("cancel", "done", "job 1")


def test_a_resolved_alert_lets_a_running_job_go_on(bench):
    ask(bench)
    bench.store.jobs.step(Step(job=1, state=JobState.RECALIBRATING, sentence="at work"))

    answer = resolve_trigger(bench.store, order())

    assert bench.state() == "recalibrating"
    assert answer.sentence == "the alert was resolved; job 1 goes on, it is recalibrating"


def test_a_resolution_that_overtook_its_alert_lets_it_pass(bench):
    first = resolve_trigger(bench.store, order())
    late = ask(bench)

    assert first.sentence == "the alert was resolved"
    assert (late.job, late.new, late.refused) == (None, False, False)
    assert bench.store.jobs.page() == ()


class Lost:
    """A database that dies once, right after the commit (True) or right before it (False)."""

    def __init__(self, monkeypatch, store, *, durable):
        connection = store._connection
        commit = connection._commit
        self.left = 1

        def dying():
            if not self.left:
                return commit()
            self.left -= 1
            if durable:
                commit()
            else:
                connection.rows("ROLLBACK")
            raise StoreLostError("the disk is full")

        monkeypatch.setattr(connection, "_commit", dying)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("key", ["a", ""])
def test_a_commit_that_was_lost_is_looked_for_before_it_is_made_again(
    durable, key, bench, monkeypatch
):
    lost = Lost(monkeypatch, bench.store, durable=durable)

    answer = ask(bench, key=key)

    assert lost.left == 0
    assert (answer.job, answer.new) == (1, True)
    assert len(bench.store.jobs.page()) == 1
    assert len(bench.store.jobs.steps(1)) == 1
    assert len(bench.store.jobs.audit()) == 1
