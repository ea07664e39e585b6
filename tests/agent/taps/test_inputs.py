import pytest
import torch

from calidrift_agent._taps import copy_rows, named_tensors, repeat_row, rows_of


@pytest.mark.parametrize(
    ("args", "kwargs", "rows"),
    [
        ((torch.zeros(8, 3),), {}, 8),
        ((None, torch.zeros(5, 3)), {}, 5),
        ((), {"x": torch.zeros(2, 3)}, 2),
        (({"ids": torch.zeros(3, 4)},), {}, 3),
        (([torch.zeros(6, 1)],), {}, 6),
        ((torch.zeros(0, 3),), {}, 0),
        ((torch.tensor(1.0), torch.zeros(7, 2)), {}, 7),
        ((3, "text"), {}, 1),
        ((), {}, 1),
    ],
)
def test_rows_of_a_request(args, kwargs, rows):
    assert rows_of(args, kwargs) == rows


def test_copies_are_the_row_and_nothing_is_shared():
    x, mask, table = torch.randn(4, 3), torch.ones(4, 1), torch.randn(2, 2)
    args, kwargs = copy_rows((x, "text"), {"mask": mask, "table": table}, 4, slice(2, 3))
    assert torch.equal(args[0], x[2:3])
    assert args[1] == "text"
    assert torch.equal(kwargs["mask"], mask[2:3])
    assert torch.equal(kwargs["table"], table)
    x.zero_()
    table.zero_()
    assert args[0].abs().sum() > 0
    assert kwargs["table"].abs().sum() > 0


def test_nested_inputs_are_copied_in_place_of_their_own():
    x = torch.randn(4, 3, requires_grad=True)
    args, kwargs = copy_rows(({"a": x, "b": [x, 1]},), {}, 4, slice(0, 1))
    assert args[0]["b"][1] == 1
    assert args[0]["a"].shape == args[0]["b"][0].shape == (1, 3)
    assert not args[0]["a"].requires_grad
    assert kwargs == {}


def test_a_row_is_repeated_to_a_batch():
    row, whole, scalar = torch.randn(1, 3), torch.randn(2, 2), torch.tensor(1.0)
    args, kwargs = repeat_row((row, scalar), {"whole": whole}, 3)
    assert torch.equal(args[0], torch.cat([row] * 3))
    assert args[1] is scalar
    assert kwargs["whole"] is whole


def test_tensors_have_names():
    one, two, three = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    named = named_tensors((one, 5), {"extra": {"ids": two, "rest": [three, "text"]}})
    assert list(named) == ["arg0", "extra.0", "extra.1"]
    assert named["extra.1"] is three
