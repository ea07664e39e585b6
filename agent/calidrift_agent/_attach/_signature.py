"""What a callable that cannot be opened says about itself: its inputs, and its layers by name."""

import inspect
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils._pytree import treespec_loads

from calidrift_agent._observe import InputNames
from calidrift_agent.errors import ConfigurationError

_LAYERS: Final = ("Linear", "Embedding", "EmbeddingBag", "Conv1d", "Conv2d", "Conv3d")
_WEIGHT: Final = ".weight"
_BY_POSITION: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_ANY_NUMBER: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def is_script(model: object) -> bool:
    """Whether `model` is a TorchScript module, scripted, traced or loaded."""
    return isinstance(model, torch.jit.ScriptModule)


def kind_of(model: Any) -> str:
    """Return what to call a model in a sentence.

    Example:
        >>> kind_of(len)
        'the callable len'
    """
    if is_script(model):
        return "a TorchScript module"
    if _is_package(model):
        return "an AOTInductor package"
    if isinstance(model, GraphModule):
        return "an exported graph"
    if isinstance(model, nn.Module):
        return f"the module {type(model).__name__}"
    return f"the callable {getattr(model, '__name__', type(model).__name__)}"


def input_names(
    model: Any, chosen: Sequence[str] | None = None
) -> tuple[InputNames, dict[str, str]]:
    """Return the inputs of a callable as far as it names them, and why some are not observed.

    Args:
        model: The callable.
        chosen: Names of the inputs to observe; None for all that may be floating point.

    Raises:
        ConfigurationError: A chosen name is not one of the callable's.
    """
    if is_script(model):
        positional, suitable = _script_inputs(model)
    elif _is_package(model):
        positional, suitable = (), _package_inputs(model)
    else:
        positional, suitable = _signature_inputs(model)
    if chosen is not None:
        foreign = sorted(set(chosen) - {*positional, *suitable}) if suitable else []
        if foreign:
            raise ConfigurationError(
                f"inputs names {foreign[0]!r}, which {kind_of(model)} has not; it has "
                f"{', '.join(suitable)}"
            )
        return InputNames(positional, tuple(chosen)), {}
    skipped = {}
    if isinstance(model, GraphModule):
        whole = _integer_inputs(model)
        skipped = {f":input.{name}": "its values are not floating point" for name in whole}
        suitable = tuple(name for name in suitable if name not in whole)
    elif not suitable:
        return InputNames(positional, None), {
            ":input": "the callable does not name its inputs: only the first floating-point tensor "
            "is observed, others where WatchOptions(inputs=...) names them (arg0, arg1, ...)"
        }
    return InputNames(positional, suitable), skipped


def inner_layers(model: Any) -> tuple[str, ...]:
    """Return the names of inner layers that a model still tells, though it does not show them."""
    if is_script(model):
        return tuple(
            name
            for name, module in model.named_modules()
            if name and getattr(module, "original_name", "") in _LAYERS
        )
    if _is_package(model):
        names = model.get_constant_fqns()
    elif isinstance(model, nn.Module):
        names = [name for name, _ in model.named_parameters()]
    else:
        return ()
    return tuple(sorted({n.removesuffix(_WEIGHT) for n in names if n.endswith(_WEIGHT)}))


def _is_package(model: object) -> bool:
    """Whether `model` is what `torch._inductor.aoti_load_package` returned."""
    return hasattr(getattr(model, "loader", None), "get_call_spec") and hasattr(
        model, "get_constant_fqns"
    )


def _script_inputs(model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    arguments = model.forward.schema.arguments[1:]
    names = tuple(argument.name for argument in arguments)
    return names, tuple(one.name for one in arguments if "Tensor" in str(one.type))


def _package_inputs(model: Any) -> tuple[str, ...]:
    """Inputs of a package: positional ones as `arg0`, `arg1`, keyword ones by their name."""
    spec = treespec_loads(model.loader.get_call_spec()[0])
    positional, keyword = spec.child(0), spec.child(1)
    return (*(f"arg{index}" for index in range(positional.num_children)), *keyword.context)


def _signature_inputs(model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):  # written in C, without a signature
        return (), ()
    parameters = signature.parameters.values()
    if any(parameter.kind in _ANY_NUMBER for parameter in parameters):
        return (), ()
    positional = tuple(one.name for one in parameters if one.kind in _BY_POSITION)
    return positional, tuple(one.name for one in parameters)


def _integer_inputs(graph: GraphModule) -> frozenset[str]:
    return frozenset(
        str(node.target)
        for node in graph.graph.nodes
        if node.op == "placeholder"
        and isinstance(value := node.meta.get("val"), torch.Tensor)
        and not value.is_floating_point()
    )
