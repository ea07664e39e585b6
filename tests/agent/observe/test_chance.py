"""Random numbers of Python and numpy: none may be taken from the host."""

import pickle
import random
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.random import standard_normal
from torch import nn

import calidrift_agent
from calidrift_agent._observe import ObservedCall, ReferenceModel, RequestContext
from calidrift_agent._observe._chance import DRAWN, ChanceError, ChanceGuard
from calidrift_agent._observe._probe import why_not_twice
from calidrift_agent._observe._twin import Twin
from calidrift_agent._taps import Ledger

GENERATOR = np.random.default_rng(0)
LEGACY = np.random.RandomState(0)
SETTINGS = SimpleNamespace(generator=GENERATOR)
HIDDEN = [GENERATOR]


class Broken:
    @property
    def __dict__(self):
        raise RuntimeError("not here")


BROKEN = Broken()


def of_the_process():
    return np.random.rand()


def of_a_method():
    return standard_normal()


def of_a_module():
    chance = np.random
    return chance.rand()


def of_a_generator():
    return GENERATOR.random()


def of_a_legacy_generator():
    return LEGACY.rand()


def of_an_attribute():
    return SETTINGS.generator.normal()


def of_python():
    return random.random()


def closed_over():
    generator = GENERATOR

    def of_a_closure():
        return generator.random()

    return of_a_closure


def of_a_local_import():
    import numpy

    return numpy.random.rand()


def of_a_container():
    return HIDDEN[0].random()


REFUSED = {
    "process": of_the_process,
    "method": of_a_method,
    "module": of_a_module,
    "generator": of_a_generator,
    "legacy": of_a_legacy_generator,
    "attribute": of_an_attribute,
    "python": of_python,
    "closure": closed_over(),
}
PUT_BACK = {"local-import": of_a_local_import, "container": of_a_container}


def states():
    numbers = (np.random.get_state(), GENERATOR.bit_generator.state, LEGACY.get_state())
    return pickle.dumps(numbers), random.getstate()


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.draw = draw

    def forward(self, x):
        return self.fc(x) + float(self.draw())


def compare(model, ledger):
    call = ObservedCall(rows=1, unit=0, context=RequestContext(), time_ns=0, copied=1)
    call.args, call.output = (torch.ones(1, 2),), torch.ones(1, 2)
    model.compare(call, ledger)
    return call.comparison


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_it_is_drawn(name):
    before = states()
    guard = ChanceGuard()
    with pytest.raises(ChanceError, match=DRAWN), guard:
        REFUSED[name]()
    assert not guard.drew
    assert guard.refused is not None
    assert states() == before


@pytest.mark.parametrize("name", PUT_BACK)
def test_what_was_drawn_in_another_way_is_put_back(name):
    before = states()
    guard = ChanceGuard([GENERATOR, LEGACY])
    with guard:
        PUT_BACK[name]()
    assert guard.drew
    assert states() == before


def test_the_hooks_of_the_thread_are_left_as_they_were():
    def hook(*_):
        return None

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(hook)
    try:
        with ChanceGuard():
            assert sys.gettrace() is not hook
        after = sys.gettrace()
    finally:
        sys.settrace(before[0])
    assert after is hook
    assert sys.getprofile() is before[1]


def test_what_only_looks_like_chance_runs():
    def plain(flag):
        if flag:
            return np.random.rand() + len(str(BROKEN))
        return np.random.default_rng(1).integers(5), np.random.Generator, BROKEN

    guard = ChanceGuard()
    with guard:
        plain(False)
    assert guard.refused is None
    assert not guard.drew


def test_numbers_that_another_thread_draws_are_left_to_it():
    def elsewhere(target):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    before, draw = states(), np.random.rand
    guard = ChanceGuard()
    with guard:
        elsewhere(draw)
    assert not guard.drew
    assert states() != before


@pytest.mark.parametrize("name", [*REFUSED, *PUT_BACK])
def test_a_first_run_takes_no_number_of_the_host(name):
    live = Noisy({**REFUSED, **PUT_BACK}[name]).eval()
    twin = Twin(live, ())
    before = states()
    why = why_not_twice(live, twin, lambda: twin.run((torch.ones(1, 2),), {}, None))
    assert DRAWN in why
    assert states() == before


def test_a_run_that_fails_after_it_has_drawn():
    live = Noisy(of_a_local_import).eval()
    twin = Twin(live, ())
    before = states()
    why = why_not_twice(live, twin, lambda: twin.run((torch.ones(1, 3, of_a_local_import()),), {}))
    assert why == DRAWN
    assert states() == before


@pytest.mark.parametrize("name", ["process", "generator", "python", "local-import"])
def test_a_reference_takes_no_number_of_the_host_and_is_given_up(name):
    reference, ledger = ReferenceModel(Noisy({**REFUSED, **PUT_BACK}[name])), Ledger("net", int)
    before = states()
    assert compare(reference, ledger) is None
    assert DRAWN in reference.given_up
    assert states() == before


@pytest.mark.slow
@pytest.mark.parametrize("draw", [of_the_process, of_a_local_import, of_a_generator])
def test_a_watched_model_answers_as_without_a_watch(draw):
    model = Noisy(draw).eval()
    torch._dynamo.reset()
    served = torch.compile(model, backend="eager")
    x = torch.ones(3, 2)
    answers = []
    for watched in (False, True):
        np.random.seed(0)
        GENERATOR.bit_generator.state = np.random.default_rng(0).bit_generator.state
        watch = calidrift_agent.watch(served, name="net", sample_rate=1.0) if watched else None
        with torch.no_grad():
            for _ in range(5):
                answers.append(served(x))
                if watch is not None:
                    watch.flush()
        if watch is not None:
            assert any(DRAWN in note for note in watch.report().notes)
            watch.close()
    assert all(map(torch.equal, answers[:5], answers[5:]))
