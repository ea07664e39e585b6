from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._sketch import CELLS
from calidrift_agent._state import SegmentCount, StateReader, StateWriter, Window
from calidrift_agent._state._codec import WindowEncoder, decode_window, encoded_bytes
from calidrift_agent._vocabulary import REQUEST_COLUMNS
from calidrift_agent.errors import StateFormatError

SECOND = 1_000_000_000


@pytest.mark.parametrize("points", [0, 1, 3, 8])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_round_trip(make_buffer, fill, points, density):
    buffer = make_buffer(points=points)
    fill(buffer, 3, density)
    window = buffer.close(20 * SECOND)
    blob = bytes(WindowEncoder(points).encode(window))
    assert decode_window(blob, points).equals(window)
    assert len(blob) <= encoded_bytes(points, int(np.count_nonzero(window.cells)))


def test_counts_take_the_narrowest_words_that_hold_them(make_buffer):
    buffer = make_buffer(points=2)
    encoder = WindowEncoder(2)
    sizes = []
    for step, highest in enumerate((2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**62)):
        buffer.cells[0, 5] = highest
        buffer.cells[1, CELLS - 1] = 1
        window = buffer.close((20 + 10 * step) * SECOND)
        blob = bytes(encoder.encode(window))
        assert decode_window(blob, 2).equals(window)
        sizes.append(len(blob))
    assert [size - sizes[0] for size in sizes] == [0, 4, 4, 12, 12]


def test_extremes_that_are_not_finite_survive():
    window = Window.empty(1, number=4)
    window.values[0, 2] = np.nan
    decoded = decode_window(bytes(WindowEncoder(1).encode(window)), 1)
    assert decoded.values.tobytes() == window.values.tobytes()


def test_the_encoder_reuses_its_buffer(make_buffer, fill):
    buffer = make_buffer()
    encoder = WindowEncoder(3)
    fill(buffer, 1, 1.0)
    large = buffer.close(20 * SECOND)
    fill(buffer, 2, 0.01)
    small = buffer.close(30 * SECOND)
    encoder.encode(large)
    assert decode_window(bytes(encoder.encode(small)), 3).equals(small)


def test_unbounded_segments_are_refused_instead_of_overflowing():
    segments = tuple(SegmentCount("x" * 120 + str(i), 1, 1) for i in range(100))
    with pytest.raises(ValueError, match="add_segment, which bounds them"):
        WindowEncoder(1).encode(replace(Window.empty(1), segments=segments))


def test_every_truncation_is_refused(make_buffer, fill):
    buffer = make_buffer(points=1)
    fill(buffer, 1)
    blob = bytes(WindowEncoder(1).encode(buffer.close(20 * SECOND)))
    for length in [*range(0, len(blob), 37), len(blob) - 1]:
        with pytest.raises(StateFormatError):
            decode_window(blob[:length], 1)


def test_bytes_of_another_point_count_are_refused(make_buffer):
    blob = bytes(WindowEncoder(3).encode(make_buffer(3).close(20 * SECOND)))
    with pytest.raises(StateFormatError, match="3 points"):
        decode_window(blob, 2)


def test_cell_bits_that_do_not_match_the_counts_are_refused():
    window = Window.empty(1)
    window.cells[0, 3] = 9
    blob = bytearray(WindowEncoder(1).encode(window))
    blob[-1] |= 0x40
    with pytest.raises(StateFormatError, match="do not match its cells"):
        decode_window(bytes(blob), 1)


@pytest.mark.parametrize(
    ("offset", "word"),
    [
        (24, struct.pack("<d", float("nan"))),  # sampling ratio
        (24, struct.pack("<d", 1.5)),
        (64, struct.pack("<q", -1)),  # first request counter
        (64 + 8 * REQUEST_COLUMNS, struct.pack("<q", -1)),  # first counter of the first point
    ],
)
def test_figures_that_nothing_can_count_are_refused(offset, word):
    blob = bytearray(WindowEncoder(1).encode(Window.empty(1)))
    decode_window(bytes(blob), 1)
    blob[offset : offset + 8] = word
    with pytest.raises(StateFormatError, match="negative count or an impossible"):
        decode_window(bytes(blob), 1)


def test_damaged_segments_are_refused():
    window = replace(Window.empty(1), segments=(SegmentCount("é", 1, 1),))
    blob = bytearray(WindowEncoder(1).encode(window))
    blob[-2:] = b"\xff\xff"
    with pytest.raises(StateFormatError, match="segments cannot be read"):
        decode_window(bytes(blob), 1)


def test_reading_state_needs_no_torch():
    code = "import sys, calidrift_agent._state; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cells_to_which_nothing_was_added_are_not_looked_at_again(make_buffer, monkeypatch):
    """The rest of the window is; and a window that was written in between spoils nothing."""
    buffer, encoder = make_buffer(3), WindowEncoder(3)
    looked = []
    original = WindowEncoder._encode_cells
    monkeypatch.setattr(
        WindowEncoder,
        "_encode_cells",
        lambda one, window: looked.append(1) or original(one, window),
    )

    def encoded(stamp):
        return decode_window(bytes(encoder.encode(buffer.open_window(1), stamp)), 3)

    buffer.cells[1, 5] = 7
    for step, (stamp, expected) in enumerate([((0, 1), 1), ((0, 1), 1), ((0, 2), 2), (None, 3)]):
        buffer.counts[2, 0] = step
        buffer.add_segment("night", 1, 0)
        window = encoded(stamp)
        assert len(looked) == expected
        assert window.equals(buffer.open_window(1))
    # The one without a stamp has overwritten what was kept.
    buffer.cells[0, 0] = 70_000
    assert encoded((0, 2)).equals(buffer.open_window(1))
    assert len(looked) == 4


def test_a_writer_that_is_told_nothing_looks_each_time(make_buffer, make_meta, tmp_path):
    writer, buffer = StateWriter.create(tmp_path, make_meta(points=2)), make_buffer(2)
    with StateReader.open(writer.path) as reader:
        for count in (1, 2):
            buffer.cells[0, 3] = count
            writer.write_open(buffer, count)
            assert reader.live().cells[0, 3] == count
        buffer.additions += 1
        buffer.cells[0, 3] = 9
        writer.write_open(buffer, 3)
        buffer.requests[0] = 4
        writer.write_open(buffer, 4)
        live = reader.live()
        assert (live.cells[0, 3], live.requests[0]) == (9, 4)
    writer.close()
