"""What shows whether rows of a request stand for themselves."""

import numpy as np
import pytest
import torch

from calidrift_agent._observe._row_check import (
    RowBook,
    same_output,
    same_sight,
    shape_class,
    unlike,
)


def test_a_class_says_which_tensors_are_cut_and_how_the_model_was_called():
    x, bias = torch.zeros(8, 4), torch.zeros(8, 8)
    first = shape_class((x, bias), {"causal": True, "name": "a", "more": [x, "b"]}, 8)
    assert first == shape_class((x, bias), {"causal": True, "name": "b", "more": [x, "c"]}, 8)
    assert first != shape_class((x, bias), {"causal": False, "name": "a", "more": [x]}, 8)
    assert shape_class((x[:7], bias), {}, 7) != shape_class((x, bias), {}, 8)


def test_unknown_classes_are_taken_whole_and_there_are_not_too_many():
    book, x = RowBook(), torch.zeros(2, 1)
    assert book.wants_whole((x,), {}, 2)
    assert not book.wants_whole((x,), {}, 1)
    book.note(shape_class((x,), {}, 2), apart=True)
    assert not book.wants_whole((x,), {}, 2)
    assert not book.mixed
    for count in range(2, 70):
        book.note(shape_class((x,) * count, {}, 2), apart=False)
    assert book.mixed
    assert book.known(shape_class((x,) * 100, {}, 2)) is False
    book.forget()
    assert book.known(shape_class((x,), {}, 2)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.bfloat16])
@pytest.mark.parametrize("value", [0, 1])
def test_rows_that_are_all_alike_are_made_to_differ(dtype, value):
    given = torch.full((3, 2), value).to(dtype)
    (changed, shared), kwargs = unlike((given, torch.ones(2)), {"flag": True}, 3, 1)
    assert torch.equal(changed[1], given[1])
    assert not (changed[0] == given[0]).any()
    assert not (changed[2] == given[2]).any()
    assert torch.equal(shared, torch.ones(2))
    assert kwargs == {"flag": True}
    assert bool((given == value).all())


def test_rows_that_differ_stay():
    given = torch.arange(6.0).reshape(3, 2)
    (same,), _ = unlike((given,), {}, 3, 1)
    assert same is given


INFINITE = [1, 6, np.inf, -np.inf]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ([[0, 4, 2.0, -1.0], INFINITE], True),
        ([[0, 12, 2.0, -1.0], INFINITE], True),  # shared by all rows
        ([[0, 4, 2.05, -1.05], INFINITE], True),
        ([[0, 4, 2.1, -1.0], INFINITE], False),
        ([[0, 3, 2.0, -1.0], INFINITE], False),  # less of it, with the same extremes
        ([[0, 4, 2.0, -1.0], [1, 6, 5.0, -np.inf]], False),
        ([[0, 4, 2.0, -1.0], [2, 6, np.inf, -np.inf]], False),
        ([[0, 4, 2.0, -1.0]], False),
    ],
)
def test_sights_are_the_same_within_what_rounding_makes(other, same):
    batch = np.array([[0, 12, 2.0, -1.0], INFINITE])
    assert same_sight(batch, np.array(other), 3) is same


def test_outputs_are_the_same_within_what_rounding_makes():
    one = torch.tensor([[3.0, 4.0, torch.nan]])
    assert same_output(None, None)
    assert not same_output(one, None)
    assert not same_output(one, one[:, :2])
    assert same_output(one, one * 1.0005)
    assert not same_output(one, one * 1.01)
    assert not same_output(one, torch.tensor([[3.0, 4.0, 1.0]]))
    assert same_output(one.to(torch.float16), one.to(torch.float16) * 1.01)
