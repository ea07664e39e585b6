import threading

import pytest
import torch
from torch import nn

from calidrift_agent._observe import DECISIONS, Gate, Sampler
from calidrift_agent._observe._sampling import NO_DECISIONS, RENEW, SAMPLED


class Adder(nn.Module):
    def forward(self, x, *, by=1):
        return x + by


@pytest.fixture
def gate():
    model = Adder()
    made = Gate(model)
    made.attach()
    return made


def test_an_ordinary_call_makes_no_other_call(gate):
    gate.observe = lambda *_: pytest.fail("asked")
    assert gate.owner(1, by=2) == 3
    assert gate.take_seen() == 1


def test_arguments_named_like_those_of_the_gate():
    class Odd(nn.Module):
        def forward(this, self, observe):
            return self + observe

    gate = Gate(Odd())
    gate.attach()
    assert gate(self=1, observe=2) == 3


def test_a_decision_is_used_once_whatever_the_number_of_threads(gate):
    asked = []
    gate.decisions = Sampler(0.1, seed=0).draw()
    expected = sum(1 for one in gate.decisions if one)
    gate.observe = lambda decision, args, kwargs: asked.append(decision)

    def work():
        for _ in range(DECISIONS // 8):
            gate.owner(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == expected
    assert sum(1 for decision in asked if decision & RENEW) == 1
    assert sum(1 for decision in asked if decision & SAMPLED) >= expected - 1


def test_decisions_are_passed_with_the_inputs(gate):
    gate.decisions = b"\1" * DECISIONS
    gate.observe = lambda decision, args, kwargs: (decision, args, kwargs)
    assert gate.owner(5, by=6) == (1, (5,), {"by": 6})
    assert gate.original(5, by=6) == 11


def test_detached_it_passes_on(gate):
    gate.decisions = b"\1" * DECISIONS
    gate.observe = lambda *_: pytest.fail("asked")
    forward = gate.owner.forward
    gate.detach()
    assert "forward" not in gate.owner.__dict__
    assert gate.decisions is NO_DECISIONS
    assert forward(1) == gate.owner(1) == 2
    gate.detach()


def test_a_decision_without_an_observer_is_an_ordinary_call(gate):
    gate.decisions = b"\1" * DECISIONS
    assert gate.owner(1) == 2


def test_a_forward_of_the_instance_is_kept():
    model = Adder()
    model.forward = own = lambda x: x * 10
    gate = Gate(model)
    gate.attach()
    assert model(2) == gate.original(2) == 20
    assert gate.__wrapped__ is own
    gate.detach()
    assert model.forward is own


def test_a_bound_class_forward_counts_as_none_and_is_put_back():
    model = Adder()
    model.__dict__["forward"] = bound = model.forward
    gate = Gate(model)
    assert gate.own is None
    gate.attach()
    assert model(1) == 2
    gate.detach()
    assert model.__dict__["forward"] is bound


def test_a_compiler_does_not_see_it(gate):
    gate.decisions = b"\1" * DECISIONS
    gate.observe = lambda *_: pytest.fail("asked")
    compiled = torch.compile(gate.owner, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))


def test_reset_starts_at_zero(gate):
    gate.owner(1)
    gate.reset()
    assert gate.take_seen() == 0
