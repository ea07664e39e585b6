"""Models that torchao's `quantize_` quantized: the inputs of their linear layers are float."""

from dataclasses import replace
from typing import Any, Final

from torch import nn

from calidrift_agent._attach import _compiled, _eager
from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._static import attach_static
from calidrift_agent._points import LinearQuantization, torchao_layers, torchao_points

_NOTES: Final = {
    LinearQuantization.DYNAMIC: (
        "{layers} layers quantize their inputs dynamically: the range follows each tensor, nothing "
        "is clipped, and a value beyond the observed bound means growth, not a lost range"
    ),
    LinearQuantization.WEIGHT_ONLY: (
        "{layers} layers have quantized weights only: nothing is clipped, and a value beyond the "
        "observed bound means growth, not a lost range"
    ),
}


def recognises(model: Any) -> bool:
    """Whether `model` is a module with layers that torchao quantized, compiled or not."""
    runs = _eager.recognises(model) or _compiled.recognises(model)
    return runs and bool(torchao_layers(model))


def attach(request: AttachRequest) -> Attachment:
    """See `Kind`. Static layers have clip bounds, and then only clipping is measured."""
    model: nn.Module = request.model
    found = torchao_points(model)
    if found.quantizers:
        attachment = attach_static(request, found)
    else:
        kind = _compiled if _compiled.recognises(model) else _eager
        attachment = kind.attach(request)
    return replace(attachment, notes=(*attachment.notes, *_notes(model)))


def _notes(model: nn.Module) -> list[str]:
    found = list(torchao_layers(model).values())
    return [
        sentence.format(layers=found.count(how)) for how, sentence in _NOTES.items() if how in found
    ]
