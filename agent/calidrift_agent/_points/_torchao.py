"""Linear layers that torchao's `quantize_` quantized: their inputs, and ranges where static."""

from types import MappingProxyType
from typing import Any, Final

import torch
from torch import nn

from calidrift_agent._points._ao_modules import LinearQuantization, quantized_weight
from calidrift_agent._points._modules import discover_modules, unwrap
from calidrift_agent._points._torch_ao import CodePoint, CodePoints
from calidrift_agent._profile import ClipBound
from calidrift_agent._vocabulary import Role
from calidrift_agent.errors import ConfigurationError

_INT8: Final = (-128, 127)
_INT8_OPTIONS: Final = "QuantizeTensorToInt8Kwargs"


def torchao_layers(model: object) -> dict[str, LinearQuantization]:
    """Return the layers that `quantize_` quantized, by name, and how their input is treated."""
    if not isinstance(model, nn.Module) or "_modules" not in model.__dict__:
        return {}
    return {
        name: weight.quantization
        for name, module in unwrap(model).named_modules()
        if (weight := quantized_weight(module)) is not None
    }


def torchao_points(model: nn.Module) -> CodePoints:
    """Return the static activation quantizers that torchao put into linear layers.

    They quantize the layer's input, which is a float tensor: it is seen exactly. The rails are
    those that the operation clamps to, half of the codes with `reduce_range`.

    Args:
        model: A model after ``quantize_(model, Int8StaticActivationInt8WeightConfig(...))``.

    Returns:
        The quantizers; empty where none is static. Other layers are in `skipped`, with reasons.
    """
    model = unwrap(model)
    layers = torchao_layers(model)
    found = discover_modules(model, outputs=False)
    skipped = dict(found.skipped)
    points: list[CodePoint] = []
    for point in found.points:
        if point.role is not Role.INPUT:
            skipped[point.module] = "it is not quantized: nothing is clipped there"
            continue
        how = layers.get(point.module)
        weight = quantized_weight(model.get_submodule(point.module))
        if how is LinearQuantization.STATIC and weight is not None:
            bound = _bound(weight.weight)
            if isinstance(bound, ClipBound):
                points.append(CodePoint(point, bound, exact=True))
            else:
                skipped[point.module] = bound
        elif how is LinearQuantization.DYNAMIC:
            skipped[point.module] = (
                "it is quantized dynamically: its range follows each tensor, so nothing is clipped"
            )
        else:
            skipped[point.module] = "its input is not quantized: nothing is clipped there"
    return CodePoints(tuple(points), MappingProxyType(skipped), None)


def _bound(weight: Any) -> ClipBound | str:
    """The range of the input's quantizer, or the reason why there is none to be told."""
    options = weight.act_quant_kwargs
    if type(options).__name__ != _INT8_OPTIONS:
        return "its input is not quantized to 8-bit integers"
    if getattr(weight, "act_pre_scale", None) is not None:
        return "its input is scaled before it is quantized, where it cannot be tapped"
    scale, zero_point = weight.act_quant_scale, getattr(weight, "act_quant_zero_point", None)
    if scale.numel() != 1 or (zero_point is not None and zero_point.numel() != 1):
        return "its input has a range for each row, and there is no single one to clip at"
    low, high = _INT8
    if getattr(options, "reduce_range", False):
        low, high = low // 2, high // 2
    try:
        return ClipBound.of_quantizer(
            float(_number(scale)),
            0 if zero_point is None else int(_number(zero_point)),
            low,
            high,
            "int8",
        )
    except ConfigurationError as error:
        return f"its range cannot be used ({error})"


def _number(tensor: torch.Tensor) -> float:
    return float(tensor.detach().reshape(()).item())
