"""Layers that torch runs as one fused kernel: what their submodules would have been given.

`nn.TransformerEncoderLayer` in eval mode without gradients passes over its submodules, and a hook
on any of them would make it slow, and its outputs others. So the layer is left alone: its input is
copied, and the same mathematics run step by step, in the drain, on one row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import nn
from torch.nn import functional

from calidrift_agent._observe._plan import Leaf
from calidrift_agent._taps import Recorder

_Observe = Callable[[int, object], None]
_KIND: Final = nn.TransformerEncoderLayer
_NOWHERE: Final = Leaf()


@final
@dataclass(frozen=True, slots=True)
class FusedLayer:
    """A layer that may run fused, and where its inner points are.

    Attributes:
        module: The layer.
        first: Rows of the points of its first linear layer.
        second: Rows of the points of its second linear layer.
    """

    module: nn.TransformerEncoderLayer
    first: Leaf
    second: Leaf


def fused_layer(module: nn.Module, leaves: Mapping[int, Leaf]) -> FusedLayer | None:
    """Return what is to be known about a layer that may run fused; None for any other module.

    Args:
        module: The module; a class of its own that runs other steps is none.
        leaves: Identity of a module to its points.
    """
    if not isinstance(module, _KIND) or any(
        getattr(type(module), name) is not getattr(_KIND, name)
        for name in ("forward", "_sa_block", "_ff_block")
    ):
        return None
    first = leaves.get(id(module.linear1), _NOWHERE)
    second = leaves.get(id(module.linear2), _NOWHERE)
    if first is _NOWHERE and second is _NOWHERE:
        return None
    return FusedLayer(module, first, second)


@final
@dataclass(frozen=True, slots=True, eq=False)
class LayerCall:
    """One row of a call of a fused layer; called in the drain.

    Attributes:
        layer: The layer.
        source: Its input, (entries, positions, features).
        mask: Its attention mask, or None.
        padding: Its mask of padded positions, or None.
    """

    layer: FusedLayer
    source: torch.Tensor
    mask: torch.Tensor | None
    padding: torch.Tensor | None

    def __call__(self, observe: _Observe) -> None:
        """Work out the inner tensors, and show them. Cost: one run of the layer on one row."""
        module = self.layer.module
        x = self.source
        if module.norm_first:
            x = x + self._attention(_norm(module.norm1, x))
            hidden = _norm(module.norm2, x)
        else:
            hidden = x = _norm(module.norm1, x + self._attention(x))
        first, second = module.linear1, module.linear2
        observe_at(observe, self.layer.first.input_point, hidden)
        hidden = functional.linear(hidden, first.weight, first.bias)
        observe_at(observe, self.layer.first.output_point, hidden)
        gelu = module.activation_relu_or_gelu == 2
        hidden = functional.gelu(hidden) if gelu else functional.relu(hidden)
        observe_at(observe, self.layer.second.input_point, hidden)
        if self.layer.second.output_point >= 0:
            hidden = functional.linear(hidden, second.weight, second.bias)
            observe(self.layer.second.output_point, hidden)

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        attention = self.layer.module.self_attn
        turned = x.transpose(0, 1)
        found, _ = functional.multi_head_attention_forward(
            turned,
            turned,
            turned,
            attention.embed_dim,
            attention.num_heads,
            attention.in_proj_weight,
            attention.in_proj_bias,
            None,
            None,
            False,
            0.0,
            attention.out_proj.weight,
            attention.out_proj.bias,
            training=False,
            key_padding_mask=self.padding,
            need_weights=False,
            attn_mask=self.mask,
        )
        return found.transpose(0, 1)


def layer_call(
    layer: FusedLayer, args: tuple[Any, ...], kwargs: Mapping[str, Any], recorder: Recorder
) -> LayerCall | None:
    """Copy what is needed to follow a call of a layer, of the row that stands for the request.

    Args:
        layer: The layer.
        args: Positional inputs of the call.
        kwargs: Its keyword inputs.
        recorder: Of the request.

    Cost: 10 us.
    """
    given = {**dict(zip(("src", "src_mask", "src_key_padding_mask"), args, strict=False)), **kwargs}
    source = given["src"]
    if not isinstance(source, torch.Tensor):
        return None
    mask, padding = given.get("src_mask"), given.get("src_key_padding_mask")
    if source.is_nested:
        chosen = source.unbind()[_entries(source.size(0), recorder).start].unsqueeze(0)
        return LayerCall(layer, chosen.detach().clone(), None, None)
    entries = _entries(source.shape[0], recorder)
    heads = layer.module.self_attn.num_heads
    if isinstance(mask, torch.Tensor):
        if mask.dim() == 3:
            mask = mask[entries.start * heads : entries.stop * heads]
        mask = _as_bias(mask, source)
    if isinstance(padding, torch.Tensor):
        padding = _as_bias(padding[entries], source)
    return LayerCall(layer, source[entries].detach().clone(), mask, padding)


def observe_at(observe: _Observe, point: int, tensor: torch.Tensor) -> None:
    """Show a tensor of a point that may not be there (-1)."""
    if point >= 0:
        observe(point, tensor)


def _entries(size: int, recorder: Recorder) -> slice:
    """Entries of the first dimension that belong to the row that stands for the request."""
    each, rest = divmod(size, recorder.rows)
    if rest or not each:
        return slice(0, size)
    return slice(recorder.unit * each, (recorder.unit + 1) * each)


def _as_bias(mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Return a copy of a mask in the form that is added: truth values mark what is left out."""
    mask = mask.detach().clone()
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=source.dtype).masked_fill_(mask, float("-inf"))


def _norm(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, (x.shape[-1],), norm.weight, norm.bias, norm.eps)
