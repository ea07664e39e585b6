"""Compiled modules: a copy runs eagerly beside the request, and nothing of the host's changes."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from calidrift_agent import calibrate
from calidrift_agent._vocabulary import (
    CountColumn,
    DropReason,
    RequestColumn,
    Stage,
    Strategy,
    ValueColumn,
)
from calidrift_agent._watch._thread import DrainThread
from calidrift_agent.errors import AttachError

pytestmark = pytest.mark.usefixtures("fresh_dynamo")

EXTREMES = [ValueColumn.LOWEST, ValueColumn.HIGHEST]
WAYS = ["wrapper", "in place", "forward", "part"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(4, 3))
        self.scale = 1.0

    def features(self, x):
        return self.norm(self.conv(x)).mean((2, 3))

    def forward(self, x, *, shift=0.0):
        return self.head(self.features(x)) * self.scale + shift


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Net()
        made.norm.running_mean.normal_()
        return made.eval()


def compiled(model, way="wrapper", backend="eager"):
    if way == "wrapper":
        return torch.compile(model, backend=backend)
    if way == "in place":
        model.compile(backend=backend)
    elif way == "forward":
        model.forward = torch.compile(model.forward, backend=backend)
    else:
        model.head = torch.compile(model.head, backend=backend)
    return model


def snapshot_of_counters():
    return {name: dict(found) for name, found in counters.items()}


def dropped(total, reason):
    return int(total.requests[RequestColumn.DROP_FIRST + list(DropReason).index(reason)])


def failed(total):
    first = RequestColumn.ERROR_FIRST
    return int(total.requests[first : first + len(Stage)].sum())


def extremes(watch):
    meta, total = watch.snapshot()
    assert failed(total) == 0
    return {
        point.name: tuple(total.values[row, EXTREMES])
        for row, point in enumerate(meta.points)
        if total.counts[row, CountColumn.ROWS]
    }


def eager_extremes(model, x, **kwargs):
    """Extremes of what each layer of an eager model is given."""
    found = {}

    def hook(name):
        def seen(_, args):
            found[f"{name}:input"] = (float(args[0].min()), float(args[0].max()))

        return seen

    handles = [
        module.register_forward_pre_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    with torch.no_grad():
        model(x, **kwargs)
    for handle in handles:
        handle.remove()
    return found


class Scaled(nn.Module):
    """A layer whose output says which of several it is."""

    def __init__(self, factor):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(factor * torch.eye(3))

    def forward(self, x):
        return self.linear(x)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Scaled(2.0), Scaled(3.0)
        self.last = nn.Linear(3, 3, bias=False)

    def forward(self, x):
        return self.last(self.second(self.first(x)))


def compiled_part(factor, way):
    part = Scaled(factor).eval()
    if way == "wrapper":
        return torch.compile(part, backend="eager")
    if way == "in place":
        part.compile(backend="eager")
    return part


PART_WAYS = ["wrapper", "in place", "eager"]


@pytest.fixture
def parts():
    torch.manual_seed(0)
    model = Parts().eval()
    model.first = compiled_part(2.0, "wrapper")
    return model


ONE = torch.tensor([[1.0, 0.0, 0.0]])


def reached(watch):
    """Layer to the largest value that reached it."""
    return {name: high for name, (_, high) in extremes(watch).items() if "linear" in name}


@pytest.mark.parametrize("way", PART_WAYS)
def test_a_part_that_is_replaced_while_serving_is_followed_by_the_next_pass(watch_all, parts, way):
    watch = watch_all(parts)
    with torch.no_grad():
        for factor in (2.0, 64.0):
            parts.first = compiled_part(factor, way)
            assert torch.equal(parts(ONE), parts.last(3.0 * factor * ONE))
            watch.flush()
            assert reached(watch) == {"first.linear:input": 1.0, "second.linear:input": factor}
        parts.first, parts.second = parts.second, parts.first
        assert torch.equal(parts(ONE * 100.0), parts.last(3.0 * 64.0 * 100.0 * ONE))
    assert reached(watch) == {"first.linear:input": 100.0, "second.linear:input": 300.0}


@pytest.mark.parametrize("way", PART_WAYS)
def test_a_row_that_waits_is_replayed_on_what_serves_by_then(watch_all, parts, way, monkeypatch):
    """A pass shows what the model does with real traffic now, each point under its own name."""
    monkeypatch.setattr(DrainThread, "wake", lambda _: None)
    watch = watch_all(parts)
    with torch.no_grad():
        assert torch.equal(parts(ONE), parts.last(6.0 * ONE))
        parts.first = compiled_part(16.0, way)
        parts.first, parts.second = parts.second, parts.first
        assert torch.equal(parts.last(parts.second(parts.first(ONE))), parts.last(48.0 * ONE))
    assert reached(watch) == {"first.linear:input": 1.0, "second.linear:input": 3.0}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_the_hosts_changes_and_maxima_are_those_of_the_eager_model(
    net, x, watch_all, way
):
    expected_maxima = [eager_extremes(copy.deepcopy(net), x[row : row + 1]) for row in range(4)]
    model = compiled(net, way)
    with torch.no_grad():
        expected = model(x)
        attributes, before = dict(model.__dict__), snapshot_of_counters()
        watch = watch_all(model)
        for _ in range(8):
            assert torch.equal(model(x), expected)
        report, found = watch.report(), extremes(watch)
        watch.close()
        assert torch.equal(model(x), expected)
    assert snapshot_of_counters() == before
    assert model.__dict__ == attributes
    assert report.strategy is Strategy.BESIDE
    assert report.observed == report.points == ("conv:input", "head.1:input")
    assert dict(report.skipped) == {}
    assert report.observed_calls == 8
    for name, (low, high) in found.items():
        assert low in [one[name][0] for one in expected_maxima]
        assert high in [one[name][1] for one in expected_maxima]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor_is_not_asked_to_compile_again(net, x, watch_all):
    model = torch.compile(net)
    with torch.inference_mode():
        expected = model(x)
        before = snapshot_of_counters()
        watch = watch_all(model)
        for _ in range(3):
            assert torch.equal(model(x), expected)
        assert watch.report().observed == ("conv:input", "head.1:input")
        watch.close()
        assert torch.equal(model(x), expected)
        assert snapshot_of_counters() == before


def test_an_unsampled_request_pays_for_one_decision(net, x, watch_all, monkeypatch):
    model = compiled(net)
    watch = watch_all(model, sample_rate=0.0)
    gate = watch._active.gate
    with torch.no_grad():
        model(x)  # asks for a table of decisions
        gate.decisions = bytes(len(gate.decisions))
        monkeypatch.setattr(gate, "observe", lambda *_: pytest.fail("asked"))
        for _ in range(5):
            model(x)
    assert next(gate.calls) == 6
    assert [name for name, one in net.named_modules() if "forward" in one.__dict__] == [""]


def test_the_modules_themselves_are_never_run_by_the_drain(net, x, watch_all):
    threads = []
    net.head[1].register_forward_pre_hook(lambda module, _: threads.append(module))
    model = compiled(net)
    with torch.no_grad():
        model(x)
        before = len(threads)
        watch = watch_all(model)
        model(x)
        watch.flush()
    assert net.head[1] in threads
    assert len(threads) == 2 * before
    assert watch.report().strategy is Strategy.EDGES  # the hook's list would have grown


def test_keyword_inputs_and_single_rows(net, x, watch_all):
    eager = eager_extremes(net, x[:1], shift=2.0)
    model = compiled(net)
    watch = watch_all(model)
    with torch.no_grad():
        model(x=x[:1], shift=2.0)
    assert extremes(watch) == eager


class Stateful(nn.Module):
    """A layer, and something that each run changes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.calls = 0
        self.history = []
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x):
        return self.fc(x) + self.state(x)


class Counter(Stateful):
    def state(self, x):
        self.calls += 1
        return self.calls


class History(Stateful):
    def state(self, x):
        self.history.append(1)
        return len(self.history)


class Buffer(Stateful):
    def state(self, x):
        self.total += x.sum(0)
        return self.total.clone()


class Noise(Stateful):
    def state(self, x):
        return torch.rand(4)


class Dropout(Stateful):
    def state(self, x):
        return nn.functional.dropout(x, 0.5, True)


COUNTED = {"calls": 0}


class Shared(Stateful):
    def state(self, x):
        COUNTED["calls"] += 1
        return COUNTED["calls"]


class OfTheClass(Stateful):
    runs = 0

    def state(self, x):
        type(self).runs += 1
        return self.runs


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *((kind, "wrapper") for kind in (Counter, Buffer, Noise, Dropout, Shared, OfTheClass)),
        *((kind, "in place") for kind in (History, Buffer)),
    ],
)
def test_a_stateful_forward_answers_as_if_nobody_watched(watch_all, kind, way):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))

    def answers(observed):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = compiled(kind().eval(), way)
        COUNTED["calls"] = OfTheClass.runs = 0
        watch = watch_all(model) if observed else None
        found = []
        with torch.no_grad():
            for _ in range(4):
                found.append(model(x).clone())
                if watch is not None:
                    watch.flush()
        return found, watch

    expected, _ = answers(observed=False)
    found, watch = answers(observed=True)
    assert all(map(torch.equal, found, expected))
    report = watch.report()
    assert report.strategy is Strategy.EDGES
    assert report.points == report.observed == (":input", ":output")
    assert "cannot be run beside it" in report.skipped["fc:input"]
    assert any("only inputs and output" in note for note in report.notes)
    assert extremes(watch)[":input"][0] in x.amin(1).tolist()


def test_what_cannot_be_copied_is_said_at_once(watch_all):
    class Locked(Stateful):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

        def state(self, x):
            return 0.0

    model = compiled(Locked().eval())
    watch = watch_all(model)
    assert watch.report().strategy is Strategy.EDGES
    assert "cannot be copied" in watch.report().skipped["fc:input"]
    with torch.no_grad():
        model(torch.ones(2, 4))
    assert watch.report().observed == (":input", ":output")


def test_after_eval_the_layers_are_seen(watch_all):
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    served = compiled(model)
    watch = watch_all(served)
    with torch.no_grad():
        served(torch.ones(2, 4))
        assert watch.report().strategy is Strategy.EDGES
        model.eval()
        served(torch.ones(2, 4))
    report = watch.report()
    assert report.strategy is Strategy.BESIDE
    assert report.points == report.observed == ("0:input",)
    assert dict(report.skipped) == {}


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, cache=None):
        if cache is not None:
            cache.seen.append(1)
        return self.fc(x)


class Cache:
    def __init__(self):
        self.seen = []


def test_a_call_that_carries_a_state_is_dropped(watch_all):
    model = compiled(Cached().eval())
    watch = watch_all(model)
    cache = Cache()
    with torch.no_grad():
        model(torch.ones(2, 4), cache)
        model(torch.ones(2, 4), cache=cache)
        model(torch.ones(2, 4))
    _, total = watch.snapshot()
    assert cache.seen == [1, 1]
    assert dropped(total, DropReason.STATEFUL_CALL) == 2
    assert total.requests[RequestColumn.OBSERVED] == 1
    assert failed(total) == 0


@pytest.mark.parametrize("assign", [False, True])
def test_loaded_weights_and_statistics_are_followed(net, x, watch_all, assign):
    other = copy.deepcopy(net)
    with torch.no_grad():
        for value in (*other.parameters(), other.norm.running_mean):
            value.mul_(3.0)
    model = compiled(net)
    watch = watch_all(model)
    with torch.no_grad():
        model(x[:1])
        watch.flush()
        net.load_state_dict(other.state_dict(), assign=assign)
        model(x[:1])
    wide = eager_extremes(other, x[:1])["head.1:input"]
    assert extremes(watch)["head.1:input"][1] == wide[1]


def test_a_plain_attribute_is_followed(watch_all):
    class Scaled(Cached):
        scale = 1.0

        def forward(self, x):
            return self.fc(x * self.scale)

    module = Scaled().eval()
    module.scale = 1.0
    model = compiled(module)
    watch = watch_all(model)
    with torch.no_grad():
        for scale in (1.0, 5.0):
            module.scale = scale
            model(torch.ones(1, 4))
            watch.flush()
    assert extremes(watch)["fc:input"] == (1.0, 5.0)


def test_another_type_is_followed(net, x, watch_all):
    model = compiled(net)
    watch = watch_all(model)
    with torch.no_grad():
        model(x)
        watch.flush()
        net.double()
        model(x.double() * 4)
    assert extremes(watch)["conv:input"][1] == pytest.approx(float(x.max()) * 4, rel=0.9)
    assert watch.report().observed_calls == 2


def test_a_forward_for_one_batch_size_is_replayed_whole(watch_all):
    class Four(Cached):
        def forward(self, x):
            return self.fc(x.reshape(4, 2, 4)).reshape(8, 4)

    model = compiled(Four().eval())
    x = torch.randn(8, 4)
    watch = watch_all(model)
    with torch.no_grad():
        for _ in range(2):
            model(x)
    meta, total = watch.snapshot()
    row = [point.name for point in meta.points].index("fc:input")
    assert failed(total) == 0
    assert total.counts[row, [CountColumn.ROWS, CountColumn.ELEMENTS]].tolist() == [16, 64]
    assert extremes(watch)["fc:input"] == (float(x.min()), float(x.max()))


def test_autocast_of_the_request_is_that_of_the_pass(watch_all):
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4)).eval()
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(3))
    model = compiled(module)
    watch = watch_all(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
        expected = module[0](x)
    assert expected.dtype is torch.bfloat16
    assert extremes(watch)["1:input"] == (float(expected.min()), float(expected.max()))


def test_inputs_that_the_forward_writes_to_are_kept_as_sent(watch_all):
    class InPlace(Cached):
        def forward(self, x):
            return self.fc(x.mul_(2.0))

    model = compiled(InPlace().eval())
    watch = watch_all(model)
    with torch.no_grad():
        for _ in range(2):
            model(torch.ones(2, 4))
    assert extremes(watch)["fc:input"] == (2.0, 2.0)


def test_a_function_compiled_for_itself_is_not_called_by_the_drain(watch_all):
    @torch.compile(backend="eager")
    def double(x):
        return x * 2

    class Inner(Cached):
        def __init__(self):
            super().__init__()
            self.double = double

        def forward(self, x):
            return self.fc(self.double(x))

    model = compiled(Inner().eval())
    with torch.no_grad():
        model(torch.ones(2, 4))
        before = snapshot_of_counters()
        watch = watch_all(model)
        model(torch.ones(2, 4))
        watch.flush()
    assert snapshot_of_counters() == before
    assert "compiled for itself" in watch.report().skipped["fc:input"]


def test_a_profile_of_the_eager_model_fits_however_it_is_compiled(net, x, watch_all):
    profile = calibrate(net, [x])
    for way in WAYS:
        model = compiled(copy.deepcopy(net), way)
        with watch_all(model, profile=profile) as watch, torch.no_grad():
            model(x * 10)
            _, total = watch.snapshot()
        assert total.requests[[RequestColumn.UNITS, RequestColumn.UNITS_COVERED]].tolist() == [1, 0]


@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.Embedding(5, 4)], ids=["linear", "table"])
def test_a_single_layer(watch_all, layer):
    model = compiled(layer.eval())
    x = torch.randn(2, 4) if isinstance(layer, nn.Linear) else torch.tensor([[1], [2]])
    watch = watch_all(model)
    with torch.no_grad():
        model(x)
    role = "input" if isinstance(layer, nn.Linear) else "output"
    assert f":{role}" in watch.report().observed


def test_a_model_without_layers_has_edges(watch_all):
    model = compiled(nn.Sequential(nn.ReLU()))
    watch = watch_all(model)
    with torch.no_grad():
        model(torch.tensor([[-1.0, 2.0]]))
    assert watch.report().strategy is Strategy.EDGES
    assert extremes(watch)[":output"] == (0.0, 2.0)


@pytest.mark.parametrize("way", WAYS)
def test_watched_twice_is_refused(net, watch_all, way):
    model = compiled(net, way)
    watch_all(model)
    with pytest.raises(AttachError, match="watched already"):
        watch_all(model)


def test_an_encoder_runs_layer_by_layer_in_the_copy(watch_all):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, 8)
    model = compiled(module)
    watch = watch_all(model)
    with torch.no_grad():
        assert torch.equal(model(x), module(x))
    report = watch.report()
    assert report.strategy is Strategy.BESIDE
    assert len(report.points) == 4
    assert report.never_fired == ()


def test_requests_of_many_threads(net, x, watch_all):
    model = compiled(net)
    with torch.no_grad():
        expected = model(x)
    watch = watch_all(model)
    wrong = []

    def work():
        with torch.no_grad():
            wrong.extend(not torch.equal(model(x), expected) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong)
    _, total = watch.snapshot()
    assert total.requests[RequestColumn.SEEN] == 80
    assert failed(total) == 0
    assert np.isfinite(total.values[:2, EXTREMES]).all()
