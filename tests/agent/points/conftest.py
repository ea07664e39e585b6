"""A model with everything that makes naming and running a graph difficult."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.fx import GraphModule


class MixedModel(nn.Module):
    """A layer called twice, attention, functional operands, keyword and nested inputs, a dict out.

    `mul` reads two quantized tensors; `fc` is one module with two calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.out = nn.Linear(8, 4)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.emb = nn.Embedding(10, 8)

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor, extra: dict[str, torch.Tensor]):
        x = torch.relu(self.fc(x.view(x.shape[0], -1)))
        x = (self.fc(x) + x) * mask
        tokens = self.emb(extra["ids"])
        attended, _ = self.attn(tokens, tokens, tokens, need_weights=False)
        return {"scores": self.out(x + tokens.mean(1)), "rest": (x, attended.mean(1))}


class Mixed(NamedTuple):
    model: MixedModel
    prepared: GraphModule
    graph: GraphModule
    reloaded: GraphModule
    args: tuple[torch.Tensor, ...]
    kwargs: dict[str, Any]


@pytest.fixture(scope="session")
def mixed(quantize_pt2e, save_and_load) -> Mixed:
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MixedModel().eval()
    args = (torch.randn(4, 2, 4, generator=generator),)
    kwargs = {
        "mask": torch.rand(4, 8, generator=generator),
        "extra": {"ids": torch.randint(0, 10, (4, 5), generator=generator)},
    }
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {"x": {0: batch}, "mask": {0: batch}, "extra": {"ids": {0: batch}}}
    prepared, graph = quantize_pt2e(model, args, kwargs, dynamic_shapes=shapes)
    reloaded = save_and_load(graph, args, kwargs, dynamic_shapes=shapes)
    return Mixed(model, prepared, graph, reloaded, args, kwargs)
