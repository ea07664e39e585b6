"""Convolutions of a graph, on weights that are packed once for oneDNN.

torch packs the weights of a convolution again in each call, and hands one of few values to a slower
program altogether: for a single image most of a pass. With packed weights the same sums are added
up in another order, one that does not depend on how many images come together.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, final

import torch
from torch.fx import Node

_CONV: Final = torch.ops.aten.conv2d.default
_NAMES: Final = ("stride", "padding", "dilation", "groups")
_DEFAULTS: Final = (1, 0, 1, 1)
_SPACES: Final = ("aten", "quantized_decomposed")
_IN_PLACE: Final = frozenset({"relu_", "hardtanh_", "hardswish_", "silu_", "leaky_relu_", "add_"})
_WHOLE_IMAGES: Final = ([2, 3], [-2, -1], [-1, -2], [3, 2])


def packable(nodes: Iterable[Node]) -> Mapping[Node, Node]:
    """Return the weights among these nodes that only one convolution reads, and it."""
    found: dict[Node, Node] = {}
    for node in nodes:
        users = list(node.users)
        if len(users) == 1 and users[0].target is _CONV and _reads_as_weight(users[0], node):
            found[node] = users[0]
    return found


def _reads_as_weight(convolution: Node, weight: Node) -> bool:
    args = convolution.args
    plain = not any(isinstance(one, Node) for one in args[3:]) and not convolution.kwargs
    return plain and len(args) > 1 and args[1] is weight and args[0] is not weight


def pack(weight: Any, convolution: Node) -> Any:
    """Return a weight packed; as it is where oneDNN is not used for it.

    Cost: one pass over the weight. The packed one takes the memory of the plain one.
    """
    suits = (
        isinstance(weight, torch.Tensor)
        and weight.is_cpu
        and weight.dtype is torch.float32
        and weight.dim() == 4
        and not weight.requires_grad
        and _can_pack()
    )
    if not suits:
        return weight
    stride, padding, dilation, groups = _numbers(convolution.args)
    reorder = torch._C._nn.mkldnn_reorder_conv2d_weight
    return reorder(weight.to_mkldnn(), padding, stride, dilation, groups)


def _can_pack() -> bool:
    """Whether oneDNN is there and used, with what Inductor itself packs weights with."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch._C._get_mkldnn_enabled()
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


@final
class Convolution:
    """Runs a convolution whose weight may be packed.

    Args:
        node: The convolution.
    """

    __slots__ = ("_free", "_numbers")

    def __init__(self, node: Node) -> None:
        self._numbers = _numbers(node.args)
        self._free = _is_free(node)

    def __call__(
        self, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what `torch.conv2d` returns, but for rounding."""
        stride, padding, dilation, groups = self._numbers
        if not weight.is_mkldnn:
            return torch.conv2d(values, weight, bias, stride, padding, dilation, groups)
        if not _suits(values, bias):
            dense = weight.to_dense()
            return torch.conv2d(values, dense, bias, stride, padding, dilation, groups)
        found: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            values, weight, bias, padding, stride, dilation, groups, "none", [], ""
        )
        # Its channels lie side by side. Where that would show, they are put as torch puts them.
        if self._free or (not values.is_contiguous() and _is_turned(values)):
            return found
        return found.contiguous()


def _suits(values: torch.Tensor, bias: torch.Tensor | None) -> bool:
    return (
        values.is_cpu
        and values.dtype is torch.float32
        and values.dim() == 4
        and values.layout is torch.strided
        and values.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not (
            torch.is_grad_enabled()
            and (values.requires_grad or (bias is not None and bias.requires_grad))
        )
    )


def _is_turned(values: torch.Tensor) -> bool:
    return values.is_contiguous(memory_format=torch.channels_last)


def _numbers(args: tuple[Any, ...]) -> tuple[list[int], list[int], list[int], int]:
    given = [*args[3:7], *_DEFAULTS[len(args[3:7]) :]]
    stride, padding, dilation = (
        list(one) * (2 // len(one)) if isinstance(one, (list, tuple)) else [one, one]
        for one in given[:3]
    )
    return stride, padding, dilation, given[3]


def _is_free(node: Node) -> bool:
    """Whether nobody can tell how what a node returns lies in memory.

    Functions of torch can not; views can, and what is not torch's.
    """
    seen = {node}
    waiting = [node]
    while waiting:
        for user in waiting.pop().users:
            if user in seen:
                continue
            seen.add(user)
            name = _function_of_torch(user)
            if name is None:
                return False
            if not _is_flat(user, name):
                waiting.append(user)
    return True


def _function_of_torch(node: Node) -> str | None:
    """Return the name of a function of torch that returns no view; None for whatever else."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return None
    space, _, name = schema.name.partition("::")
    if space not in _SPACES:
        return None
    views = any(one.alias_info is not None for one in schema.returns)
    return None if views and name not in _IN_PLACE else str(name)


def _is_flat(node: Node, name: str) -> bool:
    """Whether what a node returns can lie in one order only: means over whole images."""
    return name == "mean" and len(node.args) > 1 and node.args[1] in _WHOLE_IMAGES
