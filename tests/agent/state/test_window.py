from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._state import NO_WINDOW, SegmentCount, Window
from calidrift_agent._vocabulary import ValueColumn, WindowFlag
from calidrift_agent.errors import StateFormatError

SECOND = 1_000_000_000


@pytest.fixture
def closed(make_buffer, fill):
    buffer = make_buffer()
    windows = []
    for step in range(4):
        fill(buffer, step)
        windows.append(buffer.close((20 + 10 * step) * SECOND))
    return windows, buffer.cumulative()


def test_the_numbers_of_flags_on_disk_never_change():
    assert {flag.name: flag.value for flag in WindowFlag} == {
        "EARLY": 1,
        "COARSE": 2,
        "KILLED": 4,
        "ERRORS": 8,
        "BUDGET": 16,
        "CLOSED": 32,
    }


def test_plus_is_independent_of_order(closed):
    windows, total = closed
    forth = Window.empty(3)
    back = Window.empty(3)
    for window in windows:
        forth = forth.plus(window)
    for window in reversed(windows):
        back = back.plus(window)
    assert forth.equals(total)
    assert np.array_equal(forth.cells, back.cells)
    assert np.array_equal(forth.values[:, :2], back.values[:, :2])
    assert forth.number == back.number == 3
    assert (forth.start_ns, forth.end_ns) == (12 * SECOND, 50 * SECOND)
    assert (back.start_ns, back.end_ns) == (12 * SECOND, 50 * SECOND)


def test_empty_is_the_zero_of_plus(closed):
    windows, _ = closed
    assert Window.empty(3).plus(windows[1]).equals(windows[1])
    assert windows[1].plus(Window.empty(3)).equals(windows[1])
    assert Window.empty(3).number == NO_WINDOW
    assert Window.empty(3).is_empty
    assert not windows[0].is_empty


def test_plus_never_shares_memory(closed):
    windows, _ = closed
    result = Window.empty(3).plus(windows[0])
    assert not np.shares_memory(result.cells, windows[0].cells)
    assert not np.shares_memory(result.requests, windows[0].requests)


def test_minus_undoes_plus_exactly_for_counts(closed, assert_same):
    windows, total = closed
    rest = total.minus(windows[0]).minus(windows[2])
    wanted = windows[1].plus(windows[3])
    assert WindowFlag.COARSE in rest.flags
    # Extremes cannot be subtracted: they stay those of the whole, never narrower than the truth.
    low, high = ValueColumn.LOWEST, ValueColumn.HIGHEST
    assert np.array_equal(rest.values[:, low], total.values[:, low])
    assert np.array_equal(rest.values[:, high], total.values[:, high])
    assert (rest.values[:, low] <= wanted.values[:, low]).all()
    values = rest.values.copy()
    values[:, [low, high]] = wanted.values[:, [low, high]]
    assert_same(replace(rest, values=values), wanted)


def test_minus_refuses_what_is_not_a_part(closed):
    windows, _ = closed
    with pytest.raises(StateFormatError, match="not a part of the sum"):
        windows[0].minus(windows[1].plus(windows[2]).plus(windows[3]))


def test_windows_of_other_points_cannot_be_combined():
    with pytest.raises(StateFormatError, match="3 and 2 points"):
        Window.empty(3).plus(Window.empty(2))


def test_extremes_of_nothing_do_not_touch_extremes_of_something(closed):
    windows, _ = closed
    assert np.array_equal(windows[0].plus(Window.empty(3)).values, windows[0].values)
    assert Window.empty(1).values[0, ValueColumn.LOWEST] == np.inf
    assert Window.empty(1).values[0, ValueColumn.HIGHEST] == -np.inf


def test_a_not_a_number_extreme_is_ignored():
    broken = Window.empty(1)
    broken.values[0, ValueColumn.HIGHEST] = np.nan
    good = Window.empty(1)
    good.values[0, ValueColumn.HIGHEST] = 2.0
    assert good.plus(broken).values[0, ValueColumn.HIGHEST] == 2.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests", np.zeros(2, np.int64)),
        ("counts", np.zeros((3, 1), np.int64)),
        ("values", np.zeros((3, 5), np.float32)),
        ("cells", np.zeros((3, 7), np.int64)),
    ],
)
def test_wrong_shapes_are_refused(field, value):
    with pytest.raises(ValueError, match=f"window's {field} must be"):
        replace(Window.empty(3), **{field: value})


def test_equals_looks_at_every_field(closed):
    window = closed[0][0]
    assert window.equals(replace(window))
    for change in (
        {"number": 9},
        {"start_ns": 1},
        {"end_ns": 1},
        {"flags": WindowFlag.COARSE},
        {"sampling_ratio": 0.5},
        {"segments": (SegmentCount("x", 1, 1),)},
        {"requests": window.requests + 1},
        {"counts": window.counts + 1},
        {"values": window.values + 1},
        {"cells": window.cells + 1},
    ):
        assert not window.equals(replace(window, **change))


def test_with_flags_adds(closed):
    window = closed[0][0].with_flags(WindowFlag.EARLY).with_flags(WindowFlag.COARSE)
    assert window.flags == WindowFlag.EARLY | WindowFlag.COARSE


def test_the_largest_unit_of_a_sum_is_that_of_its_windows():
    first, second = Window.empty(2), Window.empty(2)
    first.values[:, ValueColumn.UNIT_HIGHEST] = [3.0, -np.inf]
    second.values[:, ValueColumn.UNIT_HIGHEST] = [2.0, -np.inf]
    total = first.plus(second)
    assert total.values[:, ValueColumn.UNIT_HIGHEST].tolist() == [3.0, -np.inf]
    # The largest cannot be taken away; it stays that of the whole, never below the truth.
    assert total.minus(first).values[0, ValueColumn.UNIT_HIGHEST] == 3.0
