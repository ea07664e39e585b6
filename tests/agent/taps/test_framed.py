"""Padding is left out of every column but its own; against an oracle that never saw it."""

import math

import numpy as np
import pytest
import torch

from calidrift_agent._points import Frame
from calidrift_agent._profile import (
    CalibrationProfile,
    Fingerprint,
    ObservedBound,
    PointProfile,
    utc_now,
)
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import CallFacts, Folder, PointTable, Recorder, ShelfPool
from calidrift_agent._taps._framed import measure_framed
from calidrift_agent._vocabulary import CountColumn, Instrument, ValueColumn

MASK = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], np.bool_)
SIZES = {"small": 4, "large": 6000}
LIMITS = (-math.inf, math.inf)


def padded(features, *, seed=0, factor=50.0):
    """(B, T, C) whose padded positions hold larger values than any real one, and NaN."""
    values = torch.randn(3, 5, features, generator=torch.Generator().manual_seed(seed))
    values[~torch.from_numpy(MASK)] *= factor
    values[0, 4, 0] = math.nan
    return values


def fold(ledger, tensor, *, frame, unit=0, clip=None, bound=3.0):
    profile = CalibrationProfile(
        {"p": PointProfile(name="p", observed_bound=ObservedBound(bound, 1, 1, (bound,)))},
        1,
        Instrument.RANGE,
        Fingerprint(),
        utc_now(),
    )
    table = PointTable.of([("p", ())], profile, [clip])
    recorder = Recorder(table, ledger, ShelfPool(), rows=3, frame=frame)
    recorder.observe(0, tensor)
    recorder.finish()
    buffer, folder = WindowBuffer(1, window_seconds=10.0, now_ns=0), Folder(table)
    facts = CallFacts(3 if frame is None else int(frame.real.sum()), unit)
    found = folder.fold_ranges(recorder, facts, buffer)
    folder.fold_clips(recorder, buffer)
    return buffer, found


@pytest.mark.parametrize("folding", ["BTC", "(BT)C", "TBC"])
@pytest.mark.parametrize("size", SIZES)
def test_padding_counts_nowhere_but_in_its_own_columns(ledger, clip, size, folding):
    tensor = padded(SIZES[size])
    real, rest = tensor[torch.from_numpy(MASK)].numpy(), tensor[torch.from_numpy(~MASK)].numpy()
    shaped = {
        "BTC": tensor,
        "(BT)C": tensor.flatten(0, 1),
        "TBC": tensor.transpose(0, 1),
    }[folding]
    buffer, found = fold(ledger, shaped, frame=Frame(3, 5, {5: MASK}), clip=clip)
    counts, values = buffer.counts[0], buffer.values[0]
    assert counts[CountColumn.ELEMENTS] == counts[CountColumn.CLIP_ELEMENTS] == real.size
    assert counts[CountColumn.PADDED_ELEMENTS] == rest.size
    assert counts[CountColumn.NAN] == counts[CountColumn.INF] == 0
    assert counts[CountColumn.CLIP_LOW] == np.count_nonzero(real < clip.lo - clip.scale / 2)
    assert counts[CountColumn.CLIP_HIGH] == np.count_nonzero(real > clip.hi + clip.scale / 2)
    assert values[ValueColumn.LOWEST] == real.min()
    assert values[ValueColumn.HIGHEST] == real.max()
    assert values[ValueColumn.PADDED_LOWEST] == np.nanmin(rest)
    assert values[ValueColumn.PADDED_HIGHEST] == np.nanmax(rest)
    exact = float(np.sum(real.astype(np.float64) ** 2))
    assert values[ValueColumn.ENERGY] == pytest.approx(exact, rel=1e-5 if size == "small" else 0.1)
    for row in range(3):
        mine = tensor[row][torch.from_numpy(MASK[row])]
        assert found.absmax[0, row] == pytest.approx(float(mine.abs().max()))
    if size == "small":
        oracle = MagnitudeSketch()
        oracle.update(real.ravel())
        assert np.array_equal(buffer.cells[0], oracle.cells)
    else:
        assert int(buffer.cells[0].sum()) == pytest.approx(real.size, rel=0.01)
        assert np.flatnonzero(buffer.cells[0]).max() < np.flatnonzero(_cells(rest)).max()


def test_the_oracle_notices_when_padding_is_not_left_out(ledger, clip):
    buffer, _ = fold(ledger, padded(4), frame=None, clip=clip)
    assert buffer.values[0, ValueColumn.HIGHEST] > 4 * float(padded(4)[2].abs().max())
    assert buffer.counts[0, CountColumn.NAN] == 1


@pytest.mark.parametrize("size", SIZES)
def test_the_unit_is_what_is_real_of_its_row(ledger, size):
    bound = 6.0  # above all real values, below the padded ones
    frame = Frame(3, 5, {5: MASK})
    for unit in range(3):
        buffer, _ = fold(ledger, padded(SIZES[size]), frame=frame, unit=unit, bound=bound)
        assert buffer.counts[0, CountColumn.UNITS] == 1
        assert buffer.counts[0, CountColumn.EXCEEDANCES] == 0
        buffer, _ = fold(ledger, padded(SIZES[size]), frame=frame, unit=unit, bound=0.5)
        assert buffer.counts[0, CountColumn.EXCEEDANCES] == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_real_value_that_is_not_finite_breaks_its_row_only(ledger, size, bad):
    tensor = padded(SIZES[size])
    tensor[1, 3, 1] = bad
    buffer, found = fold(ledger, tensor, frame=Frame(3, 5, {5: MASK}))
    assert (found.absmax[0] == math.inf).tolist() == [False, True, False]
    broken = buffer.counts[0, [CountColumn.NAN, CountColumn.INF]]
    assert broken.tolist() == ([1, 0] if math.isnan(bad) else [0, 1])
    assert np.isfinite(buffer.values[0]).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_row_that_is_nothing_but_padding_is_no_unit_and_no_row(ledger, size):
    mask = MASK.copy()
    mask[1] = False
    frame = Frame(3, 5, {5: mask})
    for tensor in (padded(SIZES[size]), padded(SIZES[size])[:, 1].contiguous()):
        buffer, found = fold(ledger, tensor, frame=frame, unit=1)
        assert np.isnan(found.absmax[0]).tolist() == [False, True, False]
        assert not found.exceeding[1]
        assert buffer.counts[0, CountColumn.UNITS] == 0
        assert buffer.counts[0, CountColumn.ROWS] == 2
        assert buffer.counts[0, CountColumn.PADDED_ELEMENTS] > 0
        assert np.isfinite(buffer.values[0, ValueColumn.LOWEST])


def test_a_call_of_nothing_but_padding(ledger):
    buffer, found = fold(ledger, padded(4), frame=Frame(3, 5, {5: np.zeros_like(MASK)}))
    assert np.isnan(found.absmax).all()
    assert buffer.counts[0, CountColumn.ELEMENTS] == 0
    assert not buffer.cells.any()
    assert buffer.values[0, ValueColumn.LOWEST] == math.inf
    assert buffer.counts[0, CountColumn.PADDED_ELEMENTS] == 60


def test_a_point_that_fires_for_real_rows_later_in_the_call(ledger):
    mask = MASK.copy()
    mask[1] = False
    table = PointTable.of([("p", ())])
    recorder = Recorder(table, ledger, ShelfPool(), rows=3, frame=Frame(3, 5, {5: mask}))
    recorder.observe(0, padded(4))
    recorder.observe(0, torch.full((1, 9), 7.0))  # shared by all rows
    found = Folder(table).fold_ranges(
        recorder, CallFacts(2, 0), WindowBuffer(1, window_seconds=10.0, now_ns=0)
    )
    assert found.absmax[0, 1] == 7.0


@pytest.mark.parametrize("size", SIZES)
def test_rows_that_alternate_without_any_padding(ledger, size):
    tensor = torch.ones(6, 3, SIZES[size])
    tensor[4, 1, 2] = 9.0
    buffer, found = fold(ledger, tensor, frame=Frame(3, 6))
    assert found.absmax[0].tolist() == [1.0, 9.0, 1.0]
    assert buffer.counts[0, CountColumn.ELEMENTS] == tensor.numel()
    assert buffer.counts[0, CountColumn.PADDED_ELEMENTS] == 0
    assert buffer.values[0, ValueColumn.PADDED_LOWEST] == math.inf
    _, found = fold(ledger, tensor.flatten(0, 1), frame=Frame(3, 6))
    assert found.absmax[0].tolist() == [1.0, 1.0, 9.0]  # nothing says that positions come first


def test_ordinary_tensors_are_left_to_the_ordinary_way():
    tensor = torch.ones(3, 5, 4)
    assert measure_framed(tensor, Frame(3, 5), None, LIMITS) is None
    assert measure_framed(tensor, Frame(3, 4, {4: MASK[:, 1:]}), None, LIMITS) is None


def test_bfloat16_and_a_tensor_that_is_not_contiguous(ledger):
    tensor = padded(4).bfloat16().permute(2, 0, 1).contiguous().permute(1, 2, 0)
    buffer, _ = fold(ledger, tensor, frame=Frame(3, 5, {5: MASK}))
    real = tensor[torch.from_numpy(MASK)]
    assert buffer.values[0, ValueColumn.HIGHEST] == float(real.max())
    assert buffer.counts[0, CountColumn.ELEMENTS] == real.numel()


def _cells(values):
    sketch = MagnitudeSketch()
    sketch.update(values[np.isfinite(values)].astype(np.float32))
    return sketch.cells
