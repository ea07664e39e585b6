"""A GPT-2 that generates: answers and random states untouched, one decision per request."""

import gc
import warnings

import numpy as np
import pytest
import torch

from calidrift_agent import calibrate
from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn

NEW = 20
WAYS = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 20},
    "beams": {"do_sample": False, "num_beams": 2},
}


def generated(model, ids, mask, way):
    torch.manual_seed(3)
    with torch.no_grad():
        answer = model.generate(ids, attention_mask=mask, max_new_tokens=NEW, **WAYS[way])
    return answer, torch.get_rng_state()


@pytest.fixture
def mask(ids):
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    return mask


@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_random_state_are_those_of_an_unwatched_model(gpt2, ids, mask, watch_all, way):
    expected, state = generated(gpt2, ids, mask, way)
    watch = watch_all(gpt2)
    answer, after = generated(gpt2, ids, mask, way)
    gc.collect()
    assert torch.equal(answer, expected)
    assert torch.equal(after, state)
    requests = watch.snapshot()[1].requests
    steps = answer.shape[1] - ids.shape[1] - 1
    assert (
        requests[[RequestColumn.SEEN, RequestColumn.SAMPLED, RequestColumn.OBSERVED]].tolist()
        == [1] * 3
    )
    assert requests[RequestColumn.STEPS] == steps
    assert not requests[RequestColumn.ERROR_FIRST :].any()
    assert watch.report().never_fired == ()


def test_the_layers_of_gpt2_are_observed(gpt2, watch_all):
    """They are `Conv1D` modules of transformers and no linear layers of torch."""
    points = watch_all(gpt2).report().points
    for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        assert f"transformer.h.1.{layer}:input" in points
    assert "lm_head:input" in points


def test_left_padding_of_a_prompt_is_left_out(gpt2, ids, mask, watch_all):
    watch = watch_all(gpt2)
    generated(gpt2, ids, mask, "greedy")
    meta, total = watch.snapshot()
    row = [point.name for point in meta.points].index("transformer.h.0.attn.c_attn:input")
    counts = total.counts[row]
    assert counts[CountColumn.PADDED_ELEMENTS] == 3 * 16  # once, in the prompt
    steps, left = divmod(int(counts[CountColumn.ELEMENTS]) - (3 * 7 - 3) * 16, 3 * 16)
    assert left == 0
    assert steps in (4, 5)  # 1, one of 2-3, 4-7, 8-15, and maybe one of 16-31
    assert np.isfinite(total.values[row, ValueColumn.PADDED_LOWEST])


def test_a_unit_is_a_text(gpt2, ids, mask, watch_all):
    """Calibrated on whole texts, prompt and answer, as the reference of generation must be."""
    answer, _ = generated(gpt2, ids, mask, "greedy")
    whole = torch.cat([mask, torch.ones(3, NEW, dtype=mask.dtype)], 1)
    profile = calibrate(gpt2, [{"input_ids": answer, "attention_mask": whole, "use_cache": False}])
    watch = watch_all(gpt2, profile=profile)
    for _ in range(5):
        generated(gpt2, ids, mask, "greedy")
    gc.collect()
    requests = watch.snapshot()[1].requests
    assert requests[RequestColumn.UNITS] == requests[RequestColumn.SEEN] == 5
    # Cached and whole passes differ in the last bits, and the bound is their very maximum.
    ratios = watch.snapshot()[1].values[:, ValueColumn.RATIO_SUM] / 5
    assert ratios.max() < 1.0 + 1e-5


def test_an_ordinary_call_of_the_same_model_is_a_unit_at_once(gpt2, ids, watch_all):
    profile = calibrate(gpt2, [{"input_ids": ids}])
    watch = watch_all(gpt2, profile=profile)
    with torch.no_grad():
        gpt2(input_ids=ids, use_cache=False)
    assert watch.snapshot()[1].requests[RequestColumn.UNITS] == 1
    with torch.no_grad():
        kept = gpt2(input_ids=ids)
    assert watch.snapshot()[1].requests[RequestColumn.UNITS] == 1
    del kept
    gc.collect()
    assert watch.snapshot()[1].requests[RequestColumn.UNITS] == 2


def test_a_static_cache(gpt2, ids, mask, watch_all):
    """Its masks have four dimensions: padding is not told, and the report says so."""
    expected, state = _static(gpt2, ids, mask)
    watch = watch_all(gpt2)
    for _ in range(2):
        answer, after = _static(gpt2, ids, mask)
        assert torch.equal(answer, expected)
        assert torch.equal(after, state)
    requests = watch.snapshot()[1].requests
    assert requests[RequestColumn.SEEN] == 2
    assert requests[RequestColumn.STEPS] == 2 * 4
    assert any("attention mask" in note for note in watch.report().notes)


def _static(model, ids, mask):
    torch.manual_seed(3)
    with torch.no_grad():
        answer = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=5,
            do_sample=True,
            cache_implementation="static",
        )
    return answer, torch.get_rng_state()


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_requests_that_are_not_sampled(gpt2, ids, mask, watch_all, rate):
    expected, state = generated(gpt2, ids, mask, "sampling")
    watch = watch_all(gpt2, sample_rate=rate)
    for _ in range(8):
        answer, after = generated(gpt2, ids, mask, "sampling")
        assert torch.equal(answer, expected)
        assert torch.equal(after, state)
    requests = watch.snapshot()[1].requests
    assert requests[RequestColumn.SEEN] == 8
    assert requests[RequestColumn.STEPS] == 8 * (NEW - 1)
    observed = int(requests[RequestColumn.OBSERVED])
    assert observed == requests[RequestColumn.SAMPLED]
    assert observed == 0 if rate == 0.0 else 0 < observed < 8


@pytest.fixture
def t5(models):
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # as in `models`
        from transformers import T5Config, T5ForConditionalGeneration

        torch.manual_seed(0)
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
        special = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
        return T5ForConditionalGeneration(T5Config(vocab_size=50, **sizes, **special)).eval()


def test_the_report_says_of_an_encoder_that_generate_runs_it_past_the_forward(t5, ids, watch_all):
    """`generate` calls the encoder by itself, and gives its output to the model's forward."""
    watch = watch_all(t5)
    for _ in range(20):
        answer = t5.generate(ids, max_new_tokens=2)
    report = watch.report()
    assert report.observed_calls == 20
    # `shared` is called by nobody: encoder and decoder have embeddings of their own.
    encoder = [name for name in report.points if name.startswith("encoder.")]
    assert encoder
    assert [*report.never_fired] == ["shared:output", *encoder]
    (note,) = [note for note in report.notes if "never fired in 20 observed calls" in note]
    assert encoder[0] in note
    with torch.no_grad():
        t5(input_ids=ids, decoder_input_ids=answer)
    assert watch.report().never_fired == ("shared:output",), "the model itself is seen whole"
