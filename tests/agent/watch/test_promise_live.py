"""A watched model is the live model: every change takes effect at once, sampled or not."""

import copy
import gc
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions, watch
from calidrift_agent._observe._plan import TreePlan
from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn
from calidrift_agent.errors import AttachError

OPTIONS = WatchOptions(budget=None, window_seconds=600.0)


class Adapted(nn.Module):
    """Has everything that a host may change while it serves."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
        self.adapter: nn.Module | None = None
        self.register_buffer("offset", torch.zeros(8))
        self.head = nn.Linear(8, 3)
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(self.first(x)) * self.scale + self.offset
        return self.head(y if self.adapter is None else self.adapter(y))


def to_bfloat16(model: Adapted) -> None:
    model.to(torch.bfloat16)


def load(model: Adapted, *, assign: bool) -> None:
    other = seeded(7)
    model.load_state_dict(other.state_dict(), assign=assign)


def replace_child(model: Adapted) -> None:
    model.body[2] = copy.deepcopy(seeded(8).body[2])


def replace_observed_parent(model: Adapted) -> None:
    model.body = copy.deepcopy(seeded(9).body)


def add_adapter(model: Adapted) -> None:
    model.adapter = copy.deepcopy(seeded(10).body)


def remove_child(model: Adapted) -> None:
    del model.body[1]


def plain_attribute(model: Adapted) -> None:
    model.scale = 0.25


def buffer(model: Adapted) -> None:
    model.offset = torch.arange(8.0)


def parameter(model: Adapted) -> None:
    model.head.weight = nn.Parameter(torch.ones(3, 8))


def in_place(model: Adapted) -> None:
    with torch.no_grad():
        model.first.weight.mul_(-2.0)


def leaf_hook(model: Adapted) -> None:
    model.body[0].register_forward_hook(lambda module, args, output: output * 3.0)


def leaf_pre_hook(model: Adapted) -> None:
    model.head.register_forward_pre_hook(lambda module, args: (args[0] + 1.0,))


def root_hook(model: Adapted) -> None:
    model.register_forward_hook(lambda module, args, output: output - 5.0)


def patched_leaf_forward(model: Adapted) -> None:
    model.head.forward = lambda x: x[:, :3] * 2.0  # type: ignore[method-assign]


def patched_type(model: Adapted) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2.0 * super().forward(input)

    model.head.__class__ = Doubled


CHANGES: dict[str, Callable[[Adapted], None]] = {
    "to": to_bfloat16,
    "load": lambda model: load(model, assign=False),
    "load_assign": lambda model: load(model, assign=True),
    "child": replace_child,
    "parent": replace_observed_parent,
    "adapter": add_adapter,
    "removed": remove_child,
    "attribute": plain_attribute,
    "buffer": buffer,
    "parameter": parameter,
    "in_place": in_place,
    "leaf_hook": leaf_hook,
    "leaf_pre_hook": leaf_pre_hook,
    "root_hook": root_hook,
    "leaf_forward": patched_leaf_forward,
    "leaf_type": patched_type,
}


def seeded(seed: int) -> Adapted:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Adapted().eval()


def attributes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """A copy of every `__dict__` of a tree, containers copied one level deep."""
    return {
        name: {
            key: dict(value) if isinstance(value, dict) else value
            for key, value in module.__dict__.items()
        }
        for name, module in model.named_modules()
    }


def assert_same_attributes(now: dict[str, Any], before: dict[str, Any]) -> None:
    """The same keys in the same order, and the very same objects."""
    assert list(now) == list(before)
    for name, mine in now.items():
        theirs = before[name]
        assert list(mine) == list(theirs), name
        for key, value in mine.items():
            if isinstance(value, dict):
                assert list(value) == list(theirs[key])
                assert all(value[one] is theirs[key][one] for one in value)
            else:
                assert value is theirs[key], f"{name}.{key}"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sample_rate", [1.0, 0.0])
@pytest.mark.parametrize("warm", [True, False])
def test_changes_take_effect_at_once(change: str, sample_rate: float, warm: bool) -> None:
    """Before and after the first sampled call; the very next request follows the change."""
    model, twin = seeded(1), seeded(1)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    with watch(model, name="live", sample_rate=sample_rate, options=OPTIONS) as one:
        if warm:
            assert torch.equal(model(x), twin(x))
        stale = twin(x)
        for net in (model, twin):
            CHANGES[change](net)
        x = x.to(twin.first.weight.dtype)
        expected = twin(x)
        assert not torch.equal(expected.float(), stale), "this change changes nothing"
        for _ in range(3):
            assert torch.equal(model(x), expected)
            one.snapshot()  # the drain may look at the tree
        assert one.report().observed_calls == (3 + warm if sample_rate else 0)
        changed = attributes(twin)
    assert torch.equal(model(x), expected)
    assert list(attributes(model)) == list(changed)
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("change", ["child", "parent"])
def test_replaced_modules_are_observed_after_the_drain(change: str) -> None:
    """A new module under an old name is observed again; what left is let go."""
    model = seeded(1)
    x = torch.randn(5, 6)
    with watch(model, name="live", sample_rate=1.0, options=OPTIONS) as one:
        model(x)
        gone = weakref.ref(model.body[2])
        CHANGES[change](model)
        one.snapshot()
        before = one.snapshot()[1].counts[:, CountColumn.ROWS].copy()
        model(x)
        after = one.snapshot()[1].counts[:, CountColumn.ROWS]
        assert (after - before == 5).all()
        gc.collect()
        assert gone() is None, "the watch keeps a module alive that the model gave up"


class Twice(nn.Module):
    """Two layers of one size, so that they can change places."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            for layer, factor in ((self.near, 10.0), (self.far, 0.5)):
                layer.weight.copy_(factor * torch.eye(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.far(self.near(x))


def highest(one: Any) -> dict[str, float]:
    meta, total = one.snapshot()
    return {
        point.name: float(total.values[row, ValueColumn.HIGHEST])
        for row, point in enumerate(meta.points)
    }


def test_layers_that_change_places_are_counted_where_they_stand() -> None:
    """No drain in between: the very next sampled call tells the right point."""
    model, x = Twice().eval(), torch.ones(1, 4)
    with watch(model, name="live", sample_rate=1.0, options=OPTIONS) as one:
        model(0.01 * x)
        model.near, model.far = model.far, model.near
        assert torch.equal(model(x), 5.0 * x)
        assert highest(one) == {"near:input": 1.0, "far:input": 0.5}


def test_the_counting_of_moved_layers_notices_a_mutant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TreePlan, "is_placed", lambda _: True)
    with pytest.raises(AssertionError):
        test_layers_that_change_places_are_counted_where_they_stand()


@pytest.mark.parametrize("change", ["child", "parent"])
def test_replaced_modules_are_observed_at_once(change: str) -> None:
    model, x = seeded(1), torch.randn(5, 6)
    with watch(model, name="live", sample_rate=1.0, options=OPTIONS) as one:
        model(x)
        CHANGES[change](model)
        model(x)
        assert (one.snapshot()[1].counts[:, CountColumn.ROWS] == 10).all()


@pytest.mark.parametrize("calls", [0, 3])
def test_close_restores_every_dict(calls: int) -> None:
    """The same objects under the same keys in the same order, in every module."""
    model = seeded(1)
    before = attributes(model)
    one = watch(model, name="net", sample_rate=1.0, options=OPTIONS)
    for _ in range(calls):
        model(torch.randn(2, 6))
    one.close()
    one.close()
    assert_same_attributes(attributes(model), before)
    with watch(model, name="again", sample_rate=1.0, options=OPTIONS):
        model(torch.randn(2, 6))
    assert_same_attributes(attributes(model), before)


def test_instance_forward_is_called_and_restored() -> None:
    """A forward that the host set on the instance stays in force and comes back."""
    model = seeded(1)

    def forward(self: Adapted, x: torch.Tensor) -> torch.Tensor:
        return 10.0 * Adapted.forward(self, x)

    own = types.MethodType(forward, model)
    model.forward = own  # type: ignore[method-assign]
    x = torch.randn(2, 6)
    expected = model(x)
    with watch(model, name="own", sample_rate=1.0, options=OPTIONS) as one:
        assert torch.equal(model(x), expected)
        assert torch.equal(model.forward(x), expected)
        assert one.report().never_fired == ()
    assert model.__dict__["forward"] is own


def test_forward_replaced_while_watched_is_kept() -> None:
    """`close` does not take away what the host put on top; the report speaks of it."""
    model = seeded(1)
    one = watch(model, name="top", sample_rate=1.0, options=OPTIONS)
    gate = model.forward
    model.forward = lambda x: gate(x) + 1.0  # type: ignore[method-assign]
    mine = model.forward
    x = torch.randn(2, 6)
    expected = seeded(1)(x)
    assert torch.equal(model(x), expected + 1.0)
    assert any("forward was replaced" in note for note in one.report().notes)
    one.close()
    assert model.__dict__["forward"] is mine
    assert torch.equal(model(x), expected + 1.0)


def test_graph_copies_are_unwatched(tiny_int8: Any, copy_graph: Callable[..., Any]) -> None:
    """The same for a PT2E graph, which is watched beside."""
    graph = copy_graph(tiny_int8.graph)
    expected = graph(tiny_int8.example)
    before = attributes(graph)
    with watch(graph, name="int8", sample_rate=1.0, options=OPTIONS) as one:
        twin = copy_graph(graph)
        assert torch.equal(twin(tiny_int8.example), expected)
        assert int(one.snapshot()[1].requests[RequestColumn.SEEN]) == 0
        assert torch.equal(graph(tiny_int8.example), expected)
    assert_same_attributes(attributes(graph), before)


def test_watched_twice_is_refused() -> None:
    """One sentence that says what to do; the first watch goes on."""
    model = seeded(1)
    with watch(model, name="one", sample_rate=1.0, options=OPTIONS) as one:
        with pytest.raises(AttachError, match="watched already; close the other watch first"):
            watch(model, name="two")
        model(torch.randn(2, 6))
        assert one.report().observed_calls == 1


def test_replacing_modules_under_load_keeps_every_dict_clean() -> None:
    """Trees of old and new modules are armed at the same time; nothing stays behind."""
    model = seeded(1)
    x = torch.randn(2, 6)
    old = [model.body, copy.deepcopy(model.body)]
    expected = model(x)
    wrong: list[str] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if not torch.equal(model(x), expected):
                wrong.append("output")

    with watch(model, name="load", sample_rate=1.0, options=OPTIONS) as one:
        threads = [threading.Thread(target=serve) for _ in range(4)]
        for thread in threads:
            thread.start()
        for turn in range(60):
            model.body = old[turn % 2]
            one.snapshot()
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    for module in (*model.modules(), *old[0].modules(), *old[1].modules()):
        assert "forward" not in module.__dict__
