"""Where rows are inside a tensor: laws over all ways in which models fold them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calidrift_agent._points import Layout, fold_rows, grid_of, layout_of

SIZES = st.integers(1, 5)


def labelled(rows: int, positions: int, features: int) -> torch.Tensor:
    """(B, T, C), in which each element holds the number of its row."""
    row = torch.arange(rows, dtype=torch.float32)
    return row[:, None, None].expand(rows, positions, features).clone()


def owners(tensor: torch.Tensor, layout: Layout, rows: int) -> list[set[float]]:
    """Which rows' elements each row of the grid holds."""
    grid = grid_of(tensor, layout, rows)
    return [set(one.flatten().tolist()) for one in grid]


@settings(deadline=None, max_examples=60)
@given(rows=SIZES, positions=SIZES, features=SIZES, heads=SIZES)
def test_rows_that_come_first_are_told_apart_however_they_are_folded(
    rows, positions, features, heads
):
    each = [{float(row)} for row in range(rows)]
    batch = labelled(rows, positions, features)
    per_head = labelled(rows, heads * positions, features).reshape(rows, heads, positions, features)
    foldings = [
        batch,
        batch.flatten(0, 1),
        batch.flatten(1),
        batch[:, 0],
        per_head,
        per_head.transpose(1, 2),
        per_head.flatten(0, 1),
    ]
    for tensor in foldings:
        shape = tuple(tensor.shape)
        if len(shape) > 2 and shape[1] == rows and shape[0] != rows:
            continue  # by its shape it could as well have the positions first
        layout = layout_of(shape, rows, positions)
        assert not layout.is_shared
        assert owners(tensor, layout, rows) == each


@settings(deadline=None, max_examples=60)
@given(rows=SIZES, positions=SIZES, features=SIZES)
def test_rows_that_come_second_are_told_apart(rows, positions, features):
    tensor = labelled(rows, positions, features).transpose(0, 1)
    if rows == positions:
        return  # nothing tells rows and positions apart
    layout = layout_of(tuple(tensor.shape), rows, positions)
    assert owners(tensor, layout, rows) == [{float(row)} for row in range(rows)]
    flat = tensor.flatten(0, 1)
    layout = layout_of(tuple(flat.shape), rows, positions, time_major=True)
    assert owners(flat, layout, rows) == [{float(row)} for row in range(rows)]


def test_a_fold_that_forgets_the_order_of_positions_is_noticed():
    """The mutant is what a fold does that knows no positions before rows."""
    tensor = labelled(3, 6, 2).transpose(0, 1)
    mutant = [set(one.tolist()) for one in tensor.reshape(3, -1)]
    layout = layout_of(tuple(tensor.shape), 3, 6)
    assert owners(tensor, layout, 3) == [{0.0}, {1.0}, {2.0}] != mutant


@pytest.mark.parametrize(
    ("shape", "rows", "length", "expected"),
    [
        ((4, 7, 3), 4, 7, Layout(1)),
        ((28, 3), 4, 7, Layout(7)),
        ((7, 4, 3), 4, 7, Layout(7, time_major=True)),
        ((8, 4, 3), 4, 8, Layout(8, time_major=True)),
        ((8, 4, 3), 4, 0, Layout(2)),  # of unknown length: windows of a row in one piece
        ((9, 4, 3), 4, 0, Layout(9, time_major=True)),
        ((4, 4, 3), 4, 4, Layout(1)),
        ((5, 3), 4, 7, Layout(0)),
        ((), 1, 0, Layout(1)),
        ((), 2, 0, Layout(0)),
        ((5, 1, 3), 1, 5, Layout(5)),
        ((8, 4), 4, 8, Layout(2)),  # two dimensions: the second holds features
    ],
)
def test_shapes(shape, rows, length, expected):
    assert layout_of(shape, rows, length) == expected


def test_what_was_time_major_before_decides_what_is_not_told_by_the_shape():
    assert layout_of((4, 4, 3), 4, 4, True) == Layout(4, time_major=True)
    assert layout_of((28, 3), 4, 7, True) == Layout(7, time_major=True)
    assert layout_of((28, 3, 2), 4, 7, True) == Layout(7)  # heads and windows keep their rows
    assert layout_of((24, 3), 4, 7, True) == Layout(6)
    assert layout_of((7, 3), 1, 7, True) == Layout(7)


@settings(deadline=None, max_examples=40)
@given(shape=st.lists(st.integers(1, 4), max_size=4), rows=SIZES, length=st.integers(0, 5))
def test_every_element_is_in_exactly_one_place(shape, rows, length):
    tensor = torch.arange(float(np.prod(shape))).reshape(shape)
    grid = grid_of(tensor, layout_of(tuple(shape), rows, length), rows)
    assert grid.shape[0] in (1, rows)
    assert sorted(grid.flatten().tolist()) == sorted(tensor.flatten().tolist())
    folded = fold_rows(tensor, rows)
    assert folded.dim() == 2
    assert folded.shape[0] in (1, rows)
    assert folded.numel() == tensor.numel()
