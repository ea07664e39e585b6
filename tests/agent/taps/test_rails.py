"""From codes to clip counts: what the estimate recovers, and what it must not take for clipping."""

import math

import numpy as np
import pytest
import torch

from calidrift_agent._points import Frame
from calidrift_agent._profile import (
    CalibrationProfile,
    ClipBound,
    Fingerprint,
    PointProfile,
    utc_now,
)
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import Folder, Ledger, PointTable, Recorder, ShelfPool
from calidrift_agent._taps._codes import KEPT_CODES, read_codes
from calidrift_agent._taps._rails import RailFolder, rail_excess
from calidrift_agent._vocabulary import CountColumn, Instrument, ValueColumn

# torch says once per process that quantized tensors are deprecated; here a test makes some.
pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch:UserWarning")

UNKNOWN = (math.nan, math.nan)
SYMMETRIC = ClipBound.of_quantizer(0.05, 128, 0, 255, "quint8")


def quantized(values: torch.Tensor, bound: ClipBound = SYMMETRIC) -> torch.Tensor:
    codes = torch.round(values / bound.scale) + bound.zero_point
    clamped = codes.clamp(bound.qmin, bound.qmax)
    whole = clamped.to(torch.uint8 if bound.dtype == "quint8" else torch.int8)
    return torch._make_per_tensor_quantized_tensor(whole, bound.scale, bound.zero_point)


def excess(values: torch.Tensor, bound: ClipBound, rates=UNKNOWN) -> tuple[float, float]:
    reading = read_codes(0, quantized(values, bound), bound)
    assert reading is not None
    return rail_excess(reading.histogram(), reading.lowest, bound, rates)


def normal(count: int, *, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * scale


def truth(values: torch.Tensor, bound: ClipBound) -> tuple[int, int]:
    """Values beyond the range by more than half a step, from the values themselves."""
    wide = values.double()
    low = int((wide < bound.lo - bound.scale / 2).sum())
    return low, int((wide > bound.hi + bound.scale / 2).sum())


def buffer(points: int = 1) -> WindowBuffer:
    return WindowBuffer(points, window_seconds=86_400, now_ns=0)


def make_table(*bounds: ClipBound, rates=UNKNOWN) -> PointTable:
    low, high = (None if math.isnan(rate) else rate for rate in rates)
    points = {
        str(row): PointProfile(
            name=str(row), clip_bound=bound, rail_low_rate=low, rail_high_rate=high
        )
        for row, bound in enumerate(bounds)
    }
    profile = CalibrationProfile(points, 1, Instrument.CLIP, Fingerprint(), utc_now())
    return PointTable.of([(name, ()) for name in points], profile)


@pytest.mark.parametrize("scale", [2.5, 4.0, 9.0])
@pytest.mark.parametrize(
    "bound",
    [
        SYMMETRIC,
        ClipBound.of_quantizer(0.05, 90, 0, 255, "quint8"),
        ClipBound.of_quantizer(0.05, 0, -128, 127, "qint8"),
        ClipBound.of_quantizer(0.1, 64, 0, 127, "quint8"),
    ],
)
def test_the_clipped_share_is_recovered_within_a_percent(bound, scale):
    values = normal(1_000_000, scale=scale)
    for found, known in zip(excess(values, bound), truth(values, bound), strict=True):
        if known > 10_000:
            assert found == pytest.approx(known, rel=0.01)
        else:
            assert abs(found - known) < 200


def test_rails_of_the_type_instead_of_the_operation_find_nothing():
    """The planted mutant: an operation with 7-bit codes, read with the rails of its type."""
    bound = ClipBound.of_quantizer(0.1, 64, 0, 127, "quint8")
    mutant = ClipBound.of_quantizer(0.1, 64, 0, 255, "quint8")
    values = normal(100_000, scale=9.0)
    known = truth(values, bound)[1]
    assert known > 20_000
    reading = read_codes(0, quantized(values, bound), bound)
    found = rail_excess(reading.histogram(), 0, bound, UNKNOWN)[1]
    mistaken = rail_excess(reading.histogram(), 0, mutant, UNKNOWN)[1]
    assert found == pytest.approx(known, rel=0.01)
    assert mistaken == 0.0


def test_zeros_behind_a_relu_are_not_clipped():
    bound = ClipBound.of_quantizer(0.02, 0, 0, 255, "quint8")
    values = torch.relu(normal(100_000))
    low, high = excess(values, bound)
    assert low == 0.0
    assert abs(high) < 10
    # Without the rule, half of all values would be called clipped.
    reading = read_codes(0, quantized(values, bound), bound)
    codes = reading.histogram()
    assert codes[0] - codes[1:5].mean() > 45_000


def test_a_range_of_negative_values_has_its_zero_at_the_top():
    bound = ClipBound.of_quantizer(0.02, 255, 0, 255, "quint8")
    assert excess(-torch.relu(normal(100_000)), bound)[1] == 0.0


def test_a_full_tail_on_the_rail_is_not_clipping():
    """Values spread evenly up to the bound: the rail holds as much as any other code."""
    values = torch.linspace(-6.4, 6.35, 256_000)
    assert max(map(abs, excess(values, SYMMETRIC))) < 600
    assert truth(values, SYMMETRIC) == (0, 0)


def test_what_calibration_put_on_the_rail_is_expected_there():
    """A constant that is quantized to the outermost code, as padding of a mask is."""
    values = torch.cat([normal(90_000), torch.full((10_000,), -100.0)])
    assert excess(values, SYMMETRIC)[0] == pytest.approx(10_000, abs=5)
    assert excess(values, SYMMETRIC, (0.1, 0.0))[0] == pytest.approx(0, abs=5)
    more = torch.cat([normal(80_000), torch.full((20_000,), -100.0)])
    assert excess(more, SYMMETRIC, (0.1, 0.0))[0] == pytest.approx(10_000, abs=5)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_few_codes_have_few_neighbours(width):
    bound = ClipBound.of_quantizer(1.0, 1, 0, 1 + width, "quint8")
    histogram = np.zeros(256, np.int64)
    histogram[: 2 + width] = 10
    histogram[1 + width] = 100
    low, high = rail_excess(histogram, 0, bound, UNKNOWN)
    assert (low, high) == (0.0, 90.0)


def test_two_codes_tell_nothing():
    bound = ClipBound.of_quantizer(1.0, 5, 0, 1, "quint8")
    assert rail_excess(np.ones(256, np.int64), 0, bound, UNKNOWN) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8])
@pytest.mark.parametrize("size", [100, KEPT_CODES + 1])
def test_a_histogram_counts_every_code(dtype, size):
    codes = torch.randint(0, 256, (size,), generator=torch.Generator().manual_seed(0))
    shift = 0 if dtype is torch.quint8 else 128
    whole = (codes - shift).to(torch.uint8 if shift == 0 else torch.int8)
    tensor = torch._make_per_tensor_quantized_tensor(whole, 0.5, 3)
    bound = ClipBound.of_quantizer(0.5, 3, -shift, 255 - shift, str(dtype).removeprefix("torch."))
    reading = read_codes(0, tensor, bound)
    assert reading.size == (256 * 8 if size > KEPT_CODES else size)
    assert reading.lowest == -shift
    np.testing.assert_array_equal(reading.histogram(), np.bincount(codes.numpy(), minlength=256))
    assert reading.histogram() is reading.histogram()


def test_channels_last_codes_are_all_counted():
    tensor = quantized(normal(2 * 3 * 8 * 8).reshape(2, 3, 8, 8))
    strange = tensor.contiguous(memory_format=torch.channels_last)[:, :, ::2]
    reading = read_codes(0, strange, SYMMETRIC)
    expected = torch.bincount(strange.int_repr().flatten(), minlength=256).numpy()
    np.testing.assert_array_equal(reading.histogram(), expected)


def test_padded_positions_are_left_out():
    frame = Frame(2, 3, {3: np.array([[True, True, False], [True, False, False]])})
    values = torch.zeros(2, 3, 4)
    values[0, 2], values[1, 1:] = 99.0, 99.0
    reading = read_codes(0, quantized(values), SYMMETRIC, frame)
    assert (reading.numel, reading.padded) == (12, 12)
    assert reading.histogram()[128] == 12
    assert reading.histogram()[255] == 0


def test_counts_rise_by_what_is_clipped_and_not_by_noise():
    """Calm traffic of a percentile range: what calibration clipped, give or take."""
    values = normal(200_000)
    bound = ClipBound.of_quantizer(0.02, 128, 0, 255, "quint8")
    known = truth(values, bound)
    rates = tuple(one / values.numel() for one in known)
    table = make_table(bound, rates=(rates[0], rates[1]))
    folder, window = RailFolder(table), buffer()
    calm = 400
    for call in range(calm):
        reading = read_codes(0, quantized(normal(4096, seed=call + 1), bound), bound)
        folder.fold([reading], window)
    counts = window.counts[0]
    assert counts[CountColumn.CLIP_ELEMENTS] == calm * 4096
    noise = int(counts[CountColumn.CLIP_LOW] + counts[CountColumn.CLIP_HIGH])
    assert noise / (calm * 4096) < 0.15 * sum(rates)
    before, clipped = noise, 0
    for call in range(100):
        values = normal(4096, scale=3.0, seed=call + 10_000)
        clipped += sum(truth(values, bound))
        folder.fold([read_codes(0, quantized(values, bound), bound)], window)
    found = int(counts[CountColumn.CLIP_LOW] + counts[CountColumn.CLIP_HIGH]) - before
    expected = clipped - round(100 * 4096 * sum(rates))
    assert found == pytest.approx(expected, rel=0.01)


def test_a_deficit_is_taken_from_later_calls_and_forgotten():
    table = make_table(SYMMETRIC)
    folder, window = RailFolder(table), buffer()
    flat = np.zeros(256, np.int64)
    flat[251:255] = 1000  # the rail itself holds nothing: 1000 fewer than expected
    full = np.zeros(256, np.int64)
    full[255] = 600

    class Fixed:
        def __init__(self, histogram: np.ndarray) -> None:
            self.point, self.lowest, self.padded = 0, 0, 0
            self.numel = int(histogram.sum())
            self.histogram = lambda: histogram

    folder.fold([Fixed(flat)], window)
    folder.fold([Fixed(full)], window)
    assert window.counts[0, CountColumn.CLIP_HIGH] == 0
    folder.fold([Fixed(full)], window)
    assert 200 <= window.counts[0, CountColumn.CLIP_HIGH] < 250
    for _ in range(10):
        folder.fold([Fixed(flat)], window)
    for _ in range(640):
        folder.fold([Fixed(np.zeros(256, np.int64))], window)
    folder.fold([Fixed(full)], window)
    assert 800 - 5 <= window.counts[0, CountColumn.CLIP_HIGH] < 850


@pytest.fixture
def errors() -> Ledger:
    return Ledger("net", lambda: None)


def record(ledger: Ledger, table: PointTable, *tensors: torch.Tensor) -> Recorder:
    recorder = Recorder(table, ledger, ShelfPool(), rows=1)
    for tensor in tensors:
        recorder.observe(0, tensor)
    recorder.finish()
    return recorder


def test_no_quantized_tensor_can_break_a_tap(errors):
    table = make_table(SYMMETRIC)
    bare = PointTable.of([("0", ())])
    codes = torch.ones(4, dtype=torch.uint8)
    odd = [
        torch._make_per_channel_quantized_tensor(
            codes.reshape(2, 2), torch.ones(2), torch.zeros(2, dtype=torch.long), 0
        ),
        torch._make_per_tensor_quantized_tensor(codes.to(torch.int32), 0.05, 128),
        torch._make_per_tensor_quantized_tensor(codes[:0], 0.05, 128),
        torch._make_per_tensor_quantized_tensor(torch.zeros(1 << 17, dtype=torch.uint8), 0.05, 128),
        quantized(torch.ones(3)),
    ]
    recorder = record(errors, table, *odd)
    assert not recorder.failed
    assert [one.numel for one in recorder.codes] == [1 << 17, 3]
    assert recorder.harvest.readings() == []
    assert recorder.size > 0
    recorder.release()
    assert recorder.codes == []
    for tensor in odd:
        assert record(errors, bare, tensor).codes == []
    assert int(errors.take()[0].sum()) == 0


def test_another_range_than_the_attached_one_is_an_error_and_no_count(errors):
    recorder = record(errors, make_table(SYMMETRIC), quantized(torch.ones(3)))
    assert not recorder.failed
    other = ClipBound.of_quantizer(0.05, 127, 0, 255, "quint8")
    recorder = record(errors, make_table(SYMMETRIC), quantized(torch.ones(3), other))
    assert recorder.failed
    assert recorder.codes == []
    wider = ClipBound.of_quantizer(0.06, 128, 0, 255, "quint8")
    assert record(errors, make_table(SYMMETRIC), quantized(torch.ones(3), wider)).failed


def test_a_call_leaves_codes_and_exact_values_side_by_side(errors):
    table = make_table(SYMMETRIC, SYMMETRIC)
    recorder = Recorder(table, errors, ShelfPool(), rows=2)
    values = torch.tensor([[1.0, 100.0, math.nan], [-100.0, 2.0, 3.0]])
    recorder.observe(0, values)
    recorder.observe(1, quantized(torch.nan_to_num(values).repeat(100, 1)))
    recorder.finish()
    window, folder = buffer(2), Folder(table)
    folder.fold_presence(recorder, 2, (), window)
    folder.fold_clips(recorder, window)
    exact, codes = window.counts
    assert exact[CountColumn.ROWS] == codes[CountColumn.ROWS] == 2
    assert (exact[CountColumn.ELEMENTS], codes[CountColumn.ELEMENTS]) == (6, 600)
    assert exact[CountColumn.NAN] == 1
    assert (exact[CountColumn.CLIP_LOW], exact[CountColumn.CLIP_HIGH]) == (1, 1)
    assert (codes[CountColumn.CLIP_LOW], codes[CountColumn.CLIP_HIGH]) == (100, 100)
    assert window.values[0, ValueColumn.CLIPPED_ENERGY] > 0
    # Of codes no energy is known: absence, and not a share of 0.
    assert window.values[1, ValueColumn.ENERGY] == 0.0
    assert not window.cells.any()
    assert math.isinf(window.values[0, ValueColumn.HIGHEST])
    again = buffer(2)
    folder.fold_presence(recorder, 2, (0, 1), again)
    assert not again.counts.any()
