"""The controller keeps its target, recovers, and lets requests be seen rarely."""

import numpy as np
import pytest
import torch

from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent._watch import WatchOptions
from calidrift_agent._watch._budget import FLOOR, BudgetController, Cost

MS = 1_000_000


def settle(controller, cost_ms, forward_ms, updates=400, calls=5, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        factor = float(rng.lognormal(0.0, noise)) if noise else 1.0
        own = round(calls * cost_ms * factor * MS)
        controller.update(Cost(calls, own, calls * forward_ms * MS))
    return controller.ratio


@pytest.mark.parametrize(
    ("cost", "forward", "ratio"),
    [
        (1.28, 1, 0.0078),  # a shadow pass of one row, compiled INT8
        (10, 1, 0.001),  # an interpreted pass
        (200, 1, 5e-5),
        (0.05, 1, 0.01),  # cheap: the limit holds
        (1, 1, 0.01),
    ],
)
def test_the_share_of_the_forward_time_stays_at_the_target(cost, forward, ratio):
    found = settle(BudgetController(0.01, 0.01), cost, forward)
    assert found <= 0.01
    assert found == pytest.approx(ratio, rel=0.25)
    assert found * cost / forward <= 0.0101


def test_noise_does_not_push_it_over_the_target_for_long():
    controller = BudgetController(0.01, 1.0)
    settle(controller, 3, 1, noise=0.3)
    shares = [settle(controller, 3, 1, updates=1, noise=0.3, seed=seed) * 3 for seed in range(200)]
    assert np.mean(shares) < 0.0115


def test_it_recovers_when_observing_becomes_cheap_again():
    controller = BudgetController(0.01, 0.05)
    low = settle(controller, 50, 1)
    assert low < 0.0003
    assert settle(controller, 0.1, 1) == pytest.approx(0.05)


def test_it_never_stops_altogether():
    assert settle(BudgetController(0.01, 0.01), 1e6, 1) == FLOOR


def test_the_first_calls_do_not_count():
    controller = BudgetController(0.01, 0.01)
    controller.update(Cost(1, 500 * MS, MS, 500 * MS))  # a plan is made, memory is fresh
    controller.update(Cost(1, 500 * MS, MS, 500 * MS))
    assert controller.ratio == 0.01
    assert settle(controller, 0.1, 1, updates=3) == 0.01


@pytest.mark.parametrize("target", [None, 0.01])
def test_without_calls_or_control_the_ratio_stays(target):
    controller = BudgetController(target, 0.5)
    assert controller.update(Cost(0, 0, 0)) == 0.5
    if target is None:
        assert settle(controller, 100, 1) == 0.5
    assert controller.mean_forward_ns == (MS if target is None else 0)


def test_a_watch_lowers_its_ratio_and_says_so(net, x, watch_all, monkeypatch):
    watch = watch_all(net, options=WatchOptions(budget=0.01, drain_seconds=3600, seed=0))
    engine = watch._active.engine
    with torch.no_grad():
        for _ in range(60):
            net(x)  # tiny: observing costs more than the forward itself
            engine.tick()
    ratio = watch.report().sampling_ratio
    assert ratio < 0.2
    assert engine._parts.sampler.ratio == ratio
    window = watch.flush()
    assert window.sampling_ratio == ratio
    decisions = np.frombuffer(engine._parts.gate.decisions, np.uint8) & 1
    assert decisions.mean() < 0.25
    requests = watch.snapshot()[1].requests
    assert requests[RequestColumn.SEEN] == 60 > requests[RequestColumn.OBSERVED]
    assert requests[RequestColumn.OVERHEAD_NS] > 0


def asleep(watch):
    """Leave the drain to the test."""
    thread = type("Asleep", (), {"wake": lambda *_: None, "join": lambda *_: None})()
    watch._active.engine._thread = thread


def test_forward_time_is_scaled_to_all_requests(net, x, watch_all):
    watch = watch_all(net, sample_rate=0.3)
    asleep(watch)
    with torch.no_grad():
        for _ in range(100):
            net(x)
    calls = list(watch._active.engine.intake._calls)
    mean = sum(call.forward_ns for call in calls) / len(calls)
    total = watch.snapshot()[1].requests
    assert 10 < total[RequestColumn.OBSERVED] == len(calls) < 60
    assert total[RequestColumn.FORWARD_NS] == pytest.approx(100 * mean, rel=1e-6)


def test_the_limit_of_a_waiting_queue_is_counted_where_there_is_a_budget(net, x, watch_all):
    watch = watch_all(net, options=WatchOptions(budget=1.0, drain_seconds=3600))
    asleep(watch)
    with torch.no_grad():
        for _ in range(70):
            net(x)
    total = watch.snapshot()[1].requests
    assert total[RequestColumn.OBSERVED] == 64
    assert total[RequestColumn.DROP_FIRST] == 6
