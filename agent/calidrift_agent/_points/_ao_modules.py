"""Which modules of `torch.ao` and torchao are quantized, and how; told by name.

Nothing is imported for it: a host without these packages pays nothing, and the deprecation
warnings of `torch.ao` stay the host's own.
"""

from enum import Enum, auto
from typing import Any, Final, final

import torch
from torch import nn

_NOT_STATIC: Final = (
    "torch.ao.nn.quantized.dynamic.",
    "torch.ao.nn.intrinsic.quantized.dynamic.",
    "torch.ao.nn.quantized.reference.",
)
_DYNAMIC: Final = _NOT_STATIC[:2]
_STATIC: Final = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
_WEIGHTED: Final = ("Linear", "Conv")
_RECURRENT: Final = frozenset({"LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell"})
_NO_FUSED_RELU: Final = frozenset({"LeakyReLU", "LinearLeakyReLU", "PReLU", "ReLU6"})
_TORCHAO: Final = "torchao."
_OF_INPUTS: Final = ("act_quant_kwargs", "input_quant_func", "activation_quantization")
"""What the weights of torchao call the way in which inputs are quantized, version by version."""


class LinearQuantization(Enum):
    """How torchao's `quantize_` treats a linear layer."""

    WEIGHT_ONLY = auto()
    DYNAMIC = auto()
    STATIC = auto()


@final
class QuantizedWeight:
    """What a weight that torchao quantized says about the layer's input.

    Args:
        weight: The weight, an instance of a tensor subclass of torchao.

    Attributes:
        quantization: What happens to the input.
    """

    __slots__ = ("quantization", "weight")

    def __init__(self, weight: Any) -> None:
        self.weight = weight
        if getattr(weight, "act_quant_scale", None) is not None:
            self.quantization = LinearQuantization.STATIC
        elif any(getattr(weight, name, None) is not None for name in _OF_INPUTS):
            self.quantization = LinearQuantization.DYNAMIC
        else:
            self.quantization = LinearQuantization.WEIGHT_ONLY


def static_name(module: nn.Module) -> str | None:
    """Return the name of the `torch.ao` class that quantizes statically, None for another module.

    Example:
        >>> static_name(nn.Linear(2, 2)) is None
        True
    """
    for kind in type(module).__mro__:
        place = f"{kind.__module__}."
        if place.startswith(_NOT_STATIC):
            return None
        if place.startswith(_STATIC):
            return kind.__name__
    return None


def dynamic_name(module: nn.Module) -> str | None:
    """Return the name of the `torch.ao` class that quantizes its input anew at each call."""
    for kind in type(module).__mro__:
        if f"{kind.__module__}.".startswith(_DYNAMIC):
            return kind.__name__
    return None


def is_dynamic_layer(module: nn.Module) -> bool:
    """Whether it is a linear or convolution layer of `torch.ao` that quantizes dynamically."""
    name = dynamic_name(module)
    return name is not None and name.startswith(_WEIGHTED)


def is_dynamic_recurrent(module: nn.Module) -> bool:
    """Whether it is a recurrent layer of `torch.ao` that quantizes dynamically."""
    return dynamic_name(module) in _RECURRENT


def is_converted(module: nn.Module) -> bool:
    """Whether it is a module that `torch.ao` made of another: it has no training mode to speak of.

    Conversion leaves its `training` flag at True, whatever the model's is.
    """
    return static_name(module) is not None or dynamic_name(module) is not None


def is_weighted(name: str) -> bool:
    """Whether a class that `static_name` named is a linear or convolution layer."""
    return name.startswith(_WEIGHTED)


def has_fused_relu(name: str) -> bool:
    """Whether a class or an operation ends in a ReLU of its own."""
    return ("ReLU" in name and name not in _NO_FUSED_RELU) or (
        name.endswith("_relu") and name != "leaky_relu"
    )


def quantized_weight(module: nn.Module) -> QuantizedWeight | None:
    """Return what torchao did to a layer; None for one that it did not quantize.

    Example:
        >>> quantized_weight(nn.Linear(2, 2)) is None
        True
    """
    parameters: object = module.__dict__.get("_parameters")
    weight = parameters.get("weight") if isinstance(parameters, dict) else None  # TorchScript
    if weight is None or type(weight) in (nn.Parameter, torch.Tensor):
        return None
    if not any(f"{kind.__module__}.".startswith(_TORCHAO) for kind in type(weight).__mro__):
        return None
    return QuantizedWeight(weight)


def is_code_layer(module: nn.Module) -> bool:
    """Whether it is a linear or convolution layer of `torch.ao` that works on codes."""
    name = static_name(module)
    return name is not None and is_weighted(name) and name != "LinearPackedParams"
