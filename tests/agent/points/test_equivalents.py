"""Faster operations against torch's own, bit for bit."""

import pytest
import torch

from calidrift_agent._points import _equivalents
from calidrift_agent._points._equivalents import max_pool2d


def images(*shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    flat = values.view(-1)
    flat[::7], flat[::11], flat[::13] = 0.0, -0.0, 1.0
    flat[::97], flat[::89], flat[::83] = float("nan"), float("inf"), -float("inf")
    return values


def bits(values):
    return values.view(torch.int32)


WINDOWS = [
    ((3, 3), (2, 2), (1, 1)),
    ((2, 2),),
    ((3, 2), (1, 2), (1, 0)),
    ((3, 3), (2, 2), (1, 1), (2, 2)),
    ((3, 3), (2, 2), (1, 1), (1, 1), True),
]


@pytest.mark.parametrize("window", WINDOWS, ids=range(len(WINDOWS)))
@pytest.mark.parametrize("shape", [(1, 16, 41, 40), (3, 9, 30, 31), (1, 64, 16, 16)], ids=str)
def test_pooling_has_the_bits_and_the_layout_of_torch(shape, window):
    values = images(*shape)
    expected = torch.ops.aten.max_pool2d.default(values, *window)
    found = max_pool2d(values, *window)
    assert torch.equal(bits(found), bits(expected)) and found.stride() == expected.stride()


@pytest.mark.parametrize(
    "values",
    [
        images(2, 4, 64, 64),
        images(1, 16, 8, 8),
        images(16, 40, 40),
        images(1, 16, 40, 40).contiguous(memory_format=torch.channels_last),
        images(1, 16, 40, 80)[..., ::2],
        images(1, 16, 40, 40).double(),
    ],
    ids=["few channels", "small", "no batch", "channels last", "strided", "double"],
)
def test_what_is_left_to_torch_is_what_torch_does(values):
    expected, found = torch.ops.aten.max_pool2d.default(values, [2, 2]), max_pool2d(values, [2, 2])
    assert torch.equal(expected.nan_to_num(), found.nan_to_num())
    assert found.stride() == expected.stride()


def test_large_images_are_turned_and_small_ones_are_not(monkeypatch):
    seen = []
    pool = torch.ops.aten.max_pool2d.default

    class Seeing:
        @staticmethod
        def default(values, *args):
            seen.append(values.is_contiguous())
            return pool(values, *args)

    monkeypatch.setattr(_equivalents.torch.ops.aten, "max_pool2d", Seeing)
    for shape in ((1, 16, 40, 40), (1, 16, 8, 8)):
        max_pool2d(images(*shape), [2, 2])
    assert seen == [False, True]
