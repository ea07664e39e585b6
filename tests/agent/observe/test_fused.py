"""What the submodules of a fused layer would have been given: as when it runs step by step."""

import pytest
import torch
from torch import nn

from calidrift_agent._observe._fused import fused_layer, layer_call
from calidrift_agent._observe._plan import Leaf

LEAVES = (Leaf(0, 1), Leaf(2, 3))


class Call:
    """What is asked of a recorder."""

    def __init__(self, rows=1, unit=0):
        self.rows, self.unit = rows, unit


def make(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options).eval()
    with torch.no_grad():
        for norm in (layer.norm1, layer.norm2):
            norm.weight.normal_()
            norm.bias.normal_()
    first, second = LEAVES
    return layer, fused_layer(layer, {id(layer.linear1): first, id(layer.linear2): second})


def step_by_step(layer, *args, **kwargs):
    """The inner tensors of a layer that does not run fused, because gradients are on."""
    found = {}
    handles = [
        module.register_forward_hook(
            lambda _, given, output, row=row: found.update({row: given[0], row + 1: output})
        )
        for row, module in ((0, layer.linear1), (2, layer.linear2))
    ]
    with torch.enable_grad():
        layer(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return {row: tensor.detach() for row, tensor in found.items()}


def worked_out(fused, args, kwargs, call):
    found = {}
    with torch.inference_mode():
        layer_call(fused, args, kwargs, call)(lambda row, tensor: found.update({row: tensor}))
    return found


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for row, tensor in expected.items():
        torch.testing.assert_close(found[row].clone(), tensor)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_inner_tensors_are_those_of_the_steps(norm_first, activation):
    layer, fused = make(norm_first=norm_first, activation=activation)
    x = torch.randn(1, 5, 8)
    assert_close(worked_out(fused, (x,), {}, Call()), step_by_step(layer, x))


@pytest.mark.parametrize("unit", [0, 2])
def test_the_row_that_stands_for_the_request(unit):
    layer, fused = make()
    x = torch.randn(3, 5, 8)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[:, 4:] = True
    padding[2, 2:] = True
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    expected = step_by_step(
        layer, x, src_mask=mask, src_key_padding_mask=torch.zeros(3, 5).masked_fill(padding, -1e9)
    )
    found = worked_out(
        fused, (x,), {"src_mask": mask, "src_key_padding_mask": padding}, Call(3, unit)
    )
    assert_close(found, {row: tensor[unit : unit + 1] for row, tensor in expected.items()})


def test_masks_of_each_head_and_truth_values():
    layer, fused = make()
    x = torch.randn(2, 4, 8)
    mask = torch.rand(4, 4, 4) > 0.6
    mask[:, torch.arange(4), torch.arange(4)] = False
    expected = step_by_step(layer, x, mask)
    found = worked_out(fused, (x, mask), {}, Call(2, 1))
    assert_close(found, {row: tensor[1:2] for row, tensor in expected.items()})


def test_windows_of_one_row_stay_together():
    layer, fused = make()
    x = torch.randn(6, 4, 8)
    expected = step_by_step(layer, x)
    found = worked_out(fused, (x,), {}, Call(3, 1))
    assert_close(found, {row: tensor[2:4] for row, tensor in expected.items()})
    assert_close(worked_out(fused, (x,), {}, Call(4, 3)), expected)  # rows unknown: all of it


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_input():
    layer, fused = make()
    rows = [torch.randn(length, 8) for length in (3, 5)]
    found = worked_out(fused, (torch.nested.nested_tensor(rows),), {}, Call(2, 1))
    assert_close(found, step_by_step(layer, rows[1][None]))


def test_only_points_that_exist_are_shown():
    layer, _ = make()
    fused = fused_layer(layer, {id(layer.linear2): Leaf(7, -1)})
    found = worked_out(fused, (torch.randn(1, 3, 8),), {}, Call())
    assert set(found) == {7}


def test_other_modules_are_none():
    layer, _ = make()

    class Own(nn.TransformerEncoderLayer):
        def _ff_block(self, x):
            return x

    assert fused_layer(nn.Linear(2, 2), {}) is None
    assert fused_layer(layer, {}) is None
    own = Own(8, 2, 16, batch_first=True)
    assert fused_layer(own, {id(own.linear1): LEAVES[0]}) is None


def test_an_input_that_is_no_tensor_is_passed_over():
    _, fused = make()
    assert layer_call(fused, (None,), {}, Call()) is None
