"""Keyed requests: decided by a digest, noticed at no cost to the others."""

import threading

import numpy as np
import pytest

from calidrift_agent._observe import Decider, Gate, Sampler, request_context
from calidrift_agent._observe._context import listen, unlisten
from calidrift_agent._observe._sampling import LOOK, NO_DECISIONS, RENEW, SAMPLED

KEYS = [f"request-{number}" for number in range(20_000)]
SELECTED = ["request-28", "request-39"]
SELECTED_WITH_SALT = [
    "request-2",
    "request-6",
    "request-10",
    "request-11",
    "request-37",
    "request-39",
]


class Model:
    def forward(self, x):
        return x


@pytest.fixture
def decided():
    """A decider that has started; `make` gives gate and decider of another ratio."""
    started = []

    def make(ratio=0.5, *, seed=0, every=False, salt=b""):
        gate = Gate(Model())
        decider = Decider(gate, Sampler(ratio, seed, salt), every=every)
        gate.observe = lambda decision, args, kwargs: decision
        decider.start()
        started.append(decider)
        return gate, decider

    yield make
    for one in started:
        one.stop()


def looks_uniform(selects, ratio):
    """Share of selected keys, and of neighbours that are both, at 5 standard errors."""
    chosen = np.array([selects(key) for key in KEYS])
    spread = np.sqrt(ratio * (1 - ratio) / len(KEYS))
    both = (chosen[1:] & chosen[:-1]).mean()
    pairs = np.sqrt(ratio**2 * (1 - ratio**2) / len(KEYS))
    return abs(chosen.mean() - ratio) < 5 * spread and abs(both - ratio**2) < 10 * pairs


@pytest.mark.parametrize("ratio", [0.5, 0.1, 0.01])
def test_keys_are_selected_as_by_chance(ratio):
    assert looks_uniform(Sampler(ratio).selects, ratio)


def test_the_law_fails_for_every_nth_key():
    assert not looks_uniform(lambda key: int(key.rpartition("-")[2]) % 10 == 0, 0.1)


def test_the_same_key_is_decided_alike_everywhere():
    """In any process, on any machine: so the keys are written down here."""
    chosen = [key for key in KEYS[:40] if Sampler(0.1).selects(key)]
    assert chosen == SELECTED
    salted = [key for key in KEYS[:40] if Sampler(0.1, salt=b"service").selects(key)]
    assert salted == SELECTED_WITH_SALT


def test_a_lower_ratio_selects_a_part_of_a_higher_one():
    samplers = [Sampler(ratio) for ratio in (0.01, 0.1, 0.4)]
    sets = [set(filter(sampler.selects, KEYS)) for sampler in samplers]
    assert sets[0] < sets[1] < sets[2]


def test_any_text_is_a_key():
    for key in ("", "\ud800", "x" * 100_000, "ключ"):
        assert Sampler(1.0).selects(key)
        assert not Sampler(0.0).selects(key)


def keys_of(sampler, wanted):
    return next(key for key in KEYS if sampler.selects(key) is wanted)


def test_a_selected_key_is_observed_and_another_is_not(decided):
    gate, decider = decided(0.5)
    inside = keys_of(Sampler(0.5), True)
    outside = keys_of(Sampler(0.5), False)
    with request_context(key=inside):
        assert all(decider.observes(gate(None)) for _ in range(50))
    with request_context(key=outside):
        found = [gate(None) for _ in range(50)]
        assert not any(decider.observes(decision) for decision in found if decision is not None)
        assert any(decision is not None and decision & SAMPLED for decision in found)


def test_an_unsampled_call_is_not_looked_at_unless_a_selected_key_is_open(decided):
    gate, _ = decided(0.0)
    plain = gate.decisions
    with request_context(key="anything"):
        assert gate.decisions is plain
    gate, decider = decided(0.5)
    plain = gate.decisions
    with request_context(key=keys_of(Sampler(0.5), False)):
        assert gate.decisions is plain
    with request_context(key=keys_of(Sampler(0.5), True)):
        assert all(one & LOOK for one in gate.decisions)
        assert bytes(one & ~LOOK for one in gate.decisions[1:]) == plain[1:]
        with request_context(session="inner"):
            assert all(one & LOOK for one in gate.decisions)
        decider.renew()
        assert all(one & LOOK for one in gate.decisions)
    assert not any(one & LOOK for one in gate.decisions)


def test_others_are_decided_by_chance_while_a_selected_key_is_open(decided):
    gate, decider = decided(0.3, seed=1)
    decider.observes(gate(None))  # the first call of a process asks for a new table
    table = gate.decisions
    found = []

    def other():
        found.extend(decider.observes(gate(None)) for _ in range(3000))

    with request_context(key=keys_of(Sampler(0.3), True)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [bool(one & SAMPLED) for one in table[1:3001]]


def test_overlapping_blocks(decided):
    gate, _ = decided(1.0)
    first, second = request_context(key="a"), request_context(key="b")
    first.__enter__()
    inside = threading.Event()
    leave = threading.Event()

    def other():
        with second:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    first.__exit__(None, None, None)
    assert gate.decisions[5] & LOOK
    leave.set()
    thread.join()
    assert not gate.decisions[5] & LOOK


def test_many_blocks_in_many_threads_leave_nothing_behind(decided):
    gate, decider = decided(0.5, every=False)

    def work(number):
        for index in range(300):
            with request_context(key=f"{number}-{index}"):
                gate(None)
            if index % 7 == 0:
                decider.renew()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(one & LOOK for one in gate.decisions)


def test_the_ratio_of_the_moment_counts(decided):
    gate, decider = decided(0.5)
    key = keys_of(Sampler(0.5), True)
    with request_context(key=key):
        decider._sampler.ratio = 0.0
        decider.renew()
        assert not decider.observes(gate(None))
        assert gate.decisions[5] & LOOK


def test_models_that_decode_are_always_looked_at(decided):
    gate, decider = decided(0.1, every=True)
    assert all(one & LOOK for one in gate.decisions)
    shares = [decider.observes(one) for one in gate.decisions[:8000]]
    assert 0.08 < np.mean(shares) < 0.12


def test_a_table_is_used_once(decided):
    gate, decider = decided(0.5)
    table = gate.decisions
    assert decider.observes(table[-1] | RENEW) in (True, False)
    assert gate.decisions is not table


def test_a_closed_watch_gets_no_decisions(decided):
    gate, decider = decided(1.0)
    gate.detach()
    decider.renew()
    assert gate.decisions is NO_DECISIONS
    with request_context(key="a"):
        assert gate.decisions is NO_DECISIONS


def test_a_block_that_is_open_already_is_known(decided):
    inside, outside = (keys_of(Sampler(0.5), wanted) for wanted in (True, False))
    with request_context(key=inside):
        with request_context(key=outside):
            gate, decider = decided(0.5)
            assert all(one & LOOK for one in gate.decisions)
        with request_context(segment="night"):
            found = [gate(None) for _ in range(50)]
        assert all(decider.observes(decision) for decision in found)
    assert not any(one & LOOK for one in gate.decisions)
    with request_context(key=outside):
        gate, decider = decided(0.5)
        assert not any(one & LOOK for one in gate.decisions)


def test_blocks_that_are_left_while_a_watch_begins(decided):
    """Whatever the order: a block that is left leaves no watch looking for it."""
    leaving = threading.Event()

    def serve():
        while not leaving.is_set():
            for number in range(20):
                with request_context(key=str(number)):
                    pass

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    gates = [decided(1.0)[0] for _ in range(200)]
    leaving.set()
    for thread in threads:
        thread.join()
    assert not any(one & LOOK for gate in gates for one in gate.decisions)


class Late:
    """A listener that is told of a block while the block is being left."""

    def __init__(self, meanwhile):
        self.meanwhile = meanwhile
        self.open = set()

    def opened(self, key, ticket):
        self.open.add(ticket)
        self.meanwhile()
        return True

    def closed(self, ticket):
        self.open.discard(ticket)


def test_a_block_that_is_left_while_a_watch_is_told_of_it():
    block = request_context(key="a")
    block.__enter__()
    late = Late(lambda: block.__exit__(None, None, None))
    listen(late)
    unlisten(late)
    assert not late.open


def test_a_forked_child_forgets_the_blocks_of_its_parent(decided):
    gate, decider = decided(1.0)
    with request_context(key="a"):
        decider.reset()
        decider.renew()
        assert not gate.decisions[5] & LOOK
    assert not gate.decisions[5] & LOOK
