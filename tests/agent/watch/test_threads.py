"""Eight request threads: nothing is lost, nothing is counted twice, nobody sees the others."""

import threading

import pytest
import torch

from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn
from calidrift_agent._watch import WatchOptions

THREADS, CALLS = 8, 40


def in_threads(work, threads=THREADS):
    failures = []

    def guarded(number):
        try:
            work(number)
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


@pytest.mark.parametrize("drains", [False, True])
def test_no_count_is_lost(net, x, watch_all, drains):
    seconds = 0.01 if drains else 3600
    watch = watch_all(
        net, options=WatchOptions(budget=None, drain_seconds=seconds, window_seconds=0.1)
    )
    with torch.no_grad():
        expected = net(x)

    def work(number):
        with torch.no_grad():
            for _ in range(CALLS):
                assert torch.equal(net(x), expected)
                if number == 0:
                    watch.snapshot()

    in_threads(work)
    _, total = watch.snapshot()
    calls = THREADS * CALLS + 1
    assert total.requests[: RequestColumn.OBSERVED + 1].tolist() == [calls] * 3
    assert total.counts[:, CountColumn.ROWS].tolist() == [4 * calls] * 2
    assert total.counts[:, CountColumn.ELEMENTS].tolist() == [200 * calls, 16 * calls]
    assert total.cells.sum(axis=1).tolist() == [200 * calls, 16 * calls]
    assert not total.requests[RequestColumn.ERROR_FIRST :].any()
    assert "forward" not in net.fc.__dict__


def test_every_call_is_seen_exactly_whatever_is_sampled(net, x, watch_all):
    watch = watch_all(net, sample_rate=0.1)

    def work(_):
        with torch.no_grad():
            for _ in range(500):
                net(x)

    in_threads(work)
    seen, sampled, observed = watch.snapshot()[1].requests[: RequestColumn.OBSERVED + 1].tolist()
    assert seen == THREADS * 500
    assert sampled == observed
    assert 250 < sampled < 600  # binomial: 400 +- 19


def test_requests_of_other_threads_are_not_observed(net, x, watch_all):
    """One observed call stands still inside its forward while another thread is served."""
    inside, go_on = threading.Event(), threading.Event()
    original = net.act.forward
    slow = []

    def waiting(value):
        if threading.get_ident() in slow:
            inside.set()
            assert go_on.wait(20)
        return original(value)

    watch = watch_all(net)
    gate = watch._active.engine._parts.gate
    net.act.forward = waiting
    small, large = x, x * 1000

    def observed():
        slow.append(threading.get_ident())
        with torch.no_grad():
            net(small)

    worker = threading.Thread(target=observed)
    worker.start()
    assert inside.wait(20)
    gate.decisions = bytes(len(gate.decisions))  # this request is not sampled
    with torch.no_grad():
        expected = type(net).forward(net, large)
        assert torch.equal(net(large), expected)
    go_on.set()
    worker.join()
    _, total = watch.snapshot()
    assert total.requests[RequestColumn.OBSERVED] == 1
    assert total.values[0, ValueColumn.HIGHEST] == float(small.max())
    assert total.counts[:, CountColumn.ROWS].tolist() == [4, 4]
    assert set(vars(net.fc)) == set(vars(type(net.fc)(1, 1)))


def test_calls_that_overlap_are_each_observed(net, watch_all):
    barrier = threading.Barrier(4)
    original = net.act.forward

    def meeting(value):
        barrier.wait(20)
        return original(value)

    net.act.forward = meeting
    watch = watch_all(net)

    def work(number):
        with torch.no_grad():
            net(torch.full((number + 1, 2, 5, 5), float(number)))

    in_threads(work, 4)
    _, total = watch.snapshot()
    assert total.counts[:, CountColumn.ROWS].tolist() == [10, 10]
    assert total.values[0].tolist()[:2] == [0.0, 3.0]
    assert "forward" not in net.fc.__dict__


def test_closing_while_requests_run(net, x, watch_all):
    with torch.no_grad():
        expected = net(x)
    for _ in range(5):
        watch = watch_all(net)
        stop = threading.Event()

        def work(_, stop=stop):
            with torch.no_grad():
                while not stop.is_set():
                    assert torch.equal(net(x), expected)

        closer = threading.Timer(0.05, lambda w=watch, s=stop: (w.close(), s.set()))
        closer.start()
        in_threads(work, 4)
        closer.join()
        assert "forward" not in net.__dict__
        assert "forward" not in net.fc.__dict__
