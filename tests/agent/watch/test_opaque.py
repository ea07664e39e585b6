"""Models that cannot be opened: inputs and outputs, and what a reference adds."""

import copy
import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._attach import KINDS
from calidrift_agent._attach import _opaque as opaque
from calidrift_agent._state import ReferenceFigures
from calidrift_agent._vocabulary import (
    CountColumn,
    DropReason,
    RequestColumn,
    Strategy,
    ValueColumn,
)
from calidrift_agent._watch import WatchOptions
from calidrift_agent._watch._report import Reference
from calidrift_agent.errors import AttachError, ConfigurationError, ProfileMismatchError

R = RequestColumn
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript as a whole


class Pair(nn.Module):
    """Two named inputs, one of them of integers, and a nested output."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Embedding(10, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, ids: torch.Tensor):
        y = self.fc(x + self.embed(ids))
        return y, {"count": ids.sum(), "doubled": 2.0 * y}


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def x():
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def loaded(module, path):
    torch.jit.save(module, path)
    return torch.jit.load(path)


SCRIPTS = {
    "scripted": lambda net, x, path: torch.jit.script(net),
    "traced": lambda net, x, path: torch.jit.trace(net, x),
    "frozen": lambda net, x, path: torch.jit.freeze(torch.jit.script(net)),
    "loaded": lambda net, x, path: loaded(torch.jit.script(net), path),
    "loaded trace": lambda net, x, path: loaded(torch.jit.trace(net, x), path),
}


@pytest.fixture(params=SCRIPTS.values(), ids=SCRIPTS)
def script(request, net, x, tmp_path):
    return request.param(net, x, tmp_path / "model.pt")


def row(total, watch, name):
    return watch.report().points.index(name)


def extremes(total, watch, name):
    values = total.values[watch.report().points.index(name)]
    return float(values[ValueColumn.LOWEST]), float(values[ValueColumn.HIGHEST])


def one_row(x, rows=4):
    """A batch in which any row is this row."""
    return x[1:2].expand(rows, *x.shape[1:]).clone()


def test_torchscript_is_observed_at_its_edges(script, net, x, watch_all):
    with torch.no_grad():
        expected = script(x)
        before = set(script.__dict__)
        watch = watch_all(script)
        assert torch.equal(script(x), expected)
        batch = one_row(x)
        output = script(batch)
        batch.fill_(1e6)  # the host may write to what it sent
        output_seen = float(output[0].min()), float(output[0].max())
        output.fill_(1e6)
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.strategy is Strategy.EDGES
    assert report.points == report.observed == (":input", ":output")
    assert total.requests[[R.SEEN, R.SAMPLED, R.OBSERVED]].tolist() == [2, 2, 2]
    assert not total.requests[R.ERROR_FIRST :].any()
    assert extremes(total, watch, ":input")[1] < 100
    assert total.counts[:, CountColumn.ROWS].tolist() == [2, 2]
    assert total.counts[:, CountColumn.ELEMENTS].tolist() == [12, 6]
    low, high = extremes(total, watch, ":output")
    assert low <= output_seen[0] + 1e-5 and output_seen[1] - 1e-5 <= high < 100
    watch.close()
    assert set(script.__dict__) - {"forward"} == before - {"forward"}
    assert torch.equal(script(x), expected)
    assert watch.snapshot()[1].requests[R.SEEN] == 2


def test_inner_layers_are_named_as_unobserved(net, x, watch_all):
    skipped = watch_all(torch.jit.trace(net, x)).report().skipped
    assert set(skipped) == {"", "0", "2"}
    assert "TorchScript" in skipped["0"]
    assert "reference=" in skipped[""]
    # A frozen module has forgotten its layers; that nothing inside is seen is said all the same.
    frozen = torch.jit.freeze(torch.jit.script(net))
    assert set(watch_all(frozen).report().skipped) == {""}


def test_the_values_are_those_of_one_row(net, x, watch_all):
    watch = watch_all(torch.jit.trace(net, x))
    batch = one_row(x)
    with torch.no_grad():
        output = watch(batch)
    _, total = watch.snapshot()
    assert extremes(total, watch, ":input") == (float(batch.min()), float(batch.max()))
    # Rows of a batch of equal rows differ in their last bit.
    expected = (float(output.min()), float(output.max()))
    assert extremes(total, watch, ":output") == pytest.approx(expected, rel=1e-6)


def test_every_floating_point_input_has_a_point_of_its_own(watch_all):
    model = Pair().eval()
    x, ids = torch.randn(1, 6), torch.tensor([3])
    traced = torch.jit.trace(model, (x, ids), strict=False)
    chosen = WatchOptions(budget=None, drain_seconds=3600, inputs=("x",))
    plain, narrowed = watch_all(traced), None
    with torch.no_grad():
        output, _ = traced(x, ids=ids)
    report, (_, total) = plain.report(), plain.snapshot()
    assert report.points == (":input.x", ":input.ids", ":output")
    assert report.never_fired == (":input.ids",)
    assert extremes(total, plain, ":input.x") == (float(x.min()), float(x.max()))
    assert extremes(total, plain, ":output") == (float(output.min()), float(output.max()))
    plain.close()
    narrowed = watch_all(traced, options=chosen)
    with torch.no_grad():
        traced(ids=ids, x=x)
    assert narrowed.report().points == narrowed.report().observed == (":input", ":output")
    narrowed.close()
    with pytest.raises(ConfigurationError, match=r"'y'.*it has x, ids"):
        watch_all(traced, options=WatchOptions(inputs=("y",)))


def test_a_watched_torchscript_module_can_be_copied_and_saved(net, x, watch_all, tmp_path):
    traced = torch.jit.trace(net, x)
    watch = watch_all(traced)
    twin, other = copy.deepcopy(traced), loaded(traced, tmp_path / "model.pt")
    with torch.no_grad():
        assert torch.equal(twin(x), other(x))
    assert watch.snapshot()[1].requests[R.SEEN] == 0
    with pytest.raises(AttachError, match="watched already"):
        watch_all(traced)


def engine(x, *, scale=1.0):
    return torch.relu(x) * scale


class Engine:
    """An engine of another runtime: called with anything, keeps its signature to itself."""

    def __call__(self, *args, **kwargs):
        return [np.maximum(args[0], 0.0), "done"]


def test_calls_of_a_function_go_through_the_watch(x, watch_all):
    watch = watch_all(engine)
    assert torch.equal(watch(x, scale=2.0), engine(x, scale=2.0))
    engine(x)  # past the watch: not seen
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.points == (":input.x", ":input.scale", ":output")
    assert report.observed == (":input.x", ":output")
    assert total.requests[[R.SEEN, R.OBSERVED]].tolist() == [1, 1]
    assert "the callable engine" in report.skipped[""]
    watch.close()
    assert torch.equal(watch(x), engine(x))
    assert watch.snapshot()[1].requests[R.SEEN] == 1


@pytest.mark.parametrize("order", ["C", "F", "reversed", "read only", "big endian"])
def test_arrays_of_engines_are_observed_as_tensors(watch_all, order):
    array = np.arange(-6.0, 6.0, dtype=np.float32).reshape(4, 3)
    array = {
        "C": array,
        "F": np.asfortranarray(array),
        "reversed": array[::-1, ::-1],
        "read only": np.frombuffer(array.tobytes(), np.float32).reshape(4, 3),
        "big endian": array.astype(">f4"),
    }[order]
    before = array.tobytes()
    watch = watch_all(Engine())
    answer, word = watch(array, np.array(["text"]))
    assert np.array_equal(answer, np.maximum(array, 0.0)) and word == "done"
    assert array.tobytes() == before
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.points == report.observed == (":input", ":output")
    assert "does not name its inputs" in report.skipped[":input"]
    assert total.counts[0, CountColumn.ELEMENTS] == 3  # one row of four
    assert -6.0 <= extremes(total, watch, ":input")[0] <= 5.0


def test_unnamed_inputs_are_chosen_by_their_place(watch_all):
    options = WatchOptions(budget=None, drain_seconds=3600, inputs=("arg1", "scale"))
    watch = watch_all(Engine(), options=options)
    watch(np.zeros((1, 2)), np.full((1, 2), 3.0), scale=np.full((1, 2), 5.0))
    _, total = watch.snapshot()
    assert watch.report().points == (":input.arg1", ":input.scale", ":output")
    assert extremes(total, watch, ":input.arg1") == (3.0, 3.0)
    assert extremes(total, watch, ":input.scale") == (5.0, 5.0)


def test_no_input_at_all(watch_all):
    options = WatchOptions(budget=None, drain_seconds=3600, inputs=())
    watch = watch_all(engine, options=options)
    watch(torch.ones(2, 3))
    assert watch.report().points == watch.report().observed == (":output",)


@pytest.mark.parametrize(
    "call",
    [functools.partial(engine, scale=3.0), Engine().__call__, torch.relu],
    ids=["partial", "method", "builtin"],
)
def test_other_callables(call, watch_all, x):
    given = x.numpy() if "Engine" in repr(call) else x
    watch = watch_all(call)
    watch(given)
    assert {":output"} <= set(watch.report().observed)
    assert ":input" in {point.partition(".")[0] for point in watch.report().observed}


def test_errors_of_the_engine_pass_unchanged(watch_all):
    error = RuntimeError("out of memory")

    def failing(x):
        raise error

    watch = watch_all(failing)
    with pytest.raises(RuntimeError) as caught:
        watch(torch.ones(1, 2))
    assert caught.value is error
    assert watch.snapshot()[1].requests[[R.SEEN, R.OBSERVED]].tolist() == [1, 0]


def test_a_call_without_tensors_is_counted(watch_all):
    watch = watch_all(lambda text: text.upper())
    assert watch("abc") == "ABC"
    total = watch.snapshot()[1]
    place = R.DROP_FIRST + list(DropReason).index(DropReason.UNSUITABLE_INPUT)
    assert total.requests[place] == 1


def test_a_module_that_shows_no_layers(watch_all, x):
    class Hidden(nn.Module):
        def forward(self, x):
            return torch.tanh(x)

    model = Hidden()
    watch = watch_all(model)
    assert torch.equal(model(x), torch.tanh(x))
    assert watch.report().observed == (":input", ":output")
    watch.close()
    assert "forward" not in model.__dict__


def test_a_module_of_torchscript_parts(watch_all, net, x):
    model = nn.Sequential(torch.jit.trace(net, x))
    watch = watch_all(model, reference=net)
    with torch.no_grad():
        assert torch.equal(model(x), net(x))
    report = watch.report()
    assert report.strategy is Strategy.EDGES
    assert report.observed == ("0:input", "2:input", ":input", ":output")


def test_an_exported_fp32_graph(net, x, watch_all, save_and_load):
    ids = torch.tensor([1, 2, 3, 4])
    batch = torch.export.Dim("batch", min=1, max=64)
    model = Pair().eval()
    graph = save_and_load(model, (x, ids), dynamic_shapes=({0: batch}, {0: batch}))
    with torch.no_grad():
        watch = watch_all(graph, reference=model)
        output = graph(x, ids)[0]
        assert torch.allclose(output, model(x, ids)[0], atol=1e-6)
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.points == report.observed == ("embed:output", "fc:input", ":input", ":output")
    assert report.skipped[":input.ids"] == "its values are not floating point"
    assert ReferenceFigures.of(total.requests).sqnr_db > 80
    watch.close()
    assert set(watch_all(graph).report().skipped) == {"", "embed", "fc", ":input.ids"}


def test_a_reference_gives_the_points_and_bounds(script, net, x, watch_all):
    """The same requests over the eager module say the same."""
    profile = calibrate(net, [x])
    requests = [x[index : index + 1] * scale for index in range(4) for scale in (0.5, 1.0, 2.0)]
    eager = watch_all(copy.deepcopy(net), profile=profile)
    edges = watch_all(script, profile=profile, reference=net)
    with torch.no_grad():
        for request in requests:
            eager(request)
            assert torch.equal(script(request), net(request)) or "freeze" in str(script)
    report = edges.report()
    assert report.points == ("0:input", "2:input", ":input", ":output")
    assert report.reference is Reference.OBSERVED
    assert report.strategy is Strategy.EDGES
    one, other = eager.snapshot()[1], edges.snapshot()[1]
    units = [R.OBSERVED, R.UNITS, R.UNITS_COVERED]
    assert one.requests[units].tolist() == other.requests[units].tolist()
    assert 0 < other.requests[R.UNITS_COVERED] < 12
    assert np.array_equal(one.counts, other.counts[:2])
    assert np.allclose(one.values[:, :3], other.values[:2, :3], rtol=1e-5)
    assert other.requests[R.COMPARED] == 12
    assert ReferenceFigures.of(other.requests).agreement == 1.0


def test_a_reference_that_fails_does_not_hide_the_edges(net, x, watch_all):
    class Raising(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            raise ValueError("no")

    traced = torch.jit.trace(net, x)
    profile = calibrate(net, [x])
    watch = watch_all(traced, reference=Raising().eval())
    with torch.no_grad():
        for _ in range(30):
            traced(x)
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.observed == (":input", ":output")
    assert report.never_fired == ("fc:input",)
    assert report.active
    assert total.requests[[R.OBSERVED, R.COMPARED]].tolist() == [30, 0]
    watch.close()
    with pytest.raises(ProfileMismatchError):
        watch_all(traced, reference=Raising().eval(), profile=profile)


def test_a_reference_of_one_layer(watch_all, x):
    layer = nn.Linear(6, 3).eval()
    profile = calibrate(layer, [x])
    watch = watch_all(lambda x: layer(x), reference=layer, profile=profile)
    with torch.no_grad():
        watch(x[:1])
        watch(x[:1] * 100)
    _, total = watch.snapshot()
    assert watch.report().points == watch.report().observed == (":input", ":output")
    assert total.requests[[R.UNITS, R.UNITS_COVERED]].tolist() == [2, 1]


def test_a_profile_of_inner_layers_needs_the_reference(net, x, watch_all):
    profile = calibrate(net, [x])
    with pytest.raises(ProfileMismatchError, match=r"inner layers.*as reference="):
        watch_all(torch.jit.trace(net, x), profile=profile)


@pytest.mark.parametrize("given", [nn.Linear, "text", 5], ids=str)
def test_what_is_no_opaque_model(given):
    assert not opaque.recognises(given)


def test_what_other_kinds_take(net, x, tiny_int8):
    assert not opaque.recognises(net)
    assert not opaque.recognises(tiny_int8.graph)
    assert not opaque.recognises(torch.export.export(net, (x,)))
    compiled = torch.compile(nn.Tanh(), backend="eager")
    assert not opaque.recognises(compiled)
    assert next(kind for kind in KINDS if kind.recognises(torch.jit.trace(net, x))) is opaque


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """An AOTInductor package and the FP32 module that it was compiled from."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = Pair().eval()
        batch = torch.export.Dim("batch", min=1, max=64)
        shapes = ({0: batch}, {0: batch})
        args = (torch.randn(4, 6), torch.tensor([1, 2, 3, 4]))
        path = tmp_path_factory.mktemp("package") / "model.pt2"
        exported = torch.export.export(model, args, dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    return torch._inductor.aoti_load_package(str(path)), model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_ahead_of_time_package(package, watch_all):
    served, model = package
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(5))
    ids = torch.tensor([7, 8, 9])
    profile = calibrate(model, [(x, ids)])
    expected = served(x, ids)[0]
    watch = watch_all(served, reference=model, profile=profile)
    for index in range(3):
        answer = watch(x[index : index + 1], ids[index : index + 1])[0]
        assert torch.allclose(answer, expected[index : index + 1], atol=1e-6)
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.strategy is Strategy.EDGES
    inner = ("embed:output", "fc:input")
    assert report.points == (*inner, ":input.arg0", ":input.arg1", ":output")
    assert report.never_fired == (":input.arg1",)
    assert total.requests[[R.COMPARED, R.UNITS, R.UNITS_COVERED]].tolist() == [3, 3, 3]
    assert ReferenceFigures.of(total.requests).sqnr_db > 80
    alone = watch_all(served).report()
    assert {"embed", "fc"} <= {name.replace("_", ".") for name in alone.skipped}
    assert "AOTInductor" in alone.skipped[""]


def test_labels_are_not_compared_but_the_reference_is_observed(net, x, watch_all):
    profile = calibrate(net, [x])
    watch = watch_all(lambda x: net(x).argmax(1), reference=net, profile=profile)
    with torch.no_grad():
        watch(x[:1])
    report, (_, total) = watch.report(), watch.snapshot()
    assert report.observed == ("0:input", "2:input", ":input")
    assert any("nothing is compared" in note for note in report.notes)
    assert total.requests[[R.UNITS, R.COMPARED]].tolist() == [1, 0]


def test_a_state_in_the_inputs_is_left_alone(net, x, watch_all):
    class State:
        touched = 0

    def step(x, state):
        state.touched += 1
        return net(x)

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, state):
            state.touched += 1
            return self.net(x)

    profile = calibrate(Step().eval(), [(x, State())])
    watch = watch_all(step, reference=Step().eval(), profile=profile)
    state = State()
    with torch.no_grad():
        watch(x, state)
    report, (_, total) = watch.report(), watch.snapshot()
    assert state.touched == 1
    assert report.observed == (":input.x", ":output")
    place = R.DROP_FIRST + list(DropReason).index(DropReason.STATEFUL_CALL)
    assert total.requests[place] == 1
    assert total.requests[[R.OBSERVED, R.UNITS, R.COMPARED]].tolist() == [1, 0, 0]
