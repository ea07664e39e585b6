"""Whether a copy may run in the model's place: every state that a forward can have."""

import functools
import itertools
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent._observe._footprint import footprint
from calidrift_agent._observe._outside import writes_outside
from calidrift_agent._observe._probe import why_not_copy, why_not_twice
from calidrift_agent._observe._replay import ShadowError
from calidrift_agent._observe._twin import Twin
from calidrift_agent._points import discover

SEEN = {}
NUMBERS = []
TOTAL = 0


class Settings:
    steps = 0


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.fc(x))


class Counter(Layer):
    calls = 0

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.fc(x)


class History(Layer):
    def __init__(self):
        super().__init__()
        self.history = []

    def forward(self, x):
        self.history.append(x)
        return self.fc(x)


class Buffer(Layer):
    def forward(self, x):
        self.norm.running_mean.add_(1.0)
        return self.fc(x)


class Weight(Layer):
    def forward(self, x):
        self.fc.weight.data.mul_(1.01)
        return self.fc(x)


class Swallowed(Layer):
    def forward(self, x):
        try:
            self.norm.running_mean.add_(1.0)
        except Exception:
            return self.fc(x)
        return x


class Assigned(Layer):
    def forward(self, x):
        self.norm.running_mean = self.norm.running_mean + 1.0
        return self.fc(x)


class Nested(Layer):
    def __init__(self):
        super().__init__()
        self.settings = SimpleNamespace(step=0)

    def forward(self, x):
        self.settings.step += 1
        return self.fc(x)


class Numbers(Layer):
    def __init__(self):
        super().__init__()
        self.numbers = np.zeros(3)

    def forward(self, x):
        self.numbers += 1
        return self.fc(x)


class Series(Layer):
    def __init__(self):
        super().__init__()
        self.series = itertools.count()

    def forward(self, x):
        next(self.series)
        return self.fc(x)


class Dropout(Layer):
    def forward(self, x):
        return nn.functional.dropout(self.fc(x), 0.5, training=True)


class Noise(Layer):
    def forward(self, x):
        return self.fc(x) + torch.rand(4)


class OwnGenerator(Layer):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, x):
        return self.fc(x) + torch.rand(4, generator=self.generator)


class PythonChance(Layer):
    def forward(self, x):
        return self.fc(x) * random.randint(1, 6)


class NumpyChance(Layer):
    def forward(self, x):
        return self.fc(x) * float(np.random.rand())


class Alias(Layer):
    """The source does not tell: found by running it once."""

    def forward(self, x):
        seen = (SEEN,)[0]
        seen[len(seen)] = 1
        return self.fc(x)


class Itself(Layer):
    def __init__(self):
        super().__init__()
        self.run = lambda x: self.fc(x)

    def forward(self, x):
        return self.run(x)


class ItsBuffer(Layer):
    def __init__(self):
        super().__init__()
        mean = self.norm.running_mean
        self.run = lambda x: x + mean

    def forward(self, x):
        return self.fc(self.run(x))


class CompiledFunction(Layer):
    def __init__(self):
        super().__init__()
        self.run = torch.compile(lambda x: x + 1, backend="eager")

    def forward(self, x):
        return self.fc(self.run(x))


TOUCHING = {
    Counter: "Counter.calls",
    History: "History.history",
    Buffer: "writes to its own state",
    Weight: "writes to its own state",
    Swallowed: "writes to its own state",
    Assigned: "running_mean",
    Nested: "Nested.settings.step",
    Numbers: "Numbers.numbers",
    Series: "Series.series",
    Dropout: "random numbers",
    Noise: "random numbers",
    OwnGenerator: "random numbers",
    PythonChance: "random numbers",
    NumpyChance: "random numbers",
    Alias: "SEEN",
    Itself: "the served module itself",
    ItsBuffer: "the served module's buffers",
    CompiledFunction: "compiled for itself",
}


def probe(live, x=None):
    twin = Twin(live, discover(live).points)
    x = torch.ones(3, 4) if x is None else x
    return why_not_twice(live, twin, lambda: twin.run((x.clone(),), {}, None))


@pytest.mark.parametrize("kind", TOUCHING)
def test_a_forward_with_a_state_is_recognised_and_the_served_module_untouched(kind):
    live = kind().eval()
    before, of_torch, of_python = footprint(live), torch.get_rng_state(), random.getstate()
    why = probe(live)
    assert why is not None
    assert TOUCHING[kind] in why
    changed = before.difference(footprint(live))
    assert changed is None or "SEEN" in changed
    assert torch.equal(torch.get_rng_state(), of_torch)
    assert random.getstate() == of_python


def test_batch_normalization_writes_while_training():
    assert "writes to its own state" in probe(Layer().train())


class Remembered(Layer):
    @functools.lru_cache  # noqa: B019
    def table(self, size):
        return torch.ones(size)

    def forward(self, x):
        return self.fc(x) * self.table(4)


class Variables(Layer):
    """Writes to nothing but its own variables."""

    def forward(self, x):
        found = {}
        found["y"] = self.fc(x)
        rows = list(found["y"])
        rows.append(rows[0])
        y = found["y"].clone()
        y[0] = 0.0
        y += 1.0
        return y.relu_()


@pytest.mark.parametrize("kind", [Layer, Remembered, Variables])
def test_a_forward_without_a_state_may_run_twice(kind):
    live = kind().eval()
    assert probe(live) is None
    assert why_not_copy(live, discover(live).points) is None


def test_random_numbers_of_other_threads_are_not_blamed_on_the_model():
    live = Layer().eval()
    twin = Twin(live, ())
    drawn = iter([1, 0])

    def attempt():
        if next(drawn, 0):
            thread = threading.Thread(target=random.random)
            thread.start()
            thread.join()
        twin.run((torch.ones(3, 4),), {}, None)

    assert why_not_twice(live, twin, attempt) is None


def test_an_error_of_the_forward_goes_through():
    with pytest.raises(RuntimeError):
        probe(Layer().eval(), torch.ones(3, 5))


def test_a_shadow_error_goes_through():
    live = Layer().eval()

    def attempt():
        raise ShadowError("no batch")

    with pytest.raises(ShadowError):
        why_not_twice(live, Twin(live, ()), attempt)


class WritesGlobal(Layer):
    def forward(self, x):
        global TOTAL
        TOTAL += 1
        return self.fc(x)


class WritesItem(Layer):
    def forward(self, x):
        SEEN["x"] = x
        return self.fc(x)


class WritesAlias(Layer):
    def forward(self, x):
        seen = SEEN
        seen["x"] = x
        return self.fc(x)


class Appends(Layer):
    def forward(self, x):
        return self.helper(x)

    def helper(self, x):
        NUMBERS.append(1)
        return self.fc(x)


class WritesClass(Layer):
    def forward(self, x):
        self.__class__.calls = 1
        return self.fc(x)


class WritesType(Layer):
    def forward(self, x):
        type(self).calls = 1
        return self.fc(x)


class WritesOther(Layer):
    def forward(self, x):
        Settings.steps += 1
        return self.fc(x)


class SharedDefault(Layer):
    def forward(self, x, seen=[]):  # noqa: B006
        seen.append(1)
        return self.fc(x)


def count_up():
    global TOTAL
    TOTAL += 1


class Calls(Layer):
    def forward(self, x):
        count_up()
        return self.fc(x)


def counted(function):
    @functools.wraps(function)
    def wrapper(*args):
        SEEN["calls"] = 1
        return function(*args)

    return wrapper


class Decorated(Layer):
    @counted
    def forward(self, x):
        return self.fc(x)


def closed_over():
    calls = 0

    class Nonlocal(Layer):
        def forward(self, x):
            nonlocal calls
            calls += 1
            return self.fc(x)

    return Nonlocal


OUTSIDE = {
    WritesGlobal: "TOTAL",
    WritesItem: "SEEN['x']",
    WritesAlias: "seen['x']",
    Appends: "NUMBERS",
    WritesClass: "__class__",
    WritesType: "type(self).calls",
    WritesOther: "Settings.steps",
    SharedDefault: "the default of seen",
    Calls: "TOTAL",
    Decorated: "SEEN['calls']",
    closed_over(): "calls",
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_is_written_beyond_the_model_is_known_before_the_first_run(kind):
    live = kind().eval()
    assert OUTSIDE[kind] in writes_outside(live)
    twin = Twin(live, ())
    assert OUTSIDE[kind] in why_not_twice(live, twin, lambda: pytest.fail("it was run"))
    assert OUTSIDE[kind] in why_not_copy(live, ())


def test_hooks_are_read_too():
    live = Layer().eval()
    live.fc.register_forward_hook(lambda *_: NUMBERS.append(1))
    assert "NUMBERS" in writes_outside(live)


def test_functions_without_a_source_are_left_to_the_first_run():
    scope = {}
    exec("def forward(self, x):\n    return self.fc(x)", scope)
    kind = type("Made", (Layer,), {"forward": scope["forward"]})
    assert writes_outside(kind().eval()) is None


def test_what_cannot_be_copied():
    live = Layer()
    live.lock = threading.Lock()
    assert "cannot be copied" in why_not_copy(live, ())
