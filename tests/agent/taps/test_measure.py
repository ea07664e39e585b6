import math

import numpy as np
import pytest
import torch

from calidrift_agent._taps import extremes_of, is_observable
from calidrift_agent._taps._measure import dense, extremes_of_array, strided_sample

FREE = (-math.inf, math.inf)


def limits_of(clip):
    return clip.lo - clip.scale / 2, clip.hi + clip.scale / 2


def both(tensor, rows, clip=None):
    """The measurement by torch and by numpy, which must agree."""
    limits = FREE if clip is None else limits_of(clip)
    one = extremes_of(tensor, rows, clip, limits)
    array = tensor.float().contiguous().numpy().reshape(-1)
    two = extremes_of_array(array, tensor.shape[0], rows, clip, limits)
    assert one == two
    return one


@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 3, 5), (4, 2, 3, 5), (4, 2, 3, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extremes_of_each_row(shape, dtype):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = both(tensor, 4)
    folded = tensor.float().reshape(4, -1)
    assert found.highs == folded.amax(1).tolist()
    assert found.lows == folded.amin(1).tolist()


def test_folded_rows_belong_to_their_request():
    tensor = torch.arange(12.0).reshape(6, 2)  # 2 rows of 3 windows
    found = both(tensor, 2)
    assert (found.highs, found.lows) == ([5.0, 11.0], [0.0, 6.0])


def test_a_shared_tensor_is_charged_to_every_row():
    found = both(torch.tensor([[1.0], [5.0], [-2.0]]), 2)
    assert (found.highs, found.lows) == ([5.0, 5.0], [-2.0, -2.0])


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_memory_formats(format):
    tensor = torch.randn(3, 4, 5, 6).to(memory_format=format)
    assert extremes_of(tensor, 3, None, FREE).highs == tensor.reshape(3, -1).amax(1).tolist()


def test_nonfinite_values_are_counted_and_never_poison_extremes():
    tensor = torch.tensor([[1.0, math.nan, -3.0], [math.inf, 2.0, -math.inf], [4.0, 5.0, 6.0]])
    found = both(tensor, 3)
    assert found.highs == [1.0, 2.0, 6.0]
    assert found.lows == [-3.0, 2.0, 4.0]
    assert (found.nan, found.inf, found.broken) == (1, 2, (0, 1))


def test_a_row_without_a_finite_value():
    found = both(torch.tensor([[math.nan, math.nan], [1.0, 2.0]]), 2)
    assert found.highs == [-math.inf, 2.0]
    assert found.lows == [math.inf, 1.0]
    assert found.broken == (0,)


def test_clipping_is_counted_exactly(clip):
    # -1 to 1.5 in steps of 0.5: -1.25 and 1.75 round to the outermost codes, no more is lost.
    values = torch.tensor([[-9.0, -1.3, -1.25, -1.0, 0.0, 1.5, 1.75, 1.8, 4.5]])
    found = both(values, 1, clip)
    assert (found.clip_low, found.clip_high) == (2, 2)
    expected = (9.0 - 1.0) ** 2 + 0.3**2 + 0.3**2 + 3.0**2
    assert found.clipped_energy == pytest.approx(expected, rel=1e-6)


def test_clipping_agrees_with_the_quantizer(clip):
    values = torch.randn(1, 5000, generator=torch.Generator().manual_seed(1)) * 2
    codes = torch.round(values / clip.scale) + clip.zero_point
    found = both(values, 1, clip)
    assert found.clip_high == int((codes > clip.qmax).sum())
    assert found.clip_low == int((codes < clip.qmin).sum())


def test_infinities_are_not_clipped_energy(clip):
    found = both(torch.tensor([[math.inf, -math.inf, 2.5, math.nan]]), 1, clip)
    assert (found.clip_high, found.clip_low) == (1, 0)
    assert found.clipped_energy == pytest.approx(1.0)


def test_values_inside_are_not_looked_at_again(clip, monkeypatch):
    from calidrift_agent._taps import _measure

    monkeypatch.setattr(_measure, "_count_clipped", lambda *_: pytest.fail("looked again"))
    assert both(torch.tensor([[-1.2, 1.7]]), 1, clip).clip_high == 0


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3, dtype=torch.long),
        torch.zeros(0, 3),
        torch.zeros(2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
        "text",
        None,
    ],
)
def test_what_cannot_be_observed(value):
    assert not is_observable(value)


def test_dense_keeps_dense_memory_and_copies_the_rest():
    plain = torch.randn(2, 3, 4, 5)
    for same in (plain, plain.to(memory_format=torch.channels_last), plain.permute(3, 1, 0, 2)):
        assert dense(same) is same
    for sparse in (plain[:, :, ::2], plain[..., :1].expand(2, 3, 4, 5)):
        assert dense(sparse) is not sparse
        assert torch.equal(dense(sparse), sparse)


def test_a_strided_sample_reads_memory_in_order():
    tensor = torch.arange(20.0).reshape(4, 5)[1:]
    assert strided_sample(tensor, 1, 3, 4).tolist() == [6.0, 9.0, 12.0, 15.0]


def test_single_values_and_scalars():
    assert extremes_of(torch.tensor(3.0), 1, None, FREE).highs == [3.0]
    found = extremes_of_array(np.array([2.5], np.float32), 1, 1, None, FREE)
    assert (found.highs, found.lows) == ([2.5], [2.5])
