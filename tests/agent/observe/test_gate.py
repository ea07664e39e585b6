import inspect
import threading

import pytest
import torch
from torch import nn

from calidrift_agent._observe import DECISIONS, Gate, Sampler
from calidrift_agent._observe._frames import came_from_compiled, compiler_of_frames
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


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_code_of_the_host_calls_it_and_holds_nothing_of_it(gate, fresh_dynamo, backend):
    compiled = torch.compile(gate.owner, backend=backend, fullgraph=True)
    gate.detach()
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    before = dict(fresh_dynamo)
    assert before["unique_graphs"] == 1
    gate.attach()
    asked = []

    def observe(decision, args, kwargs):
        asked.append((torch.compiler.is_compiling(), came_from_compiled()))
        return gate.original(*args, **kwargs)

    gate.decisions, gate.observe = b"\1" * DECISIONS, observe
    for _ in range(3):
        assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    assert asked == [(False, True)] * 3
    assert gate.take_seen() == 3
    assert not came_from_compiled()
    assert dict(fresh_dynamo) == before


def test_errors_pass_through_the_frames_of_compiled_code(gate, fresh_dynamo):
    class Refuses(nn.Module):
        def forward(self, x):
            if x.shape[0] == 3:
                raise ValueError("three")
            return x + 1

    gate = Gate(Refuses())
    gate.attach()
    gate.decisions = b"\1" * DECISIONS
    gate.observe = lambda _, args, kwargs: gate.original(*args, **kwargs)
    compiled = torch.compile(gate.owner, backend="eager", dynamic=False)
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match="three"):
        compiled(torch.ones(3))
    assert compiler_of_frames() is None
    assert not came_from_compiled()
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]


def test_code_that_was_taken_into_other_code_is_told(gate, fresh_dynamo):
    told = []
    gate.traced = lambda: told.append(torch.compiler.is_compiling())
    model = nn.Sequential(gate.owner)
    torch.export.export(model, (torch.ones(2),), strict=True)
    assert told == []  # nobody serves what is being exported
    assert torch.compile(model, backend="eager")(torch.ones(2)).tolist() == [2.0, 2.0]
    assert set(told) == {True}
    assert gate.take_seen() == 0
    told.clear()
    assert gate.owner.forward.__self__ is gate.owner
    assert told == []


def test_it_looks_like_the_method_that_it_stands_for(gate):
    assert inspect.ismethod(gate.owner.forward)
    assert isinstance(gate, Gate)
    assert inspect.signature(gate) == inspect.signature(Adder().forward)
    assert inspect.getsource(gate).lstrip().startswith("def forward")


def test_before_a_function_it_is_a_gate():
    model = Adder()
    model.forward = lambda x: x + 5
    gate = Gate(model)
    gate.attach()
    assert isinstance(model.forward, Gate)
    assert not inspect.ismethod(model.forward)
    assert model(1) == 6


def test_reset_starts_at_zero(gate):
    gate.owner(1)
    gate.reset()
    assert gate.take_seen() == 0
