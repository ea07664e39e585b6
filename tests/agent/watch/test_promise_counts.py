"""What a watch counts is what a brute-force reference counts, exactly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from calidrift_agent import (
    CalibrationProfile,
    MagnitudeSketch,
    Watch,
    WatchOptions,
    calibrate,
    request_context,
    watch,
)
from calidrift_agent._state import Window
from calidrift_agent._vocabulary import (
    RATIO_BOUNDS,
    RATIO_COLUMNS,
    CountColumn,
    RequestColumn,
    Stage,
    ValueColumn,
)

OPTIONS = WatchOptions(budget=None, window_seconds=600.0, seed=1)
Reference = dict[str, list[NDArray[np.float32]]]


def inputs_of(model: nn.Module, batches: list[torch.Tensor]) -> Reference:
    """What each convolution and linear layer is called with, by ordinary hooks."""
    found: Reference = {}
    handles = []

    def make(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            found.setdefault(f"{name}:input", []).append(args[0].detach().float().numpy().copy())

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            handles.append(module.register_forward_pre_hook(make(name)))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    return found


def observe(model: nn.Module, batches: list[torch.Tensor], **given: Any) -> tuple[Watch, Window]:
    """Send batches through a watched model; the closed watch and its sum."""
    given = {"name": "net", "sample_rate": 1.0, "options": OPTIONS, **given}
    with watch(model, **given) as one, torch.no_grad():
        for batch in batches:
            model(batch)
        window = one.snapshot()[1]
    first = int(RequestColumn.ERROR_FIRST)
    assert window.requests[first : first + len(Stage)].sum() == 0
    return one, window


def by_name(one: Watch, window: Window, column: CountColumn) -> dict[str, int]:
    names = [point.name for point in one.snapshot()[0].points]
    return dict(zip(names, window.counts[:, column].tolist(), strict=True))


def sketches(one: Watch, window: Window) -> dict[str, MagnitudeSketch]:
    names = [point.name for point in one.snapshot()[0].points]
    return {
        name: MagnitudeSketch.from_cells(
            window.cells[row],
            window.values[row, ValueColumn.LOWEST],
            window.values[row, ValueColumn.HIGHEST],
        )
        for row, name in enumerate(names)
    }


def images(rows: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def loud(batch: torch.Tensor, **values: float) -> torch.Tensor:
    """The batch with some elements replaced: `r3=nan` sets one element of row 3."""
    batch = batch.clone()
    for row, value in values.items():
        batch[int(row[1:]), 0, 4, 4] = value
    return batch


BATCHES = {
    "plain": [images(3, 1), images(1, 2), images(7, 3, 50.0)],
    "nan": [loud(images(3, 1), r1=float("nan")), images(2, 2)],
    "inf": [loud(images(3, 1), r0=float("inf")), loud(images(3, 2), r2=float("-inf"))],
    "mixed": [loud(images(4, 1), r0=float("nan"), r3=float("inf"))],
    "all_nan": [images(2, 1) * float("nan")],
    "zero": [torch.zeros(2, 1, 8, 8)],
    "one": [images(1, 9)],
    "full": [images(8, 4)],
}


@pytest.mark.parametrize("kind", BATCHES)
def test_sketches_extremes_and_elements(tiny_cnn: nn.Module, kind: str) -> None:
    """Every element of a small tensor is in the sketch, bit-equal to a direct update."""
    expected = inputs_of(tiny_cnn, BATCHES[kind])
    one, window = observe(tiny_cnn, BATCHES[kind])
    found = sketches(one, window)
    elements, rows = (by_name(one, window, c) for c in (CountColumn.ELEMENTS, CountColumn.ROWS))
    nan, inf = (by_name(one, window, column) for column in (CountColumn.NAN, CountColumn.INF))
    assert list(found) == list(expected)
    for row, (name, tensors) in enumerate(expected.items()):
        sketch = MagnitudeSketch()
        for tensor in tensors:
            sketch.update(tensor)
        assert np.array_equal(found[name].cells, sketch.cells), name
        assert window.values[row, ValueColumn.LOWEST] == sketch.minimum, name
        assert window.values[row, ValueColumn.HIGHEST] == sketch.maximum, name
        assert elements[name] == sum(tensor.size for tensor in tensors), name
        assert rows[name] == sum(len(batch) for batch in BATCHES[kind]), name
        assert nan[name] == sum(int(np.isnan(tensor).sum()) for tensor in tensors), name
        assert inf[name] == sum(int(np.isinf(tensor).sum()) for tensor in tensors), name


def test_large_tensors_are_sampled_but_their_extremes_are_exact() -> None:
    """One planted spike in 400,000 elements is found; the weights stand for all elements."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval()
    batches = [
        torch.randn(4, 3, 180, 190, generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    ]
    batches[1][2, 1, 77, 33] = 1234.5
    batches[0][0, 0, 0, 0] = -987.25
    expected = inputs_of(model, batches)["0:input"]
    one, window = observe(model, batches)
    assert window.values[0, ValueColumn.HIGHEST] == 1234.5
    assert window.values[0, ValueColumn.LOWEST] == -987.25
    assert window.counts[0, CountColumn.ELEMENTS] == sum(tensor.size for tensor in expected)
    counted = int(window.cells[0].sum())
    assert abs(counted / sum(tensor.size for tensor in expected) - 1.0) < 0.01
    sample = sketches(one, window)["0:input"]
    truth = np.concatenate([tensor.ravel() for tensor in expected])
    for q in (0.05, 0.5, 0.95):  # 8,000 sampled values: 5 standard errors
        assert abs(np.mean(truth <= sample.quantile(q)) - q) < 5 * np.sqrt(q * (1 - q) / 8000)


def absmax_rows(tensor: NDArray[np.float32], rows: int) -> NDArray[np.float64]:
    """Largest magnitude of each row, infinite where it holds NaN."""
    folded = np.abs(tensor.reshape(rows, -1).astype(np.float64)).max(axis=1)
    return np.where(np.isnan(folded), np.inf, folded)


@pytest.mark.parametrize("scale", [0.1, 0.7, 1.0, 3.0])
def test_units_and_exceedances_of_single_rows(tiny_cnn: nn.Module, scale: float) -> None:
    """Requests of one row leave no choice of unit: every column equals the reference."""
    profile = calibrate(tiny_cnn, [images(64, 100)])
    requests = [images(1, seed, scale) for seed in range(40)]
    requests.append(loud(images(1, 50, scale), r0=float("nan")))
    expected = inputs_of(tiny_cnn, requests)
    _, window = observe(tiny_cnn, requests, profile=profile)
    inside = np.ones(len(requests), bool)
    for row, (name, tensors) in enumerate(expected.items()):
        bound = profile.points[name].observed_bound
        assert bound is not None
        absmax = np.array([absmax_rows(tensor, 1)[0] for tensor in tensors])
        exceeds = absmax > bound.value
        inside &= ~exceeds
        counts = window.counts[row]
        assert counts[CountColumn.UNITS] == len(requests)
        assert counts[CountColumn.EXCEEDANCES] == exceeds.sum(), name
        ratios = absmax / bound.value
        buckets = [sum(ratios <= le) for le in RATIO_BOUNDS]
        cumulative = np.cumsum(counts[RATIO_COLUMNS]).tolist()
        assert cumulative == [*buckets, len(requests)], name
        total = ratios[np.isfinite(ratios)].sum()
        assert window.values[row, ValueColumn.RATIO_SUM] == pytest.approx(total, rel=1e-12)
    assert 0 < inside.sum() < len(requests) or scale in (0.1, 3.0)
    assert window.requests[RequestColumn.UNITS] == len(requests)
    assert window.requests[RequestColumn.UNITS_COVERED] == inside.sum()


def test_unit_is_a_uniformly_random_row(tiny_cnn: nn.Module) -> None:
    """One row of four is outside: a quarter of the units are, wherever it stands."""
    profile = calibrate(tiny_cnn, [images(64, 100)])
    quiet = images(4, 1, 0.3)
    for place in range(4):
        batch = quiet.clone()
        batch[place] *= 1000.0
        _, window = observe(tiny_cnn, [batch] * 200, profile=profile)
        assert window.requests[RequestColumn.UNITS] == 200
        outside = 200 - int(window.requests[RequestColumn.UNITS_COVERED])
        assert 20 <= outside <= 85, place  # 50 expected; P(outside of it) < 1e-6


def test_calibration_traffic_is_covered(tiny_cnn: nn.Module) -> None:
    """The unit is the same in calibration and in production: no reference unit exceeds."""
    reference = [images(16, seed) for seed in range(4)]
    profile = calibrate(tiny_cnn, reference)
    _, window = observe(tiny_cnn, reference * 5, profile=profile)
    assert window.counts[:, CountColumn.EXCEEDANCES].sum() == 0
    assert window.requests[RequestColumn.UNITS_COVERED] == 20


class Folded(nn.Module):
    """Folds windows into the batch: its layer sees B * T entries."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def test_folded_rows_belong_to_their_request() -> None:
    """B * T rows become B rows, in calibration and in production."""
    model = Folded().eval()
    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1))
    profile = calibrate(model, [x])
    bound = profile.points["layer:input"].observed_bound
    assert bound is not None
    assert (bound.units, bound.value) == (6, float(x.abs().max()))
    x[3, 2, 1] = 2 * bound.value
    _, window = observe(model, [x] * 120, profile=profile)
    assert window.counts[0, CountColumn.ROWS] == 6 * 120
    assert window.counts[0, CountColumn.UNITS] == 120
    assert 3 <= window.counts[0, CountColumn.EXCEEDANCES] <= 48  # 20 expected, 6 deviations


class Between(nn.Module):
    """Two layers read one tensor; an activation writes to it between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 0.0
        return self.first(y) + self.second(torch.relu_(y))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_layers_that_begin_to_differ_are_counted_apart(mode: Callable[[], Any]) -> None:
    """While inputs are positive the layers see the same; the first negative one shows."""
    for _ in range(4):
        model = Between().eval()
        with mode(), watch(model, name="net", sample_rate=1.0, options=OPTIONS) as one:
            for _ in range(5):
                model(torch.ones(2, 4))
                one.snapshot()
            model(-torch.ones(2, 4))
            lowest = one.snapshot()[1].values[:, ValueColumn.LOWEST].tolist()
        assert lowest == [-1.0, 0.0]


class Empty(nn.Module):
    """One of its layers gets a tensor without elements."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Linear(3, 3)
        self.all = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all(x) + self.none(x[:0]).sum()


def test_empty_batches_and_empty_tensors(tiny_cnn: nn.Module) -> None:
    """No rows, no unit; the request is seen, answered, and no error."""
    profile = calibrate(tiny_cnn, [images(4, 1)])
    requests = [images(2, 1)[:0], images(2, 1), images(2, 1)[:0]]
    _, window = observe(tiny_cnn, requests, profile=profile)
    assert window.requests[RequestColumn.SEEN] == 3
    assert window.requests[RequestColumn.SAMPLED] == 3
    assert window.requests[RequestColumn.UNITS] == 1
    assert (window.counts[:, CountColumn.ROWS] == 2).all()
    one, window = observe(Empty().eval(), [torch.ones(2, 3)])
    assert by_name(one, window, CountColumn.ELEMENTS) == {"none:input": 0, "all:input": 6}
    assert one.report().never_fired == ("none:input",)


def test_segments_and_sessions(tiny_cnn: nn.Module) -> None:
    """Segments are counted apart, a session is one unit however many requests it makes."""
    profile = calibrate(tiny_cnn, [images(16, 1)])
    inside, outside = images(1, 1, 0.2), images(1, 2, 500.0)
    with watch(tiny_cnn, name="net", profile=profile, sample_rate=1.0, options=OPTIONS) as one:
        for segment, batch, times in (
            ("day", inside, 5),
            ("night", outside, 3),
            ("day", outside, 1),
        ):
            with request_context(segment=segment):
                for _ in range(times):
                    tiny_cnn(batch)
        with request_context(segment="chat"):
            for _ in range(4):
                for session in ("a", "b", "c"):
                    with request_context(session=session):
                        tiny_cnn(inside)
        window = one.flush()
    assert {s.name: (s.units, s.covered) for s in window.segments} == {
        "day": (6, 5),
        "night": (3, 0),
        "chat": (3, 3),
    }
    assert window.requests[RequestColumn.OBSERVED] == 21
    assert window.requests[RequestColumn.UNITS] == 12
    assert (window.counts[:, CountColumn.UNITS] == 12).all()
    assert (window.counts[:, CountColumn.ROWS] == 21).all()


def test_windows_add_up(tiny_cnn: nn.Module) -> None:
    """Each request is in exactly one window."""
    batches = [images(2, seed) for seed in range(9)]
    with watch(tiny_cnn, name="net", sample_rate=1.0, options=OPTIONS) as one:
        windows = []
        for batch in batches:
            tiny_cnn(batch)
            windows.append(one.flush())
        total = one.snapshot()[1]
    assert [int(w.requests[RequestColumn.OBSERVED]) for w in windows] == [1] * 9
    assert [w.number for w in windows] == list(range(windows[0].number, windows[0].number + 9))
    assert np.array_equal(sum(w.cells for w in windows), total.cells)
    assert np.array_equal(sum(w.counts for w in windows), total.counts)


def quantized_inputs(graph: Any, example: torch.Tensor) -> dict[Any, NDArray[np.float32]]:
    """What each activation quantizer of a PT2E graph reads, by torch.fx's own interpreter."""
    found: dict[Any, NDArray[np.float32]] = {}

    class Look(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            if "quantize_per_tensor" in str(n.target) and "dequantize" not in str(n.target):
                scale, zero_point, qmin, qmax = n.args[1:5]
                value = self.env[n.args[0]]
                lo, hi = (qmin - zero_point) * scale, (qmax - zero_point) * scale
                found[len(found)] = (value.float().numpy().copy(), lo, hi, scale)
            return super().run_node(n)

    with torch.no_grad():
        Look(graph).run(example)
    return found


def test_clip_counts_equal_numpy(tiny_int8: Any, copy_graph: Callable[..., Any]) -> None:
    """Clipped elements and energy of the served graph, in float64 by numpy."""
    graph = copy_graph(tiny_int8.graph)
    rows = [25.0 * tiny_int8.example[i : i + 1].expand(2, -1, -1, -1).clone() for i in range(4)]
    expected = [quantized_inputs(graph, batch) for batch in rows]
    profile = CalibrationProfile.from_pt2e(graph)
    one, window = observe(graph, rows, profile=profile)
    assert len(one.snapshot()[0].points) == len(expected[0])
    clipped = 0
    for point in range(len(expected[0])):
        low = high = elements = 0
        energy = squares = 0.0
        for reading in expected:
            tensor, lo, hi, scale = reading[point]
            x = tensor[:1].astype(np.float64)  # both rows are equal; one is replayed
            low += int((x < lo - scale / 2).sum())
            high += int((x > hi + scale / 2).sum())
            elements += x.size
            outside = (x < lo - scale / 2) | (x > hi + scale / 2)
            energy += float(((x - np.clip(x, lo, hi)) ** 2 * outside).sum())
            squares += float((x**2).sum())
        counts, values = window.counts[point], window.values[point]
        assert counts[CountColumn.CLIP_ELEMENTS] == elements
        assert (counts[CountColumn.CLIP_LOW], counts[CountColumn.CLIP_HIGH]) == (low, high)
        assert values[ValueColumn.CLIPPED_ENERGY] == pytest.approx(energy, rel=1e-5)
        assert values[ValueColumn.ENERGY] == pytest.approx(squares, rel=1e-5)
        clipped += low + high
    assert clipped > 0, "nothing was clipped: the test shows nothing"
