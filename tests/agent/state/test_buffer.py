from __future__ import annotations

import itertools

import numpy as np
import pytest

from calidrift_agent._state import NO_WINDOW, OVERFLOW_SEGMENT, SegmentCount, WindowBuffer
from calidrift_agent._vocabulary import ValueColumn, WindowFlag
from calidrift_agent.errors import ConfigurationError

SECOND = 1_000_000_000


def test_windows_are_numbered_without_gaps_and_aligned_to_utc(make_buffer):
    buffer = make_buffer(now=12 * SECOND)
    assert buffer.number == 0
    spans = []
    for now in (20, 30, 41, 75, 80):
        assert buffer.due(now * SECOND)
        window = buffer.close(now * SECOND)
        assert window.flags is WindowFlag.NONE
        spans.append((window.number, window.start_ns // SECOND, window.end_ns // SECOND))
    assert spans == [(0, 12, 20), (1, 20, 30), (2, 30, 40), (3, 40, 50), (4, 70, 80)]


def test_an_early_close_starts_the_next_window_at_once(make_buffer):
    buffer = make_buffer(now=12 * SECOND)
    assert not buffer.due(15 * SECOND)
    first = buffer.close(15 * SECOND)
    second = buffer.close(20 * SECOND)
    assert first.flags == WindowFlag.EARLY
    assert second.flags == WindowFlag.NONE
    assert (first.start_ns, first.end_ns) == (12 * SECOND, 15 * SECOND)
    assert (second.start_ns, second.end_ns) == (15 * SECOND, 20 * SECOND)


def test_extra_flags_are_kept(make_buffer):
    window = make_buffer().close(20 * SECOND, WindowFlag.COARSE)
    assert window.flags == WindowFlag.COARSE


def test_a_clock_that_steps_back_keeps_numbers_and_times_monotone(make_buffer):
    buffer = make_buffer(now=1000 * SECOND)
    windows = [buffer.close(1010 * SECOND)]
    assert buffer.due(500 * SECOND), "the pace follows the new clock"
    windows.append(buffer.close(500 * SECOND))
    assert not buffer.due(505 * SECOND)
    windows += [buffer.close(now * SECOND) for now in (510, 520, 1015, 1020, 1030)]
    assert [window.number for window in windows] == list(range(7))
    for before, after in itertools.pairwise(windows):
        assert before.start_ns <= before.end_ns <= after.start_ns <= after.end_ns
    assert windows[-1].end_ns == 1030 * SECOND
    assert windows[1].flags == WindowFlag.EARLY


def test_close_hands_out_copies_and_keeps_the_arrays(make_buffer, fill):
    buffer = make_buffer()
    arrays = (buffer.requests, buffer.counts, buffer.values, buffer.cells)
    fill(buffer, 1)
    before = buffer.cells.copy()
    window = buffer.close(20 * SECOND)
    after = (buffer.requests, buffer.counts, buffer.values, buffer.cells)
    assert all(one is other for one, other in zip(arrays, after, strict=True))
    assert np.array_equal(window.cells, before)
    assert not buffer.cells.any()
    assert not buffer.requests.any()
    assert (buffer.values[:, ValueColumn.LOWEST] == np.inf).all()
    buffer.cells += 7
    assert np.array_equal(window.cells, before)


def test_cumulative_is_the_sum_of_closed_windows_only(make_buffer, fill, assert_same):
    buffer = make_buffer()
    assert buffer.cumulative().number == NO_WINDOW
    fill(buffer, 1)
    first = buffer.close(20 * SECOND)
    assert_same(buffer.cumulative(), first)
    held = buffer.cumulative()
    fill(buffer, 2)
    assert_same(buffer.cumulative(), first)
    second = buffer.close(30 * SECOND)
    assert_same(buffer.cumulative(), first.plus(second))
    assert_same(held, first)
    assert buffer.cumulative().number == 1


def test_total_includes_the_open_window_and_is_a_copy(make_buffer, fill, assert_same):
    buffer = make_buffer()
    fill(buffer, 1)
    before_any_close = buffer.total()
    assert_same(before_any_close, buffer.open_window(13 * SECOND))
    assert before_any_close.number == 0
    first = buffer.close(20 * SECOND)
    fill(buffer, 2)
    total = buffer.total()
    assert_same(total, first.plus(buffer.open_window(21 * SECOND)))
    buffer.cells += 1
    assert not np.shares_memory(total.cells, buffer.cells)


def test_segments_are_counted_per_window_and_bounded(make_buffer):
    buffer = make_buffer(points=1)
    buffer.add_segment("night", 2, 1)
    buffer.add_segment("night", 3, 3)
    buffer.add_segment("é" * 100, 1, 1)
    buffer.add_segment("é" * 100 + "tail", 1, 0)
    window = buffer.close(20 * SECOND)
    assert window.segments == (SegmentCount("night", 5, 4), SegmentCount("é" * 64, 2, 1))
    for request in range(500):
        buffer.add_segment(f"request-{request}", 1, 0)
    buffer.add_segment("night", 1, 1)
    segments = {s.name: s.units for s in buffer.close(30 * SECOND).segments}
    assert len(segments) == 64
    assert segments["night"] == 1
    assert sum(segments.values()) == 501
    assert segments[OVERFLOW_SEGMENT] == 500 - 62


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9, float("nan")])
def test_unusable_window_length_is_refused(seconds):
    with pytest.raises(ConfigurationError, match="window_seconds must be between"):
        WindowBuffer(1, window_seconds=seconds, now_ns=0)


def test_negative_point_count_is_refused():
    with pytest.raises(ConfigurationError, match="points must be 0 or more"):
        WindowBuffer(-1, window_seconds=1.0, now_ns=0)


def test_a_model_without_points_still_counts_requests(make_buffer):
    buffer = make_buffer(points=0)
    buffer.requests += 1
    window = buffer.close(20 * SECOND)
    assert window.points == 0
    assert not window.is_empty


def seen_recently(buffer, now):
    return buffer.recent_absmax(now * SECOND).tolist()


def see(buffer, low, high):
    buffer.values[0, ValueColumn.LOWEST] = low
    buffer.values[0, ValueColumn.HIGHEST] = high


def test_recent_maxima_last_two_minutes(make_buffer):
    buffer = make_buffer(points=1, now=0)
    assert seen_recently(buffer, 0) == [-np.inf]
    see(buffer, -7.0, 2.0)
    assert seen_recently(buffer, 1) == [7.0], "the open window counts"
    buffer.close(10 * SECOND)
    see(buffer, -1.0, 3.0)
    buffer.close(20 * SECOND)
    assert seen_recently(buffer, 21) == [7.0]
    assert seen_recently(buffer, 10 + 120) == [7.0], "two scrapes a minute apart both see it"
    assert seen_recently(buffer, 10 + 120 + 11) == [3.0]
    assert seen_recently(buffer, 20 + 120 + 11) == [-np.inf], "no data is not zero"


@pytest.mark.parametrize("seconds", [0.001, 1.0, 10.0, 60.0])
def test_recent_maxima_survive_any_pace(make_buffer, seconds):
    buffer = make_buffer(points=1, seconds=seconds, now=0)
    see(buffer, 0.0, 9.0)
    buffer.close(1)
    for tick in range(1, 600):  # a flush every 0.2 seconds
        see(buffer, 0.0, 1.0)
        buffer.close(tick * SECOND // 5)
    assert seen_recently(buffer, 120) == [9.0]
    assert len(buffer._recent) <= 16


def test_recent_maxima_survive_a_clock_that_steps_back(make_buffer):
    buffer = make_buffer(points=1, now=1000 * SECOND)
    see(buffer, 0.0, 9.0)
    buffer.close(1010 * SECOND)
    for tick in range(60):
        see(buffer, 0.0, 1.0)
        buffer.close((500 + 10 * tick) * SECOND)
    assert seen_recently(buffer, 500 + 600) == [1.0], "the old entry is gone by its place"
