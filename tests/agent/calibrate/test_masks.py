"""Calibration counts tokens, not padding; the same units as production."""

import pytest
import torch
from torch import nn

from calidrift_agent import calibrate
from calidrift_agent._calibrate._batches import read_batches
from calidrift_agent._points import ForwardSignature
from calidrift_agent.errors import ConfigurationError


class Model(nn.Module):
    """Sees (B, T, C), (B * T, C), (T, B, C) and a pooled (B, C)."""

    def __init__(self):
        super().__init__()
        self.plain, self.flat, self.turned, self.pooled = (nn.Linear(2, 2) for _ in range(4))

    def forward(self, x, attention_mask=None):
        self.plain(x)
        self.flat(x.flatten(0, 1))
        self.turned(x.transpose(0, 1))
        return self.pooled(x[:, 0])


X = torch.tensor([[[1.0, 2], [3, -4], [90, 90]], [[70, -70], [5, 6], [7, -8]]])
MASK = torch.tensor([[1, 1, 0], [0, 1, 1]])


@pytest.mark.parametrize("positional", [False, True])
def test_padding_is_in_no_bound_and_no_sketch(positional):
    batch = (X, MASK) if positional else {"x": X, "attention_mask": MASK}
    profile = calibrate(Model().eval(), [batch])
    assert profile.units == 2
    for name in ("plain:input", "flat:input", "turned:input"):
        point = profile.points[name]
        assert point.observed_bound.value == 8.0
        assert point.observed_bound.top == (8.0, 4.0)  # one of each text
        assert point.sketch.count == 8
    assert profile.points["pooled:input"].observed_bound.value == 70.0  # of no position


def test_without_a_mask_everything_counts():
    profile = calibrate(Model().eval(), [(X, torch.ones_like(MASK))])
    assert profile.points["plain:input"].observed_bound.top == (90.0, 70.0)
    assert profile.points["turned:input"].observed_bound.top == (90.0, 70.0)
    assert profile.points["plain:input"].sketch.count == 12


def test_a_row_of_nothing_but_padding_is_no_unit():
    mask = torch.tensor([[0, 0, 0], [0, 1, 1]])
    profile = calibrate(Model().eval(), [(X, mask), (X, MASK)])
    assert profile.units == 3
    assert profile.points["plain:input"].observed_bound.top == (8.0, 8.0, 4.0)
    assert profile.points["pooled:input"].observed_bound.top == (70.0, 70.0, 2.0)


def test_a_batch_of_nothing_but_padding_is_refused():
    with pytest.raises(ConfigurationError, match="batch 1 has no rows that are not padding"):
        calibrate(Model().eval(), [(X, torch.zeros_like(MASK))])


def test_a_mask_is_found_by_the_signature_only():
    (batch,) = read_batches([(X, MASK)])
    assert not batch.frame.masks
    (batch,) = read_batches([(X, MASK)], ForwardSignature.of(Model()))
    assert list(batch.frame.masks) == [3]
