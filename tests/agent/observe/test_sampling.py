"""Decisions are independent draws; a law test that a periodic sampler fails."""

import threading

import numpy as np
import pytest

from calidrift_agent._observe import DECISIONS, CallCounter, Sampler
from calidrift_agent._observe._sampling import RENEW, SAMPLED


def decisions(tables):
    joined = np.frombuffer(b"".join(tables), np.uint8)
    return (joined & SAMPLED).astype(bool)


def gaps(sampled):
    return np.diff(np.flatnonzero(sampled))


def looks_geometric(sampled, ratio):
    """Share, spread and memorylessness of a Bernoulli process, at 5 standard errors."""
    n = sampled.size
    share = sampled.mean()
    if abs(share - ratio) > 5 * np.sqrt(ratio * (1 - ratio) / n):
        return False
    found = gaps(sampled)
    expected_spread = np.sqrt(1 - ratio) / ratio
    if abs(found.std() / expected_spread - 1) > 5 / np.sqrt(found.size):
        return False
    return abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 5 / np.sqrt(found.size)


@pytest.mark.parametrize("ratio", [0.3, 0.05, 0.01])
def test_decisions_are_independent(ratio):
    sampler = Sampler(ratio, seed=1)
    assert looks_geometric(decisions(sampler.draw() for _ in range(60)), ratio)


def test_the_law_fails_for_every_nth_call():
    periodic = np.zeros(60 * DECISIONS, bool)
    periodic[::20] = True
    assert not looks_geometric(periodic, 0.05)


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_nothing_and_everything(ratio, share):
    table = Sampler(ratio, seed=0).draw()
    assert decisions([table]).mean() == share
    assert [index for index, one in enumerate(table) if one & RENEW] == [DECISIONS - 1]


def test_tables_differ_and_follow_the_ratio():
    sampler = Sampler(0.5, seed=3)
    assert sampler.draw() != sampler.draw()
    sampler.ratio = 0.001
    assert decisions([sampler.draw()]).mean() < 0.01


def test_seeds_repeat_and_children_differ():
    one, two = Sampler(0.5, seed=3), Sampler(0.5, seed=3)
    assert one.draw() == two.draw()
    two.reseed(77)
    assert one.draw() != two.draw()
    free = Sampler(0.5)
    free.reseed(1)
    assert free.draw() != free.draw()


def test_rows_are_uniform():
    sampler = Sampler(1.0, seed=0)
    counts = np.bincount([sampler.row(4) for _ in range(4000)], minlength=4)
    assert counts.size == 4
    assert (np.abs(counts - 1000) < 5 * np.sqrt(750)).all()
    assert sampler.row(1) == 0


def test_calls_are_counted_exactly_while_they_are_read():
    counter, taken, stop = CallCounter(), [], threading.Event()

    def read():
        while not stop.is_set():
            taken.append(counter.take())

    def call():
        for _ in range(20_000):
            next(counter.calls)

    reader = threading.Thread(target=read)
    callers = [threading.Thread(target=call) for _ in range(8)]
    for thread in (reader, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    stop.set()
    reader.join()
    assert sum(taken) + counter.take() == 160_000
    assert counter.take() == 0


def test_reading_a_counter_uses_up_no_decision():
    counter = CallCounter()
    numbers = []
    for _ in range(5):
        numbers.append(next(counter.calls))
        assert counter.take() == 1
    assert numbers == [0, 1, 2, 3, 4]
