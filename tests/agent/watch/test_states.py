"""Why a watch does not observe any more: in its report, its metrics and its state file."""

import logging
import time

import pytest
import torch
from prometheus_client import CollectorRegistry

from calidrift_agent._state import StateDirectory, scan
from calidrift_agent._taps import CONSECUTIVE_LIMIT, Folder
from calidrift_agent._vocabulary import AgentState, RequestColumn, WindowFlag
from calidrift_agent._watch import WatchOptions
from calidrift_agent._watch._budget import (
    OVERRUN_WINDOWS,
    PASS_LIMIT,
    BudgetController,
    Cost,
    OverrunGuard,
)

MS = 1_000_000
OVER = {"own_ns": 40 * MS, "forward_ns": 1_000 * MS, "wall_ns": 2_000 * MS}


def exported(watch):
    registry = CollectorRegistry()
    registry.register(watch.collector())
    return {
        state: registry.get_sample_value(
            "calidrift_agent_state", {"model": "net", "state": str(state)}
        )
        for state in AgentState
    }


def in_the_file(folder):
    (model,) = StateDirectory(folder).read()
    return [state for state, number in model.states.items() if number]


def only(state):
    return {one: float(one is state) for one in AgentState}


def broken(*_, **__):
    raise ZeroDivisionError("planted")


def test_active_then_closed(net, x, watch_all, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    watch._active.engine.tick()
    assert exported(watch) == only(AgentState.ACTIVE)
    assert in_the_file(tmp_path) == [AgentState.ACTIVE]
    watch.close()
    assert exported(watch) == only(AgentState.CLOSED)
    (reader,) = scan(tmp_path)
    with reader:
        assert reader.total().flags & WindowFlag.CLOSED
        assert not reader.alive


def test_too_many_errors(net, x, watch_all, tmp_path, monkeypatch):
    watch = watch_all(net, state_dir=tmp_path)
    monkeypatch.setattr(Folder, "fold_ranges", broken)
    for _ in range(CONSECUTIVE_LIMIT):
        net(x)
        watch._active.engine.tick()
    net(x)
    watch._active.engine.tick()
    assert exported(watch) == only(AgentState.ERRORS)
    assert in_the_file(tmp_path) == [AgentState.ERRORS]
    assert "forward" not in net.__dict__
    watch.close()  # the first reason stays
    assert exported(watch) == only(AgentState.ERRORS)


def test_the_kill_file_is_for_good(net, x, watch_all, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    (tmp_path / "DISABLED").touch()
    watch._active.engine.tick()
    assert exported(watch) == only(AgentState.KILLED)
    assert in_the_file(tmp_path) == [AgentState.KILLED]
    (tmp_path / "DISABLED").unlink()
    watch._active.engine.tick()
    net(x)
    assert exported(watch) == only(AgentState.KILLED)
    assert "forward" not in net.__dict__
    again = watch_all(net, state_dir=tmp_path, name="net")
    assert again.report().active


def test_a_budget_that_cannot_be_kept(net, x, watch_all, tmp_path, caplog):
    options = WatchOptions(budget=1e-6, window_seconds=0.001, drain_seconds=3600.0)
    watch = watch_all(net, state_dir=tmp_path, options=options)
    with torch.no_grad(), caplog.at_level(logging.WARNING, "calidrift_agent"):
        for _ in range(OVERRUN_WINDOWS + 20):
            if not watch.report().active:
                break
            net(x)
            time.sleep(0.002)
            watch._active.engine.tick()
    watch._active.engine.tick()
    report = watch.report()
    assert not report.active
    assert any("beyond the budget of 0.0%" in note for note in report.notes)
    assert exported(watch) == only(AgentState.BUDGET)
    assert in_the_file(tmp_path) == [AgentState.BUDGET]
    assert sum("not watched any more" in record.message for record in caplog.records) == 1
    assert "forward" not in net.__dict__


def test_without_a_budget_nothing_is_too_much(net, x, watch_all):
    options = WatchOptions(budget=None, window_seconds=0.001, drain_seconds=3600.0)
    watch = watch_all(net, options=options)
    for _ in range(OVERRUN_WINDOWS + 3):
        net(x)
        time.sleep(0.002)
        watch._active.engine.tick()
    total = watch.snapshot()[1].requests
    assert total[RequestColumn.OVERHEAD_NS] > 0.03 * total[RequestColumn.FORWARD_NS]
    assert watch.report().active


@pytest.mark.parametrize(
    ("window", "gives_up"),
    [
        (OVER, True),
        ({**OVER, "own_ns": 29 * MS}, False),  # up to three times the budget
        ({**OVER, "wall_ns": 5_000 * MS}, False),  # hardly any traffic
        ({**OVER, "forward_ns": 0}, False),  # none at all
    ],
)
def test_three_windows_in_a_row(window, gives_up):
    guard = OverrunGuard(0.01)
    assert [guard.over(**window) for _ in range(OVERRUN_WINDOWS)] == [
        *[False] * (OVERRUN_WINDOWS - 1),
        gives_up,
    ]


def test_one_good_window_begins_the_row_anew():
    guard, good = OverrunGuard(0.01), {**OVER, "own_ns": 1}
    windows = [OVER, OVER, good, OVER, OVER, {**OVER, "forward_ns": 0}, OVER]
    assert [guard.over(**window) for window in windows] == [False] * 6 + [True]
    guard.reset()
    assert not guard.over(**OVER)
    assert not any(OverrunGuard(None).over(**OVER) for _ in range(9))


def test_one_pass_far_beyond_the_forward_time_is_enough():
    """Half by half it would take seven such passes; the next must already fit."""
    controller = BudgetController(0.01, 1.0)
    for _ in range(10):
        controller.update(Cost(1, MS // 1000, MS, MS // 1000))
    assert controller.ratio == 1.0
    dear = round(PASS_LIMIT * 5) * MS
    controller.update(Cost(5, dear, 5 * MS, dear))
    assert controller.ratio == pytest.approx(0.01 * MS / dear)


def test_a_pass_within_the_limit_cuts_as_the_mean_says():
    controller = BudgetController(0.01, 1.0)
    for _ in range(10):
        controller.update(Cost(1, MS // 1000, MS, MS // 1000))
    controller.update(Cost(1, round(PASS_LIMIT * MS * 0.99), MS, round(PASS_LIMIT * MS * 0.99)))
    assert controller.ratio == 0.5


def test_a_dear_pass_of_a_watch(net, x, watch_all, monkeypatch):
    options = WatchOptions(budget=0.5, drain_seconds=3600.0, window_seconds=3600.0)
    watch = watch_all(net, options=options)
    original = Folder.fold_ranges

    def serve(calls):
        with torch.no_grad():
            for _ in range(calls):
                net(x)
        watch._active.engine.tick()

    serve(4)
    serve(4)
    before = watch.report().sampling_ratio
    slow = []

    def sleepy(*args):
        if not slow:
            slow.append(time.sleep(0.5))
        return original(*args)

    monkeypatch.setattr(Folder, "fold_ranges", sleepy)
    while not slow:
        serve(8)
    # Half a second for a forward of well under 2.5 ms.
    assert watch.report().sampling_ratio < before / 4
