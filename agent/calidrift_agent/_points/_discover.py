"""One entry to the points of any model that can be observed."""

from types import MappingProxyType

from torch import nn
from torch.fx import GraphModule

from calidrift_agent._points._modules import Discovery, discover_modules, require_module
from calidrift_agent._points._quantize import is_quantized, quantize_nodes
from calidrift_agent._points._torch_ao import CodePoints, is_torch_ao, torch_ao_points
from calidrift_agent._points._torchao import torchao_points


def discover(model: nn.Module, *, outputs: bool = False) -> Discovery:
    """Return the tensors of a model that a quantizer quantizes, and what was left out and why.

    Of an eager module tree: the inputs of convolution and linear layers and the outputs of
    embeddings, named ``<module>:<role>`` after `named_modules`. An instance that is registered
    twice is one point; its other names are aliases. Of a converted PT2E graph: its static
    activation quantizers, see `quantize_nodes`. Of a model that `torch.ao` or torchao quantized
    statically: its activation quantizers, see `static_points`.

    Args:
        model: The model; one behind `torch.compile` is looked through.
        outputs: Also the outputs of convolution and linear layers (eager models only: a graph
            has exactly the points that it quantizes).

    Raises:
        AttachError: `model` is not a model that can be observed.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> [point.name for point in discover(net).points]
        ['0:input', '2:input']
    """
    inner = require_module(model)
    if isinstance(inner, GraphModule) and is_quantized(inner):
        points = tuple(quantizer.point for quantizer in quantize_nodes(inner))
        return Discovery(points=points, skipped=MappingProxyType({}))
    static = static_points(inner)
    if static is not None:
        return static.discovery
    return discover_modules(inner, outputs=outputs)


def static_points(model: nn.Module) -> CodePoints | None:
    """Return the static activation quantizers of an INT8 model made of modules; None without.

    Of `torch.ao` (``convert``, ``convert_fx``) see `torch_ao_points`, of torchao's `quantize_` see
    `torchao_points`. What is upstream of such a quantizer is quantized too, so what is seen there
    is not what the tensor would be without quantization: these points have the clip instrument
    only.

    Raises:
        AttachError: A `torch.ao` model of which nothing can be seen.
    """
    if is_torch_ao(model):
        return torch_ao_points(model)
    found = torchao_points(model)
    return found if found.quantizers else None
