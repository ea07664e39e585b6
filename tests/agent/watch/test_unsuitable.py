"""Tensors that have no range which could be observed: told apart, in words, and never an error."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

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
