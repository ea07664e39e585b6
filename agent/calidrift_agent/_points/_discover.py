"""One entry to the points of any model that can be observed."""

from types import MappingProxyType

from torch import nn
from torch.fx import GraphModule

from calidrift_agent._points._modules import Discovery, discover_modules, require_module
from calidrift_agent._points._quantize import is_quantized, quantize_nodes


def discover(model: nn.Module, *, outputs: bool = False) -> Discovery:
    """Return the tensors of a model that a quantizer quantizes, and what was left out and why.

    Of an eager module tree: the inputs of convolution and linear layers and the outputs of
    embeddings, named ``<module>:<role>`` after `named_modules`. An instance that is registered
    twice is one point; its other names are aliases. Of a converted PT2E graph: its static
    activation quantizers, see `quantize_nodes`.

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
    return discover_modules(inner, outputs=outputs)
