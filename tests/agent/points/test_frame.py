"""Rows, positions and padding as the inputs of a call say them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calidrift_agent._points import ForwardSignature, Frame

MASK = torch.tensor([[1, 1, 1], [0, 1, 1]])
IDS = torch.zeros(2, 3, dtype=torch.long)


class Decoder(nn.Module):
    def forward(self, input_ids, attention_mask=None, past_key_values=None):
        return input_ids


class Seq2Seq(nn.Module):
    def forward(self, input_ids, attention_mask=None, decoder_input_ids=None):
        return input_ids


def frame_of(*args, model=None, **kwargs):
    rows = next(iter((*args, *kwargs.values()))).shape[0]
    return Frame.of(args, kwargs, rows, ForwardSignature.of(model or Decoder()))


@pytest.mark.parametrize(
    "mask", [MASK, MASK.bool(), MASK.int(), MASK.to(torch.uint8)], ids=["long", "bool", "int", "u8"]
)
@pytest.mark.parametrize("positional", [False, True])
def test_masks_of_zeros_and_ones(mask, positional):
    frame = frame_of(IDS, mask) if positional else frame_of(input_ids=IDS, attention_mask=mask)
    assert frame.masks[3].tolist() == MASK.bool().tolist()
    assert frame.remark == ""
    assert not frame.is_plain


def test_a_mask_without_padding_is_none():
    frame = frame_of(IDS, torch.ones(2, 3, dtype=torch.long))
    assert not frame.masks
    assert frame_of(IDS[:1], torch.ones_like(IDS[:1])).is_plain


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(2, 3),
        torch.zeros(2, 1, 3, 3),
        torch.zeros(2, 1, 3, 3, dtype=torch.bool),
        torch.zeros(4, 3, dtype=torch.long),
        {"full": MASK},
    ],
    ids=["additive", "4-D", "4-D bool", "other rows", "dict"],
)
def test_other_masks_are_not_interpreted_and_noted(mask):
    frame = frame_of(input_ids=IDS, attention_mask=mask)
    assert not frame.masks
    assert "was not interpreted" in frame.remark


def test_the_mask_is_read_when_the_call_is():
    mask = MASK.clone()
    frame = frame_of(IDS, mask)
    mask.fill_(0)
    assert frame.masks[3].tolist() == MASK.bool().tolist()


def test_the_end_of_a_longer_mask_belongs_to_the_inputs_of_a_call_with_a_cache():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    frame = frame_of(input_ids=IDS[:, :1], attention_mask=mask, past_key_values=object())
    assert frame.masks[1].tolist() == [[True], [False]]
    assert frame.masks[4].tolist() == mask.bool().tolist()
    prefix = frame_of(input_ids=IDS[:, :1], attention_mask=mask)  # a model that adds tokens itself
    assert list(prefix.masks) == [4]


def test_encoder_and_decoder_of_equal_length_are_not_told_apart():
    same = frame_of(
        input_ids=IDS, attention_mask=MASK, decoder_input_ids=IDS.clone(), model=Seq2Seq()
    )
    assert not same.masks
    assert "encoder and decoder" in same.remark
    step = frame_of(decoder_input_ids=IDS[:, :1], attention_mask=MASK, model=Seq2Seq())
    assert list(step.masks) == [3]  # never at the one position of the decoder


def test_rows_that_are_nothing_but_padding():
    frame = frame_of(IDS, torch.tensor([[0, 0, 0], [0, 1, 1]]))
    assert frame.real.tolist() == [False, True]
    grid, kept = frame.grid(torch.arange(8.0).reshape(2, 4))  # pooled
    assert grid.shape == (2, 1, 4)
    assert kept.tolist() == [[False], [True]]
    assert frame.row(1).real.tolist() == [True]
    assert frame.row(0).real.tolist() == [False]


def test_what_all_rows_share_is_kept():
    frame = frame_of(IDS, MASK)
    grid, kept = frame.grid(torch.zeros(1, 3, 4))
    assert (grid.shape, kept) == ((1, 1, 12), None)
    _, kept = frame.grid(torch.zeros(2, 4))
    assert kept is None  # pooled: no position, and each row holds something


@settings(deadline=None, max_examples=80)
@given(
    rows=st.integers(1, 4),
    length=st.integers(1, 5),
    features=st.integers(1, 3),
    seed=st.integers(0, 99),
    fold=st.sampled_from(["BTC", "BTC deep", "(BT)C", "TBC"]),
)
def test_exactly_the_padded_positions_are_left_out(rows, length, features, seed, fold):
    mask = np.random.default_rng(seed).random((rows, length)) < 0.6
    real = torch.from_numpy(mask)
    # Each element says whether it is padding, and whose it is.
    owner = torch.arange(1.0, rows + 1)[:, None].expand(rows, length)
    tensor = torch.where(real, owner, -owner)[..., None].expand(rows, length, features)
    if fold == "BTC deep":
        tensor = tensor[..., None].expand(rows, length, features, 2)
    elif fold == "(BT)C":
        tensor = tensor.flatten(0, 1)
    elif fold == "TBC":
        if rows in (1, length):
            return
        tensor = tensor.transpose(0, 1)
    frame = Frame(rows, length, {} if mask.all() else {length: mask})
    grid, kept = frame.grid(tensor)
    if kept is None:
        kept = np.ones(grid.shape[:2], np.bool_)
        assert bool((tensor > 0).all())
    chosen = grid[torch.from_numpy(kept)]
    assert bool((chosen > 0).all())
    assert bool((grid[torch.from_numpy(~kept)] < 0).all())
    for row in range(rows):
        mine = grid[row][torch.from_numpy(kept[row])]
        assert set(mine.flatten().tolist()) <= {row + 1.0}


def test_a_mask_that_is_read_the_other_way_round_is_noticed():
    frame = Frame(2, 3, {3: ~MASK.bool().numpy()})  # the mutant: 1 means padding
    tensor = torch.where(MASK.bool(), 1.0, -1.0)[..., None]
    grid, kept = frame.grid(tensor)
    assert not bool((grid[torch.from_numpy(kept)] > 0).all())
