"""Where a forward takes its mask and its cache."""

import functools

import pytest
import torch
from torch import nn

from calidrift_agent._points import ForwardSignature, cached_length


class Decoder(nn.Module):
    def forward(self, input_ids, past_key_values=None, attention_mask=None, use_cache=True):
        return input_ids


class Wrapper(nn.Module):
    def forward(self, *args, **kwargs):
        return None


class Generator(Wrapper):
    def generate(self):
        return None


class Cache:
    def __init__(self, length):
        self.length = length

    def get_seq_length(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length


def test_inputs_are_found_by_name_and_by_place():
    signature = ForwardSignature.of(Decoder())
    cache, mask = Cache(1), torch.ones(1, 1)
    assert signature.cache_of((), {"past_key_values": cache}) is cache
    assert signature.cache_of((0, cache), {}) is cache
    assert signature.argument("attention_mask", (0, cache, mask), {}) is mask
    assert signature.argument("attention_mask", (0,), {"attention_mask": mask}) is mask
    assert signature.argument("attention_mask", (0,), {}) is None
    assert signature.argument("unknown", (0, 1), {}) is None


@pytest.mark.parametrize(
    ("model", "cache"),
    [
        (Decoder(), "past_key_values"),
        (torch.compile(Decoder(), backend="eager"), "past_key_values"),
        (nn.Linear(1, 1), ""),
        (Wrapper(), ""),
        (Generator(), "past_key_values"),
        (functools.partial(lambda x, cache_params=None: x), "cache_params"),
        (print, ""),
        (object(), ""),
        (torch.relu, ""),
    ],
    ids=["decoder", "compiled", "plain", "wrapper", "generator", "partial", "c", "object", "op"],
)
def test_the_parameter_of_the_cache(model, cache):
    signature = ForwardSignature.of(model)
    assert signature.cache == cache
    assert signature.decodes == bool(cache)


def test_a_cache_that_no_parameter_is_named_after_is_found_by_its_name():
    cache = Cache(1)
    assert ForwardSignature().cache_of((), {"cache_params": cache}) is cache
    assert ForwardSignature().cache_of((), {"x": cache}) is None


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {"past_key_values": Cache(0), "other": 2}),
        ((1, Cache(0)), {"other": 2}),
        ((1, Cache(0), None, True), {"other": 2}),
    ],
)
def test_a_call_without_its_cache_asks_for_none(args, kwargs):
    signature = ForwardSignature.of(Decoder())
    args, kwargs = signature.without_cache(args, kwargs)
    assert signature.cache_of(args, kwargs) is None
    assert signature.argument("use_cache", args, kwargs) is False
    assert kwargs["other"] == 2
    Decoder().forward(*args, **{k: v for k, v in kwargs.items() if k != "other"})


def test_a_model_without_a_switch_is_not_given_one():
    assert ForwardSignature.of(nn.Linear(1, 1)).without_cache((1,), {}) == ((1,), {})


@pytest.mark.parametrize(
    ("cache", "length"),
    [
        (Cache(0), 0),
        (Cache(7), 7),
        (Cache(torch.tensor(3)), 3),
        (Cache(torch.tensor(0)), 0),
        (Cache(torch.empty((), device="meta")), 1),
        (Cache(ValueError("layers without positions")), 1),
        ((), 0),
        (((torch.ones(1),),), 1),
        (object(), 1),
    ],
)
def test_how_much_is_in_a_cache(cache, length):
    assert cached_length(cache) == length
