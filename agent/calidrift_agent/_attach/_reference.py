"""What may serve as a reference model."""

from torch import nn

from calidrift_agent._attach._attachment import AttachRequest
from calidrift_agent._points import is_quantized, require_module, unwrap
from calidrift_agent.errors import AttachError


def reference_module(request: AttachRequest) -> nn.Module:
    """Return the reference of a request, ready to be copied.

    A module behind `torch.compile` is looked through: the copy runs eagerly.

    Raises:
        AttachError: There is none, it is no module of Python, it is a quantized graph, or a part
            of it is compiled.
    """
    given = request.reference
    if not isinstance(given, nn.Module):
        raise AttachError(
            f"reference is {type(given).__name__}, but must be the FP32 torch.nn.Module that the "
            "served model was made from; leave it out to do without"
        )
    module = require_module(given)
    if is_quantized(module):
        raise AttachError(
            "the reference is a quantized graph, which makes the very errors that it should show; "
            "give the FP32 module that was quantized"
        )
    compiled = [name for name, one in module.named_modules() if unwrap(one) is not one]
    if compiled:
        raise AttachError(
            f"{compiled[0]} in the reference is compiled, and what runs inside compiled code "
            "cannot be guarded; give the reference as it was before torch.compile"
        )
    return module
