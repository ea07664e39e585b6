"""Strategy *instead*: what a sampled call returns, and whom it observes."""

import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from calidrift_agent._vocabulary import CountColumn, RequestColumn, Stage, Strategy, ValueColumn


def counts(watch, column):
    meta, total = watch.snapshot()
    names = [point.name for point in meta.points]
    return dict(zip(names, total.counts[:, column].tolist(), strict=True))


def highest(watch):
    meta, total = watch.snapshot()
    names = [point.name for point in meta.points]
    return dict(zip(names, total.values[:, ValueColumn.HIGHEST].tolist(), strict=True))


def requests(watch, column):
    return int(watch.snapshot()[1].requests[column])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_output_is_bit_equal_in_all_grad_modes(net, x, watch_all, mode):
    with mode():
        expected = net(x)
        watch = watch_all(net)
        assert torch.equal(net(x), expected)
        assert torch.equal(net(x), expected)
    assert requests(watch, RequestColumn.OBSERVED) == 2
    assert set(counts(watch, CountColumn.ROWS).values()) == {8}


def test_bfloat16(net, x, watch_all):
    net, x = net.bfloat16(), x.bfloat16()
    expected = net(x)
    watch = watch_all(net)
    assert torch.equal(net(x), expected)
    assert highest(watch)["conv:input"] == float(x.max())


def test_gradients_flow_and_are_unchanged(net, x, watch_all):
    net(x).sum().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    watch = watch_all(net)
    net(x).sum().backward()
    assert all(torch.equal(p.grad, e) for p, e in zip(net.parameters(), expected, strict=True))
    assert requests(watch, RequestColumn.OBSERVED) == 1


def test_observed_is_what_the_layers_are_fed(net, x, watch_all):
    watch = watch_all(net)
    net(x)
    hidden = torch.relu(net.conv(x)).mean((2, 3)).detach()
    assert highest(watch) == {"conv:input": float(x.max()), "fc:input": float(hidden.max())}
    assert counts(watch, CountColumn.ELEMENTS) == {"conv:input": x.numel(), "fc:input": 16}


def test_served_modules_carry_nothing_between_calls(net, x, watch_all):
    before = {name: dict(module.__dict__) for name, module in net.named_modules() if name}
    watch_all(net)
    net(x)
    for name, module in net.named_modules():
        if name:
            assert module.__dict__ == before[name]
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


def test_keyword_inputs(net, x, watch_all):
    expected = net(x=x, shift=2.0)
    watch = watch_all(net)
    assert torch.equal(net(x=x, shift=2.0), expected)
    assert counts(watch, CountColumn.ROWS)["conv:input"] == 4


@dataclass
class Answer:
    logits: torch.Tensor
    note: str


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: (y, [y, 1]),
        lambda y: {"y": y, "rest": None},
        lambda y: Answer(y, "fine"),
        lambda y: None,
    ],
    ids=["tuple", "dict", "dataclass", "none"],
)
def test_any_output_passes_untouched(net, x, watch_all, wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            self.__dict__["last"] = wrap(self.net(x))
            return self.__dict__["last"]

    model = Wrapped()
    watch = watch_all(model)
    assert model(x) is model.__dict__["last"]
    assert requests(watch, RequestColumn.OBSERVED) == 1


def test_load_state_dict_takes_effect_at_once(net, x, watch_all):
    watch = watch_all(net)
    state = {name: value * 2 for name, value in net.state_dict().items()}
    for assign in (False, True):
        net.load_state_dict(state, assign=assign)
        sampled = net(x)
        watch._active.engine._parts.gate.decisions = bytes(8192)
        assert torch.equal(net(x), sampled)
        watch._active.engine._parts.gate.decisions = b"\1" * 8192
        state = {name: value * 3 for name, value in state.items()}
    other = type(net)().eval()
    other.load_state_dict({name: value / 3 for name, value in state.items()})
    assert torch.allclose(net(x), other(x))


def test_a_changed_type_takes_effect_at_once(net, x, watch_all):
    watch_all(net)
    net(x)
    net.to(torch.float64)
    assert net(x.double()).dtype == torch.float64
    net.to(torch.bfloat16)
    assert net(x.bfloat16()).dtype == torch.bfloat16


def test_a_changed_attribute_takes_effect_at_once(net, x, watch_all):
    watch_all(net)
    one = net(x)
    net.scale = 3.0
    assert torch.equal(net(x), one * 3.0)


def test_train_and_eval_take_effect_at_once(x, watch_all):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(50, 2)
            self.drop = nn.Dropout(1.0)

        def forward(self, x):
            return self.drop(self.fc(x.flatten(1)))

    model = Dropping().train()
    watch_all(model)
    assert not model(x).any()
    model.eval()
    assert model(x).any()


def test_a_replaced_module_takes_effect_and_is_observed(net, x, watch_all):
    watch = watch_all(net)
    net(x)
    net.fc = nn.Linear(4, 7)
    assert net(x).shape == (4, 7)
    assert counts(watch, CountColumn.ROWS) == {"conv:input": 8, "fc:input": 8}
    watch.flush()
    net(x)
    assert counts(watch, CountColumn.ROWS) == {"conv:input": 12, "fc:input": 12}


def test_a_replaced_class_forward_takes_effect(net, x, watch_all, monkeypatch):
    watch = watch_all(net)
    monkeypatch.setattr(type(net), "forward", lambda self, x: self.fc(x.mean((2, 3)).repeat(1, 2)))
    net(x)
    assert counts(watch, CountColumn.ROWS) == {"conv:input": 0, "fc:input": 4}


def test_hooks_of_others_run_once_and_meet_the_live_module(net, x, watch_all):
    seen = []
    for module in (net, net.conv, net.fc):
        module.register_forward_hook(lambda module, args, output: seen.append(module))
        module.register_forward_pre_hook(lambda module, args: seen.append(module))
    watch = watch_all(net)
    net(x)
    assert seen == [net, net.conv, net.conv, net.fc, net.fc, net]
    net.fc.register_forward_pre_hook(lambda module, args: (args[0] * 100,))
    net(x)
    assert highest(watch)["fc:input"] > 10  # what the layer computes with


def test_attribute_writes_and_locks_of_the_forward_survive(x, watch_all):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(50, 2)
            self.lock = threading.Lock()
            self.calls = 0

        def forward(self, x):
            with self.lock:
                self.calls += 1
                self.register_buffer("seen", torch.tensor(self.calls), persistent=False)
            return self.fc(x.flatten(1))

    model = Counting()
    watch_all(model)
    for _ in range(3):
        model(x)
    assert (model.calls, int(model.seen)) == (3, 3)


def test_modules_used_as_keys_and_reached_by_closures(x, watch_all):
    class Registered(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(50, 50)
            self.out = nn.Linear(50, 2)
            self.known = {self: 1.0, self.fc: 2.0}
            self.call = lambda x: self.fc(x) * self.known[self] * self.known[self.fc]

        def forward(self, x):
            return self.out(self.call(x.flatten(1)))

    model = Registered()
    expected = model(x)
    watch = watch_all(model)
    assert torch.equal(model(x), expected)
    assert watch.report().never_fired == ()


def test_slots_and_custom_attribute_access(x, watch_all):
    class Odd(nn.Module):
        __slots__ = ("extra",)

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(50, 2)
            self.extra = 3.0

        def __getattr__(self, name):
            return 5.0 if name == "invented" else super().__getattr__(name)

        def forward(self, x):
            return self.fc(x.flatten(1)) * self.extra + self.invented

    model = Odd()
    expected = model(x)
    watch_all(model)
    assert torch.equal(model(x), expected)


def test_a_model_that_calls_itself(x, watch_all):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(50, 50)

        def forward(self, x, depth=2):
            x = self.fc(x)
            return self(x, depth - 1) if depth else x

    model = Twice()
    expected = model(x.flatten(1))
    watch = watch_all(model)
    assert torch.equal(model(x.flatten(1)), expected)
    assert requests(watch, RequestColumn.OBSERVED) == 1
    assert counts(watch, CountColumn.ELEMENTS)["fc:input"] == 3 * 4 * 50


def test_an_observed_root(x, watch_all):
    model = nn.Linear(5, 2)
    expected = model(x)
    watch = watch_all(model)
    assert torch.equal(model(x), expected)
    assert highest(watch) == {":input": float(x.max())}


def test_embeddings_and_outputs(watch_all):
    from calidrift_agent._watch import WatchOptions

    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))
    ids = torch.tensor([[1, 2], [3, 4]])
    expected = model(ids)
    watch = watch_all(model, options=WatchOptions(budget=None, outputs=True))
    assert torch.equal(model(ids), expected)
    assert set(highest(watch)) == {"0:output", "1:input", "1:output"}
    assert highest(watch)["1:output"] == float(expected.detach().max())
    assert counts(watch, CountColumn.ROWS)["0:output"] == 2


def test_query_key_and_value_share_one_observation(watch_all):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            return self.q(x) + self.k(x) + self.v(x)

    model, x = Attention(), torch.randn(2, 3, 8)
    watch = watch_all(model)
    with torch.no_grad():
        model(x)
        (call,) = watch._active.engine.intake._calls
        assert [reading.points for reading in call.ranges.harvest.readings()] == [[0, 1, 2]]
    assert set(counts(watch, CountColumn.ELEMENTS).values()) == {48}


@pytest.mark.parametrize("fused", [True, False])
def test_the_fused_encoder_keeps_its_path_and_its_output(watch_all, fused):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    model = nn.Sequential(layer, nn.Linear(8, 2)).eval()
    x = torch.randn(2, 3, 8)
    with torch.set_grad_enabled(not fused):
        expected = model(x)
        watch = watch_all(model)
        assert torch.equal(model(x), expected)
    assert watch.report().never_fired == ()
    assert any("fused" in note for note in watch.report().notes)


def test_windows_folded_into_the_batch_belong_to_their_row(bounded, watch_all):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):  # (B, T, 4) as (B * T, 4)
            return self.fc(x.reshape(-1, 4)).reshape(x.shape)

    model = Windows()
    watch = watch_all(model, profile=bounded(fc__input=2.0))
    x = torch.ones(2, 3, 4)
    x[1, 2, 3] = 9.0
    for _ in range(60):
        model(x)
    _, total = watch.snapshot()
    exceedances = int(total.counts[0, CountColumn.EXCEEDANCES])
    assert total.counts[0, CountColumn.UNITS] == 60
    assert 15 < exceedances < 45  # the second row in about every other call
    assert total.requests[RequestColumn.UNITS_COVERED] == 60 - exceedances


@pytest.mark.parametrize("shape", [(0, 2, 5, 5), (1, 2, 5, 5), (3, 2, 5, 5)])
def test_empty_batch_batch_of_one_and_more(net, watch_all, shape):
    x = torch.randn(shape)
    expected = net(x)
    watch = watch_all(net)
    assert torch.equal(net(x), expected)
    report = watch.report()
    assert report.observed_calls == (1 if shape[0] else 0)
    assert counts(watch, CountColumn.ROWS)["conv:input"] == shape[0]
    assert not watch.snapshot()[1].requests[RequestColumn.ERROR_FIRST :].any()


def test_zero_element_tensors_inside(watch_all):
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x[:, :0]).sum() + self.fc(x).sum()

    model, x = Empty(), torch.randn(2, 3, 4)
    watch = watch_all(model)
    model(x)
    assert counts(watch, CountColumn.ELEMENTS)["fc:input"] == 24


def test_nan_and_inf_activations(net, x, bounded, watch_all):
    x[0, 0, 0, 0], x[1, 0, 0, 0] = float("nan"), float("inf")
    watch = watch_all(net, profile=bounded(conv__input=9.0, fc__input=9.0))
    net(x)
    _, total = watch.snapshot()
    assert total.counts[0, [CountColumn.NAN, CountColumn.INF]].tolist() == [1, 1]
    assert highest(watch)["conv:input"] == float(x[2:].max().maximum(x[x.isfinite()].max()))
    assert total.values[:, :2].max() < 100


def test_a_point_that_never_fires_is_reported(watch_all):
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    model = Dead()
    watch = watch_all(model)
    assert watch.report().never_fired == ()
    model(torch.ones(1, 4))
    report = watch.report()
    assert report.never_fired == ("unused:input",)
    assert report.observed == ("used:input",)
    assert report.strategy is Strategy.INSTEAD


def test_strict_tracers_do_not_see_the_watch(net, x, watch_all):
    watch = watch_all(net)
    program = torch.export.export(net, (x,)).module()
    assert torch.equal(program(x), net(x))
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), net(x))
    with torch.random.fork_rng(devices=[]):
        vmapped = torch.func.vmap(lambda one: net(one.unsqueeze(0)))(x)
    assert vmapped.shape == (4, 1, 3)
    counts = watch.snapshot()[1].requests
    assert not counts[RequestColumn.ERROR_FIRST : RequestColumn.ERROR_FIRST + len(Stage)].any()
    assert counts[RequestColumn.DROP_FIRST :].sum() == 1  # that of the transform
    assert requests(watch, RequestColumn.OBSERVED) == 3  # that of the compiled one, too


def test_one_submodule_of_a_watched_model_may_be_watched_too(net, x, watch_all):
    outer, inner = watch_all(net), watch_all(net.conv)
    expected = net(x)
    assert torch.equal(net(x), expected)
    assert requests(outer, RequestColumn.OBSERVED) == requests(inner, RequestColumn.OBSERVED) == 2
    inner.close()
    assert torch.equal(net(x), expected)
    outer.close()
    assert "forward" not in net.__dict__
    assert "forward" not in net.conv.__dict__


def test_two_watches_that_share_a_layer(watch_all):
    shared = nn.Linear(4, 4)
    one, two = nn.Sequential(shared), nn.Sequential(nn.Linear(4, 4), shared)
    first, second = watch_all(one), watch_all(two)
    one(torch.ones(2, 4))
    two(torch.ones(3, 4))
    assert counts(first, CountColumn.ROWS) == {"0:input": 2}
    assert counts(second, CountColumn.ROWS) == {"0:input": 3, "1:input": 3}
    assert "forward" not in shared.__dict__
