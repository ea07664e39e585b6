"""The native tap against torch and numpy: the same figures, bit for bit."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from calidrift_agent._profile import ClipBound
from calidrift_agent._sketch import CELLS
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import CallFacts, Folder, Ledger, PointTable, Recorder, ShelfPool
from calidrift_agent._taps import _recorder as recorder_module
from calidrift_agent._taps._native import NATIVE, load
from calidrift_agent._vocabulary import COUNT_COLUMNS, VALUE_COLUMNS

pytestmark = pytest.mark.skipif(NATIVE is None, reason="the native tap was not built here")

CLIP = ClipBound.of_quantizer(0.03, 5, -100, 120, "int8")
SHAPES = [
    (1,),
    (4,),
    (4, 7),
    (4, 31),
    (4, 33, 5),
    (4, 4096),
    (8, 5, 9),
    (3, 6),
    (4, 2, 8, 8),
    (4, 17, 300),
    (4, 64, 33, 31),
    (2, 2, 2),
    (),
    (4, 3, 160, 161),
    (12, 11, 900),
]
SPECIAL = [
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    0.0,
    1e-45,
    -1e-40,
    3.4e38,
    -3.4e38,
    2.0**-24,
    65536.0,
]


@pytest.fixture(params=[False, True], ids=["chosen", "plain"])
def code(request):
    """The code for this processor, and that for any."""
    NATIVE.choose(request.param)
    yield
    NATIVE.choose(False)


class Fixed:
    """Draws the same number for both taps."""

    def __init__(self, draw: int) -> None:
        self.draw = draw

    def getrandbits(self, bits: int) -> int:
        return self.draw % (1 << bits)


def special(tensor, generator):
    """Put values into it that are easily got wrong."""
    flat = tensor.reshape(-1)
    for value in SPECIAL:
        if torch.rand((), generator=generator) < 0.15:
            flat[int(torch.randint(flat.numel(), (), generator=generator))] = value
    return tensor


def variants(generator):
    """Tensors of all kinds; some of them twice, for points that share their quantizer or do not."""
    for shape in SHAPES:
        plain = torch.randn(shape, generator=generator) * 3
        yield from (plain, plain, plain)
        yield special(plain.clone(), generator)
        yield plain.to(torch.bfloat16)
        yield torch.full(shape, -0.0)
        if len(shape) > 1:
            yield plain[..., ::2]
        if len(shape) == 4:
            yield plain.to(memory_format=torch.channels_last)
            yield special(plain.to(memory_format=torch.channels_last), generator)
    for shape in SHAPES:  # positions before rows, perhaps: the native tap looks no further
        if len(shape) > 1:
            yield torch.randn(shape, generator=generator).transpose(0, 1)


def is_plain(value, rows):
    """What the native tap reads itself."""
    behind = value.dim() > 2 and value.shape[1] == rows > 1
    dense = value.dtype is torch.float32 and value.is_contiguous()
    return dense and value.numel() > 1 and not behind


def table(points=6):
    tiny = ClipBound.of_quantizer(5e-324, 0, 0, 255, "uint8")
    clips = [CLIP, CLIP, None, tiny, None]
    chosen = [clips[point % len(clips)] for point in range(points)]
    found = PointTable.of([(f"p{point}", ()) for point in range(points)], None, chosen)
    bounds = [0.0, 2.0, math.nan, 1e-30, 9.5, 3e38]
    return replace(found, observed=np.array([bounds[point % 6] for point in range(points)]))


def folded(points, values, *, native, rows, repeat=1, calls=1, inference=False):
    """Buffer and row maxima of some calls, with the recorder's own count of what was native."""
    buffer = WindowBuffer(len(points), window_seconds=10.0, now_ns=0)
    folder, pool = Folder(points, native=native), ShelfPool(native=native)
    ledger, taken, found = Ledger("model", lambda: None), 0, None
    for _ in range(calls):
        with torch.inference_mode(inference):
            recorder = Recorder(points, ledger, pool, rows=rows, repeat=repeat)
            for point, value in values:
                recorder.observe(point, value)
            recorder.finish()
        taken += recorder.strip.marks if recorder.strip else 0
        found = folder.fold_ranges(recorder, CallFacts(rows, rows - 1), buffer)
        folder.fold_clips(recorder, buffer)
        recorder.release()
    assert not ledger.take()[0].any()
    return buffer, found, taken


def same(one, two):
    """Whether two results are equal, bit for bit."""
    (left, maxima, _), (right, others, _) = one, two
    return (
        np.array_equal(left.counts, right.counts)
        and np.array_equal(left.requests, right.requests)
        and np.array_equal(maxima.exceeding, others.exceeding)
        and np.array_equal(left.cells, right.cells)
        and np.array_equal(left.values.view(np.int64), right.values.view(np.int64))
        and np.array_equal(maxima.points, others.points)
        and np.array_equal(maxima.absmax.view(np.int64), others.absmax.view(np.int64))
    )


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_python_bit_for_bit(code, monkeypatch, seed, rows):
    generator = torch.Generator().manual_seed(seed * 10 + rows)
    draw = int(torch.randint(1 << 32, (), generator=generator))
    monkeypatch.setattr(recorder_module, "_random", Fixed(draw))
    values = list(enumerate(variants(generator)))
    points = table(len(values))
    native = folded(points, values, native=True, rows=rows)
    assert native[2] > len(values) / 4
    only = [(point, value) for point, value in values if is_plain(value, rows)]
    for many in (values, only, only + only[::-1]):
        native = folded(points, many, native=True, rows=rows)
        assert many is values or native[2] == len(many)
        assert same(native, folded(points, many, native=False, rows=rows))
    assert same(native, folded(points, many, native=False, rows=rows, inference=True))


def test_the_same_for_repeated_rows_and_reused_memory(monkeypatch):
    monkeypatch.setattr(recorder_module, "_random", Fixed(0xDEADBEEF))
    generator = torch.Generator().manual_seed(5)
    values = [(point, torch.randn(6, 40, 300, generator=generator)) for point in range(6)]
    values += [(point, torch.randn(6, 20, generator=generator)) for point in range(6)]
    points = table()
    for calls in (1, 4):
        results = [
            folded(points, values, native=native, rows=1, repeat=3, calls=calls)
            for native in (True, False)
        ]
        assert same(*results)
        assert results[0][2] == calls * len(values)


@pytest.mark.parametrize(
    "draw", [0, 1, (1 << 32) - 1, 1 << 31], ids=["first", "next", "last", "middle"]
)
def test_the_first_and_last_phase(monkeypatch, draw):
    monkeypatch.setattr(recorder_module, "_random", Fixed(draw))
    values = [(0, torch.randn(1, 97, 101)), (1, torch.randn(1, 5000)), (2, torch.randn(4097))]
    points = table()
    assert same(*[folded(points, values, native=one, rows=1) for one in (True, False)])


@pytest.mark.parametrize("mutant", ["phase", "high", "energy", "cells", "sign"])
def test_the_comparison_notices_planted_mutants(monkeypatch, mutant):
    monkeypatch.setattr(recorder_module, "_random", Fixed(7 << 28))
    values = [(0, torch.randn(1, 97, 101)), (1, torch.full((1, 3), -0.0))]
    points = table()
    python = folded(points, values, native=False, rows=1)
    if mutant == "phase":
        monkeypatch.setattr(recorder_module, "_random", Fixed(9 << 28))
    native = folded(points, values, native=True, rows=1)
    if mutant == "high":
        absmax = np.nextafter(native[1].absmax, np.inf)
        native = native[0], replace(native[1], absmax=absmax), native[2]
    elif mutant == "energy":
        native[0].values[0, 4] = np.nextafter(native[0].values[0, 4], np.inf)
    elif mutant == "cells":
        native[0].cells[0, 400] += 1
    elif mutant == "sign":
        native[0].values[1, 0] = -0.0
    assert not same(native, python)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(4, dtype=torch.float64),
        torch.ones(4, dtype=torch.int32),
        torch.ones(4, 4)[:, 1],
        torch.ones(1).expand(4),
        torch.ones(0, 3),
        torch.tensor(1.0),
        torch.nn.Parameter(torch.ones(4)),
        torch.ones(4, device="meta"),
        torch.eye(3).to_sparse(),
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "text",
        None,
    ],
)
def test_what_it_leaves_to_python(value):
    strip = NATIVE.Strip(table().edges)
    strip.begin(1, 1, 0)
    assert not strip.take(0, value)
    assert strip.marks == 0


def test_rows_behind_positions_are_left_to_python_from_there_on():
    strip = NATIVE.Strip(table().edges)
    strip.begin(2, 1, 0)
    assert strip.take(0, torch.ones(2, 3, 4))
    assert not strip.take(0, torch.ones(3, 2, 4))
    assert not strip.take(0, torch.ones(6, 4))
    strip.begin(2, 1, 0)
    assert strip.take(0, torch.ones(6, 4))


def test_wrapped_tensors_are_left_alone():
    strip, taken = NATIVE.Strip(table().edges), []
    strip.begin(1, 1, 0)

    def look(value):
        taken.append(strip.take(0, value))
        return value.sum()

    torch.func.vmap(look)(torch.ones(3, 4))
    torch.func.grad(look)(torch.ones(3))
    assert taken == [False, False]


def test_wrong_use_is_an_error_and_no_crash():
    strip = NATIVE.Strip(table().edges)
    with pytest.raises(ValueError, match="at least 1"):
        strip.begin(0, 1, 0)
    strip.begin(1, 1, 0)
    assert not strip.take(99, torch.ones(3))
    assert not strip.take(-1, torch.ones(3))
    assert strip.take(0, torch.ones(3))
    with pytest.raises(ValueError, match="one histogram per point"):
        strip.fold(np.zeros((1, 10), np.int64))
    counts, values = np.zeros((6, COUNT_COLUMNS), np.int64), np.zeros((6, VALUE_COLUMNS))
    with pytest.raises(ValueError, match="one row per point"):
        strip.add_ranges(np.zeros((6, CELLS), np.int64), counts[:5], values)
    with pytest.raises(ValueError, match="one row per point"):
        strip.add_clips(counts, values[1:])
    with pytest.raises(ValueError, match="contiguous"):
        strip.add_clips(counts.T, values)
    observed, bounds = np.ones(6), np.ones(2)
    for points, absmax in (([7], [1.0]), ([-1], [1.0]), ([1, 2], [1.0])):
        with pytest.raises(ValueError, match="one magnitude"):
            NATIVE.add_unit(np.array(points), np.array(absmax), observed, bounds, counts, values)
    with pytest.raises(ValueError, match="one row per point"):
        NATIVE.add_unit(np.array([1]), np.ones(1), observed[:3], bounds, counts, values)
    assert not counts.any()
    assert not values.any()
    with pytest.raises(IndexError):
        strip.sample(1)
    with pytest.raises((ValueError, TypeError, BufferError)):
        NATIVE.Strip(3)
    with pytest.raises(ValueError, match="65536"):
        NATIVE.setup(
            torch.Tensor, np.zeros(4, np.uint32), (4096, 1024, 8, 1 << 16, 1290), (0,) * 20
        )
    assert load() is NATIVE


def test_own_time_and_size_are_measured():
    strip = NATIVE.Strip(table().edges)
    strip.begin(1, 1, 0)
    strip.take(0, torch.ones(1, 100))
    assert strip.own_ns > 0
    assert strip.elements == 100
    assert strip.size >= 400


@pytest.mark.parametrize(
    "change", ["off", "other protocol", "cannot be set up", "reads nonsense", "not there"]
)
def test_without_it_python_does_the_work(monkeypatch, change):
    module = "calidrift_agent._taps._native._load"
    if change == "off":
        monkeypatch.setenv("CALIDRIFT_NO_NATIVE", "1")
    elif change == "other protocol":
        monkeypatch.setattr(f"{module}.PROTOCOL", 99)
    elif change == "cannot be set up":
        monkeypatch.setattr(f"{module}.CELLS", 1 << 20)
    elif change == "reads nonsense":
        monkeypatch.setattr(f"{module}._works", lambda _: False)
    else:
        monkeypatch.setitem(sys.modules, "calidrift_agent._taps._native._tap", None)
    assert load() is None


def test_a_process_without_it_observes_the_same():
    """The taps of Python stand in the modules, and everything is counted."""
    program = """
import torch
from torch import nn
from calidrift_agent import WatchOptions, watch
from calidrift_agent._taps import Tap
model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
x = torch.randn(3, 8)
expected = model(x)
with watch(model, name="net", sample_rate=1.0, options=WatchOptions(budget=None)) as one:
    assert torch.equal(model(x), expected)
    total = one.snapshot()[1]
    report = one.report()
assert "forward" not in model[0].__dict__
print(Tap.__module__, len(report.observed), total.counts[:, 3].tolist())
"""
    environment = {**os.environ, "CALIDRIFT_NO_NATIVE": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ended.stdout.split() == ["calidrift_agent._taps._python_tap", "2", "[24,", "24]"]
