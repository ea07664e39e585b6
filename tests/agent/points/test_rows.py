import numpy as np
import pytest
import torch

from calidrift_agent._points import batch_rows, fold_rows, rail_counts, row_absmax
from calidrift_agent._profile import ClipBound

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("args", "kwargs", "rows"),
    [
        ((torch.zeros(3, 2),), {}, 3),
        ((), {"x": torch.zeros(5)}, 5),
        ((None, [torch.tensor(1.0), {"a": torch.zeros(4, 1)}]), {}, 4),
        ((torch.zeros(0, 2),), {}, 0),
        ((torch.tensor(1.0), 3, "text"), {}, None),
        ((), {}, None),
    ],
)
def test_rows_of_a_batch(args, kwargs, rows):
    assert batch_rows(args, kwargs) == rows


@pytest.mark.parametrize(
    ("shape", "rows", "folded"),
    [
        ((4,), 4, (4, 1)),
        ((4, 3), 4, (4, 3)),
        ((4, 3, 2), 2, (2, 12)),
        ((5, 3), 2, (1, 15)),
        ((), 2, (1, 1)),
        ((0, 3), 2, (1, 0)),
        ((4, 0), 4, (1, 0)),
    ],
)
def test_folding(shape, rows, folded):
    assert tuple(fold_rows(torch.zeros(shape), rows).shape) == folded


def test_folded_rows_hold_the_values_of_their_request():
    tensor = torch.arange(12.0).reshape(6, 2)  # three windows for each of two requests
    assert row_absmax(fold_rows(tensor, 2)).tolist() == [5.0, 11.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_absmax_equals_a_plain_numpy_maximum(dtype):
    values = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = np.abs(values.to(torch.float64).numpy()).max(axis=1).astype(np.float32)
    assert np.array_equal(row_absmax(values).numpy(), expected)


def test_a_row_that_is_not_finite_everywhere_is_infinitely_large():
    values = torch.tensor([[1.0, -4.0, NAN], [2.0, 1.0, -INF], [NAN, INF, -INF], [-5.0, 0.0, 1.0]])
    assert row_absmax(values).tolist() == [INF, INF, INF, 5.0]


def test_absmax_of_rows_without_elements_is_nan():
    assert bool(row_absmax(torch.zeros(1, 0)).isnan().all())


def test_rail_counts_equal_the_codes_of_the_quantizer():
    import torch.ao.quantization.fx._decomposed  # registers the operation

    bound = ClipBound.of_quantizer(0.037, 41, 3, 250, "uint8")
    values = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 4
    codes = torch.ops.quantized_decomposed.quantize_per_tensor(
        values, bound.scale, bound.zero_point, bound.qmin, bound.qmax, torch.uint8
    )
    expected = (int((codes == bound.qmin).sum()), int((codes == bound.qmax).sum()))
    assert rail_counts(values, bound) == expected
    assert min(expected) > 0


def test_rail_counts_ignore_nan_and_count_infinity():
    bound = ClipBound.of_quantizer(1.0, 128, 0, 255, "uint8")
    assert rail_counts(torch.tensor([NAN, INF, -INF, 0.0]), bound) == (1, 1)
    assert rail_counts(torch.zeros(0), bound) == (0, 0)
