"""Which kind of model something is, and with it how it is watched."""

from dataclasses import replace
from typing import Any, Final, Protocol

from calidrift_agent._attach import _compiled, _eager, _graph, _onnx, _opaque, _torch_ao, _torchao
from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._reference import reference_module
from calidrift_agent._observe import ReferenceModel
from calidrift_agent._points import require_module
from calidrift_agent.errors import AttachError


class Kind(Protocol):
    """One kind of model that can be watched; a module of this package."""

    def recognises(self, model: Any) -> bool:
        """Whether `model` is of this kind; changes nothing and never raises."""

    def attach(self, request: AttachRequest) -> Attachment:
        """Choose points, bounds, strategy and seat.

        Raises:
            AttachError: The model is watched already, or nothing in it can be observed.
            ProfileMismatchError: The profile belongs to another model or instrument.
        """


KINDS: Final[tuple[Kind, ...]] = (
    _onnx,
    _graph,
    _torch_ao,
    _torchao,
    _compiled,
    _opaque,  # behind every kind whose layers are known by name: it takes what shows none
    _eager,
)
"""All kinds; the first one that recognises a model has it, so the special come first."""


def plan_attachment(request: AttachRequest) -> Attachment:
    """Choose points, bounds, strategy and seat; nothing is changed.

    Raises:
        AttachError: Not a model, one that is watched already, or one with nothing to observe; or
            a reference that cannot be run.
        ProfileMismatchError: The profile belongs to another model or instrument.
    """
    for kind in KINDS:
        if kind.recognises(request.model):
            return _with_reference(kind.attach(request), request)
    require_module(request.model)
    raise AttachError(
        f"{type(request.model).__name__} is no kind of model that can be watched; give an eager "
        "torch.nn.Module or a PT2E GraphModule"
    )


def _with_reference(attachment: Attachment, request: AttachRequest) -> Attachment:
    """Add the reference model, where the kind had no use for it itself."""
    if request.reference is None or attachment.reference is not None:
        return attachment
    module = reference_module(request)
    return replace(attachment, reference=ReferenceModel(module, seed=request.options.seed))
