"""Eager modules: the sampled call itself runs on taps."""

from typing import Any, Final

from torch import nn

from calidrift_agent._attach._apart import kept_apart, unobserved
from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._fitting import profile_notes, require_fitting, require_unwatched
from calidrift_agent._attach._opaque import attach_edges
from calidrift_agent._observe import (
    ModuleShadow,
    Outlook,
    Seat,
    compiled_from,
    compiled_with_layers,
)
from calidrift_agent._points import discover, require_module, unwrap
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
    function = compiled_with_layers(model)
    if function is not None:
        why = (
            f"the compiled function {function} may run layers of the model, and taps in them would "
            "be compiled with it"
        )
        hidden = [point.module for point in discover(model, outputs=False).points]
        return attach_edges(request, why, hidden=hidden)
    found = discover(model, outputs=request.options.outputs)
    require_fitting(request.profile, model, found.points)
    points = found.points
    table = PointTable.of([(point.name, point.aliases) for point in points], request.profile)
    names = [point.name for point in points]
    later = Outlook(names, names, edges=False)
    return Attachment(
        points,
        found,
        table,
        Strategy.INSTEAD,
        None,
        False,
        (*profile_notes(request.profile), *_fused_notes(model)),
        Seat(model),
        compiled=lambda ledger: ModuleShadow(model, points, None, table, ledger, later),
        compiled_outlook=later,
        unobserved=lambda: unobserved(model, points, outputs=request.options.outputs),
    )


def _compiled_inside(model: nn.Module) -> str | None:
    """Name what `torch.compile` made of a method or of a part of the model."""
    registered = {id(module) for module in model.modules()}
    for place, value in kept_apart(model):
        layer = unwrap(value) if isinstance(value, nn.Module) else value
        if layer is not value and id(layer) in registered:
            return place
        if not isinstance(value, nn.Module) and compiled_from(value) is not None:
            return place
    for name, module in model.named_modules():
        holders = [vars(module), *(vars(kind) for kind in type(module).__mro__)]
        for holder in holders:
            for attribute, value in tuple(holder.items()):
                if callable(value) and compiled_from(value) is not None:
                    return f"{name}.{attribute}" if name else attribute
    return None


def _fused_notes(model: nn.Module) -> tuple[str, ...]:
    if not any(isinstance(module, _FUSED) for module in model.modules()):
        return ()
    return (
        "nn.TransformerEncoderLayer may run as one fused kernel (inference in eval mode): what its "
        "linear layers are given is then worked out beside the request, from one row of it",
    )
