"""A BERT classifier: keyword inputs, model outputs, attention masks."""

import numpy as np
import pytest
import torch

from calidrift_agent import calibrate
from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn


def mask_of(lengths, width, side):
    """Rows of ones and zeros, padded on one side."""
    positions = torch.arange(width)
    if side == "left":
        positions = positions.flip(0)
    return (positions[None, :] < torch.tensor(lengths)[:, None]).long()


def by_name(watch):
    meta, total = watch.snapshot()
    return {
        point.name: (total.counts[row], total.values[row], total.cells[row])
        for row, point in enumerate(meta.points)
    }


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_outputs_are_bit_equal_and_of_the_same_class(bert, ids, watch_all, mode):
    batch = {"input_ids": ids, "attention_mask": mask_of([7, 4, 2], 7, "right")}
    with mode():
        expected = bert(**batch, output_hidden_states=True)
        watch = watch_all(bert)
        output = bert(**batch, output_hidden_states=True)
        plain = bert(**batch, return_dict=False)
    assert type(output) is type(expected)
    assert list(output) == list(expected)
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(plain[0], expected.logits)
    for one, other in zip(output.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(one, other)
    requests = watch.snapshot()[1].requests
    assert requests[RequestColumn.OBSERVED] == 2
    assert not requests[RequestColumn.ERROR_FIRST :].any()
    assert watch.report().never_fired == ()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.int64])
def test_padding_is_left_out_and_kept_apart(bert, ids, watch_all, side, kind):
    mask = mask_of([7, 4, 2], 7, side)
    seen = {}
    handle = bert.bert.encoder.layer[1].intermediate.dense.register_forward_pre_hook(
        lambda module, args: seen.setdefault("x", args[0].detach().clone())
    )
    watch = watch_all(bert)
    with torch.no_grad():
        bert(input_ids=ids, attention_mask=mask.to(kind))
    handle.remove()
    counts, values, cells = by_name(watch)["bert.encoder.layer.1.intermediate.dense:input"]
    real, rest = seen["x"][mask.bool()], seen["x"][~mask.bool()]
    assert counts[CountColumn.ELEMENTS] == cells.sum() == real.numel()
    assert counts[CountColumn.PADDED_ELEMENTS] == rest.numel()
    assert values[ValueColumn.LOWEST] == float(real.min())
    assert values[ValueColumn.HIGHEST] == float(real.max())
    assert values[ValueColumn.PADDED_LOWEST] == float(rest.min())
    assert values[ValueColumn.PADDED_HIGHEST] == float(rest.max())
    assert counts[CountColumn.ROWS] == 3


def test_the_text_alone_gives_the_same_as_the_padded_one(bert, ids, watch_all):
    """Each text by itself, without any padding, against all of them in one padded batch."""
    lengths = [7, 4, 2]
    padded = watch_all(bert)
    with torch.no_grad():
        bert(input_ids=ids, attention_mask=mask_of(lengths, 7, "right"))
        first = by_name(padded)
        padded.close()
        alone = watch_all(bert)
        for row, length in enumerate(lengths):
            bert(input_ids=ids[row : row + 1, :length])
    second = by_name(alone)
    for name, (counts, values, _) in first.items():
        if "position_embeddings" in name:
            continue  # one row for all, and so not of any text
        other_counts, other_values, _ = second[name]
        assert counts[CountColumn.ELEMENTS] == other_counts[CountColumn.ELEMENTS], name
        extremes = [ValueColumn.LOWEST, ValueColumn.HIGHEST]
        assert np.allclose(values[extremes], other_values[extremes], rtol=1e-5), name


def test_calibration_leaves_out_the_same(bert, ids, watch_all):
    """A calibrated padded batch covers itself, and its bounds know nothing of the padding."""
    mask = mask_of([7, 4, 2], 7, "right")
    batch = {"input_ids": ids, "attention_mask": mask}
    profile = calibrate(bert, [batch])
    alone = calibrate(
        bert, [{"input_ids": ids[row : row + 1, :n]} for row, n in enumerate([7, 4, 2])]
    )
    assert profile.units == alone.units == 3
    for name, point in profile.points.items():
        assert point.observed_bound.value == pytest.approx(
            alone.points[name].observed_bound.value, rel=1e-5
        )
        if "position_embeddings" not in name:
            assert point.sketch.count == alone.points[name].sketch.count
    watch = watch_all(bert, profile=profile)
    with torch.no_grad():
        for _ in range(12):
            bert(**batch)
    total = watch.snapshot()[1]
    assert total.requests[RequestColumn.UNITS] == total.requests[RequestColumn.UNITS_COVERED] == 12
    # One scale above: the same batch without its mask is not what was calibrated.
    assert total.counts[:, CountColumn.PADDED_ELEMENTS].max() > 0


def test_a_row_of_nothing_but_padding_is_no_unit(bert, ids, watch_all):
    mask = mask_of([7, 0, 2], 7, "right")
    profile = calibrate(bert, [{"input_ids": ids, "attention_mask": mask}])
    assert profile.units == 2
    watch = watch_all(bert, profile=profile)
    with torch.no_grad():
        for _ in range(20):
            bert(input_ids=ids, attention_mask=mask)
    total = watch.snapshot()[1]
    assert total.requests[RequestColumn.UNITS] == total.requests[RequestColumn.UNITS_COVERED] == 20
    assert total.counts[-1, CountColumn.ROWS] == 40


def test_a_mask_that_is_not_understood_is_noted(bert, ids, watch_all):
    additive = torch.zeros(3, 1, 7, 7)
    watch = watch_all(bert)
    with torch.no_grad():
        bert(input_ids=ids, attention_mask=additive)
    (note,) = [note for note in watch.report().notes if "attention mask" in note]
    assert "4 dimensions, torch.float32" in note
    assert not watch.snapshot()[1].counts[:, CountColumn.PADDED_ELEMENTS].any()


def test_the_order_of_keyword_inputs_says_nothing(bert, ids, watch_all):
    watch = watch_all(bert)
    with torch.no_grad():
        bert(position_ids=torch.arange(7)[None], attention_mask=None, input_ids=ids)
    assert watch.snapshot()[1].counts[-1, CountColumn.ROWS] == 3
