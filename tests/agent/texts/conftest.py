"""Real Hugging Face models, built from tiny configurations; nothing is downloaded."""

import copy
import os
import warnings
from typing import NamedTuple

import pytest
import torch
from torch import nn

from calidrift_agent._watch import Watch, WatchOptions, watch

QUIET = WatchOptions(budget=None, drain_seconds=3600, window_seconds=86_400, seed=0)
TOKENS = 50


class Models(NamedTuple):
    """Shared by all tests: copy them before changing them."""

    bert: nn.Module
    gpt2: nn.Module


@pytest.fixture(scope="session")
def models() -> Models:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # Not ours: what transformers warns about while it is imported.
        warnings.simplefilter("ignore")
        from transformers import (
            BertConfig,
            BertForSequenceClassification,
            GPT2Config,
            GPT2LMHeadModel,
        )

        torch.manual_seed(0)
        bert = BertForSequenceClassification(
            BertConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                vocab_size=TOKENS,
                max_position_embeddings=64,
                num_labels=3,
            )
        )
        gpt2 = GPT2LMHeadModel(
            GPT2Config(
                n_layer=2,
                n_head=2,
                n_embd=16,
                vocab_size=TOKENS,
                n_positions=128,
                bos_token_id=1,
                eos_token_id=None,
                pad_token_id=0,
            )
        )
    return Models(bert.eval(), gpt2.eval())


@pytest.fixture
def bert(models):
    return copy.deepcopy(models.bert)


@pytest.fixture
def gpt2(models):
    return copy.deepcopy(models.gpt2)


@pytest.fixture
def ids():
    return torch.randint(3, TOKENS, (3, 7), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def watch_all():
    """`watch` with every call observed; all watches are closed at the end of the test."""
    made: list[Watch] = []

    def make(model: nn.Module, **options) -> Watch:
        options = {"name": "text", "sample_rate": 1.0, "options": QUIET, **options}
        made.append(watch(model, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
