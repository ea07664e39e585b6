"""Eager modules: the sampled call itself runs on taps."""

from typing import Any, Final

from torch import nn

from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._fitting import profile_notes, require_fitting, require_unwatched
from calidrift_agent._attach._opaque import attach_edges
from calidrift_agent._observe import Seat
from calidrift_agent._points import discover, require_module
from calidrift_agent._taps import PointTable
from calidrift_agent._vocabulary import Strategy

_FUSED: Final = (nn.TransformerEncoderLayer,)


def recognises(model: Any) -> bool:
    """Whether `model` is a module; the kinds before this one have taken all special ones."""
    return isinstance(model, nn.Module)


def attach(request: AttachRequest) -> Attachment:
    """See `Kind`."""
    model = require_module(request.model)
    require_unwatched(model)
    compiled = _compiled_inside(model)
    if compiled is not None:
        why = f"{compiled} is compiled by itself, and taps inside it would be compiled with it"
        hidden = [point.module for point in discover(model, outputs=False).points]
        return attach_edges(request, why, hidden=hidden)
    found = discover(model, outputs=request.options.outputs)
    require_fitting(request.profile, model, found.points)
    points = found.points
    return Attachment(
        points,
        found,
        PointTable.of([(point.name, point.aliases) for point in points], request.profile),
        Strategy.INSTEAD,
        None,
        False,
        (*profile_notes(request.profile), *_fused_notes(model)),
        Seat(model),
    )


def _compiled_inside(model: nn.Module) -> str | None:
    """Name a function that `torch.compile` made of a method of the model or of a part of it."""
    for name, module in model.named_modules():
        holders = [vars(module), *(vars(kind) for kind in type(module).__mro__)]
        for holder in holders:
            for attribute, value in tuple(holder.items()):
                if callable(value) and hasattr(value, "_torchdynamo_orig_callable"):
                    return f"{name}.{attribute}" if name else attribute
    return None


def _fused_notes(model: nn.Module) -> tuple[str, ...]:
    if not any(isinstance(module, _FUSED) for module in model.modules()):
        return ()
    return (
        "nn.TransformerEncoderLayer may run as one fused kernel (inference in eval mode): what its "
        "linear layers are given is then worked out beside the request, from one row of it",
    )
