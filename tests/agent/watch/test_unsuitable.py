"""Tensors that have no range which could be observed: told apart, in words, and never an error."""

import collections
import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from calidrift_agent import CaptureOptions
from calidrift_agent._observe._suitable import EMPTY, SPARSE, UNCOPIED
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage, Strategy

UNSUITABLE = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.UNSUITABLE_INPUT)
ERRORS = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
    pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning"),
]


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    """Whatever fails is raised."""
    monkeypatch.setenv("CALIDRIFT_STRICT", "1")


def nested(layout):
    rows = [torch.ones(2, 4), torch.ones(3, 4)]
    return torch.nested.nested_tensor(rows, layout=layout)


def complex_numbers(*shape):
    return torch.complex(torch.ones(shape), torch.ones(shape))


class Spectrum(nn.Module):
    """A complex layer, and a real one behind it."""

    def __init__(self, *, real=True):
        super().__init__()
        self.first = nn.Linear(4, 4, dtype=torch.complex64)
        self.second = nn.Linear(4, 4) if real else nn.Identity()

    def forward(self, x):
        return self.second(self.first(x).abs())


class Weighted(nn.Module):
    """A complex parameter and no layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(complex_numbers(4, 4))

    def forward(self, x):
        return x @ self.weight


class Sorting(nn.Module):
    """Makes a tensor of another kind inside."""

    def __init__(self, change):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.change = change

    def forward(self, x):
        return self.inner(self.change(x))


class Mixed(nn.Module):
    """A layer that only ever reads what has no range."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            return torch.view_as_real(x) @ torch.ones(2, 1)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=["strided", "jagged"])
@pytest.mark.parametrize("way", ["eager", "edges", "list", "keyword"])
def test_nested_inputs_are_unsuitable_and_no_error(layout, way, watch_all):
    model = nn.Linear(4, 4).eval()
    value = nested(layout)
    if way == "edges":
        watch = watch_all(lambda x: x * 2)
        watch(value)
    elif way == "list":
        watch = watch_all(Sorting(lambda xs: xs[0]))
        watch([value])
    else:
        watch = watch_all(model)
        model(input=value) if way == "keyword" else model(value)
    total = watch.flush().requests
    assert total[RequestColumn.SAMPLED] == total[UNSUITABLE] == 1
    assert total[RequestColumn.OBSERVED] == total[ERRORS].sum() == 0
    report = watch.report()
    assert report.unread_calls == 0
    assert [note for note in report.notes if "nested tensors were not observed" in note]
    assert not any("another device" in note for note in report.notes)


def test_complex_layers_are_left_out_and_said_so(watch_all):
    model = Spectrum().eval()
    watch = watch_all(model)
    model(complex_numbers(3, 4))
    report = watch.report()
    assert report.points == report.observed == ("second:input",)
    assert report.observed_calls == 1
    assert "complex numbers" in report.skipped["first"]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_model_of_complex_layers_alone_is_observed_at_its_edges(watch_all, compiled):
    model = Spectrum(real=False).eval()
    if compiled:
        model = torch.compile(model, backend="eager")
    watch = watch_all(model)
    with torch.no_grad():
        model(complex_numbers(3, 4))
    report = watch.report()
    assert report.strategy is Strategy.EDGES
    assert "weights are complex numbers" in report.skipped["first"]
    told = "".join([*report.skipped.values(), *report.notes])
    assert "shows none" not in told
    assert "it has no convolution" not in told
    assert "none of " in report.skipped[""]
    assert "can be observed; give reference=" in report.skipped[""]
    assert report.observed == (":output",)
    assert any(
        "tensors of complex numbers were passed over in 1 sampled calls" in note
        for note in report.notes
    )
    assert not any("no point fired" in note for note in report.notes)


@pytest.mark.parametrize("kind", ["module", "function"])
def test_where_everything_is_complex_that_is_why_nothing_was_read(kind, watch_all):
    watch = watch_all(Weighted().eval() if kind == "module" else lambda x: 2 * x)
    for _ in range(2):
        watch(complex_numbers(3, 4))
    report = watch.report()
    assert (report.observed_calls, report.unread_calls) == (0, 2)
    assert any("complex numbers were passed over in 2 sampled" in note for note in report.notes)
    assert not any("generator" in note for note in report.notes)


def test_complex_inputs_of_a_real_layer_are_no_matter(watch_all):
    model = Sorting(torch.real).eval()
    watch = watch_all(model)
    model(complex_numbers(3, 4))
    report = watch.report()
    assert report.observed == ("inner:input",)
    assert not any("complex" in note for note in report.notes)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda x: torch.nested.nested_tensor(list(x)), "nested tensors"),
        (lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged), "nested tensors"),
        (lambda x: x.to_sparse(), "sparse tensors"),
    ],
    ids=["nested", "jagged", "sparse"],
)
def test_other_kinds_inside_a_model(change, kind, watch_all):
    model = Sorting(change).eval()
    watch = watch_all(model)
    with torch.no_grad():
        model(torch.ones(3, 2, 4) if "nested" in kind else torch.eye(4))
    report = watch.report()
    assert (report.observed_calls, report.unread_calls) == (0, 1)
    assert any(f"{kind} were passed over in 1 sampled calls" in note for note in report.notes)
    assert not any("no point fired" in note for note in report.notes)


def test_calls_without_a_reading_for_another_reason_are_told_apart(watch_all):
    model = Mixed().eval()
    watch = watch_all(model)
    model(complex_numbers(3, 4))  # nothing complex came to a layer: none of them ran
    report = watch.report()
    assert any("no point fired in 1 sampled calls" in note for note in report.notes)
    assert not any("passed over" in note for note in report.notes)


def test_a_model_that_is_such_a_layer_itself_keeps_both_reasons(watch_all):
    report = watch_all(nn.LSTM(4, 4).eval()).report()
    assert report.skipped[""].startswith("recurrent layers are quantized dynamically")
    assert "can be observed; give reference=" in report.skipped[""]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript as a whole
@pytest.mark.parametrize("way", ["vmap", "dispatch mode"])
@pytest.mark.parametrize("beside", [False, True], ids=["instead", "beside"])
def test_calls_inside_a_transform_or_a_dispatch_mode_are_dropped_and_said(watch_all, way, beside):
    x = torch.ones(3, 4)
    model = nn.Sequential(nn.Linear(4, 4)).eval()
    served = torch.jit.trace(model, x) if beside else model
    expected = served(x)
    watch = watch_all(served)
    if way == "vmap":
        found = torch.func.vmap(lambda row: served(row))(x)
    else:
        with FlopCounterMode(display=False):
            found = served(x)
    assert torch.allclose(found, expected)
    served(x)
    requests = watch.flush().requests
    assert requests[RequestColumn.SEEN] == requests[RequestColumn.SAMPLED] == 2
    assert requests[UNSUITABLE] == 1
    assert not requests[ERRORS].any()
    report = watch.report()
    assert report.observed_calls == 1
    assert sum("torch.func" in note for note in report.notes) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript as a whole
@pytest.mark.parametrize("beside", [False, True], ids=["instead", "beside"])
def test_calls_during_a_graph_capture_are_dropped_and_said(watch_all, monkeypatch, beside):
    x, capturing = torch.ones(3, 4), [True]
    model = nn.Sequential(nn.Linear(4, 4)).eval()
    served = torch.jit.trace(model, x) if beside else model
    watch = watch_all(served)
    monkeypatch.setattr("calidrift_agent._observe._suitable._CUDA", True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    served(x)
    assert watch.flush().requests[UNSUITABLE] == 1
    assert watch.report().observed_calls == 0
    capturing[0] = False
    served(x)
    total = watch.flush().requests
    assert (total[UNSUITABLE], total[ERRORS].sum()) == (0, 0)
    report = watch.report()
    assert report.observed_calls == 1
    assert sum("graph capture" in note for note in report.notes) == 1


def test_a_process_that_has_not_begun_with_cuda_is_not_asked_for_a_capture(watch_all, monkeypatch):
    model, x = nn.Sequential(nn.Linear(4, 4)).eval(), torch.ones(3, 4)
    watch = watch_all(model)
    monkeypatch.setattr("calidrift_agent._observe._suitable._CUDA", True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: pytest.fail("asked"))
    model(x)
    assert watch.report().observed_calls == 1


class Graphs(nn.Module):
    """Takes a sparse matrix beside a dense input, or a container of both."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x, matrix=None):
        if not isinstance(x, torch.Tensor):
            x = x["x"] if isinstance(x, dict) else x[0]
        y = self.first(x)
        return self.second(y if matrix is None else matrix @ y)


def sparse(kind, size=3):
    found = {"coo": torch.eye(size).to_sparse(), "csr": torch.eye(size).to_sparse_csr()}
    return found[kind]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("kind", ["coo", "csr"])
@pytest.mark.parametrize("way", ["reference", "capture"])
def test_layers_are_observed_where_sparse_inputs_cannot_be_copied(watch_all, tmp_path, kind, way):
    net = Graphs().eval()
    options = {"reference": copy.deepcopy(net)}
    if way == "capture":
        options = {"state_dir": tmp_path, "capture": CaptureOptions()}
    watch = watch_all(net, **options)
    x, matrix = torch.ones(3, 4), sparse(kind)
    with torch.no_grad():
        expected = Graphs.forward(net, x, matrix)
        for _ in range(25):
            assert torch.equal(net(x, matrix), expected)
    _, total = watch.snapshot()
    report = watch.report()
    assert report.active
    assert report.observed_calls == 25
    assert report.observed == report.points
    assert total.requests[ERRORS].sum() == 0
    assert total.requests[UNSUITABLE] == 25
    assert [note for note in report.notes if "sparse" in note] == [UNCOPIED]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("kind", ["coo", "csr"])
@pytest.mark.parametrize("way", ["compiled", "callable"])
def test_sparse_inputs_are_dropped_where_all_is_seen_in_a_copy(watch_all, kind, way):
    net = Graphs().eval()
    served = net.compile(backend="eager") or net if way == "compiled" else net.forward
    watch = watch_all(served)
    call = served if way == "compiled" else watch
    with torch.no_grad():
        for _ in range(25):
            call(torch.ones(3, 4), sparse(kind))
    _, total = watch.snapshot()
    report = watch.report()
    assert report.active
    assert report.observed_calls == 0
    assert total.requests[ERRORS].sum() == 0
    assert total.requests[UNSUITABLE] == 25
    assert SPARSE in report.notes
    assert any("none of 25 sampled calls was observed" in note for note in report.notes)


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_types_that_numpy_does_not_know_are_no_errors_of_captures(watch_all, tmp_path):
    class Side(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x, _):
            return self.layer(x)

    net = Side().eval()
    watch = watch_all(net, state_dir=tmp_path, capture=CaptureOptions())
    with torch.no_grad():
        for _ in range(25):
            net(torch.ones(3, 4), torch.ones(3, 2).to(torch.float8_e4m3fn))
    _, total = watch.snapshot()
    report = watch.report()
    assert report.active
    assert report.observed_calls == 25
    assert total.requests[ERRORS].sum() == 0
    assert total.requests[UNSUITABLE] == 25
    assert any("float8" in note for note in report.notes)


Pair = collections.namedtuple("Pair", "x scale")
CONTAINERS = {
    "ordered": lambda x: collections.OrderedDict(x=x),
    "default": lambda x: collections.defaultdict(list, x=x),
    "named": lambda x: Pair(x, 1),
    "numpy scalar": lambda x: {"x": x, "scale": np.float32(3)},
    "slice": lambda x: {"x": x, "part": slice(1)},
}


@pytest.mark.parametrize("kind", sorted(CONTAINERS))
@pytest.mark.parametrize("way", ["compiled", "reference"])
def test_containers_of_plain_data_are_run_again(watch_all, kind, way):
    net = Graphs().eval()
    reference = copy.deepcopy(net) if way == "reference" else None
    if way == "compiled":
        net.compile(backend="eager")
    watch = watch_all(net, reference=reference)
    with torch.no_grad():
        for _ in range(3):
            net(CONTAINERS[kind](torch.ones(5, 4)))
    _, total = watch.snapshot()
    assert watch.report().observed_calls == 3
    assert total.requests[RequestColumn.DROP_FIRST :].sum() == 0
    if reference is not None:
        assert total.requests[RequestColumn.COMPARED] == 3


class Box:
    def __init__(self, x):
        self.x = x


def test_what_is_no_plain_data_is_said(watch_all):
    class Boxed(Graphs):
        def forward(self, box, beside=None):
            return super().forward(box.x)

    net = Boxed().eval()
    watch = watch_all(net, reference=copy.deepcopy(net))
    with torch.no_grad():
        net(Box(torch.ones(2, 4)))
    assert any("are not compared" in note for note in watch.report().notes)
    watch.close()
    net.compile(backend="eager")
    for beside, sentence in ((None, "without torch tensors"), (torch.ones(2), "plain data")):
        other = watch_all(net)
        with torch.no_grad():
            net(Box(torch.ones(2, 4)), beside)
        notes = other.report().notes
        assert any(sentence in note for note in notes)
        assert any("none of 1 sampled calls was observed" in note for note in notes)
        other.close()


@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_calls_without_rows_are_said(watch_all, way):
    net = Graphs().eval()
    if way == "compiled":
        net.compile(backend="eager")
    watch = watch_all(net)
    with torch.no_grad():
        net(torch.ones(0, 4))
    assert EMPTY in watch.report().notes
