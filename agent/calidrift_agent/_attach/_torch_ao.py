"""INT8 models of `torch.ao`: clipping from codes; ranges only with a reference model."""

from dataclasses import replace
from typing import Any, Final

from torch import nn

from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._static import attach_static
from calidrift_agent._points import is_torch_ao, torch_ao_points

_CODES: Final = (
    "clip counts of operations that work on codes are estimates: what stands on their outermost "
    "codes beyond what the codes next to it, and the calibration, let expect"
)


def recognises(model: Any) -> bool:
    """Whether `model` is what `torch.ao` converted: eager modules or a graph of `convert_fx`."""
    return isinstance(model, nn.Module) and is_torch_ao(model)


def attach(request: AttachRequest) -> Attachment:
    """See `Kind`."""
    found = torch_ao_points(request.model)
    attachment = attach_static(request, found)
    if all(one.exact for one in found.quantizers):
        return attachment
    return replace(attachment, notes=(*attachment.notes, _CODES))
