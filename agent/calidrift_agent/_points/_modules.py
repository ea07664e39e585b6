"""Which tensors of an eager model a quantizer would quantize: the observation points."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from calidrift_agent._points._ao_modules import is_dynamic_layer, is_dynamic_recurrent
from calidrift_agent._vocabulary import Role
from calidrift_agent.errors import AttachError

_INPUT_TYPES: Final[tuple[type[nn.Module], ...]] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
_INPUT_NAMES: Final = frozenset({"transformers.pytorch_utils.Conv1D"})
"""Linear layers of other packages, by name, so that the packages are not imported."""
_WRAPPED: Final = "_orig_mod"
"""The attribute in which `torch.compile` keeps the module."""
_OUTPUT_TYPES: Final[tuple[type[nn.Module], ...]] = (nn.Embedding, nn.EmbeddingBag)
_SKIPPED: Final[tuple[tuple[type[nn.Module], str], ...]] = (
    (
        NonDynamicallyQuantizableLinear,
        "its forward is never called: attention reads its weights directly",
    ),
    (
        nn.MultiheadAttention,
        "its fused in-projection is a function, not a module: its input cannot be tapped",
    ),
    (nn.RNNBase, "recurrent layers are quantized dynamically and have no static input range"),
    (nn.RNNCellBase, "recurrent cells are quantized dynamically and have no static input range"),
    (nn.Bilinear, "no static quantizer handles its two inputs"),
)


_NO_FACTORS: Final = (nn.LayerNorm, nn.RMSNorm, parametrize.ParametrizationList)
"""Modules whose own parameters no input is multiplied with as a matrix."""
_FUNCTIONAL: Final = (
    "its forward uses parameters of its own ({}), and not a layer that holds them: what they are "
    "multiplied with, if with anything, cannot be tapped"
)
_SCRIPTED: Final = (
    "it is a TorchScript module, which runs its layers itself: none of them can be tapped"
)


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One observed tensor.

    Attributes:
        name: ``<module>:<role>``, e.g. ``layer4.1.conv2:input``.
        role: Which tensor of the module.
        module: Name of the module in `named_modules`, or of the module in which a functional
            operation stands.
        aliases: Other names of the same tensor.
    """

    name: str
    role: Role
    module: str
    aliases: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Discovery:
    """What a model has to observe.

    Attributes:
        points: The points, in the order of `named_modules` (of the graph, for a quantized graph).
        skipped: Module name to the reason why a module that looks quantizable has no point, or
            that owns matrices which no layer holds.
    """

    points: tuple[Point, ...]
    skipped: Mapping[str, str]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module behind `torch.compile`, or `model` itself where it is not compiled.

    Example:
        >>> plain = nn.Linear(2, 2)
        >>> unwrap(plain) is plain
        True
    """
    seen: set[int] = set()
    while id(model) not in seen:
        seen.add(id(model))
        modules = model.__dict__.get("_modules")
        inner = modules.get(_WRAPPED) if isinstance(modules, dict) else None  # TorchScript
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model


def plain_name(name: str) -> str:
    """Return the name of a module, or of a tensor, without the marks of compiled parts.

    So that a point and a weight have one name, whichever parts of a model are compiled.

    Example:
        >>> plain_name("encoder._orig_mod.layers.0"), plain_name("_orig_mod")
        ('encoder.layers.0', '')
    """
    if _WRAPPED not in name:
        return name
    return ".".join(part for part in name.split(".") if part != _WRAPPED)


def discover_modules(model: nn.Module, *, outputs: bool) -> Discovery:
    """Return the points of an eager module tree; see `discover`."""
    names: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(plain_name(name))
        modules[id(module)] = module
    points: list[Point] = []
    skipped: dict[str, str] = {}
    scripted = tuple(f"{names[key][0]}." for key, one in modules.items() if is_scripted(one))
    for key, module in modules.items():
        first, *others = names[key]
        if first.startswith(scripted):
            continue  # what holds it is reported
        reason = _reason_to_skip(module)
        if reason is not None:
            skipped[first] = reason
            continue
        roles = tuple(_roles(module, outputs=outputs))
        own = () if roles else _own_weights(module)
        if own:
            skipped[first] = _FUNCTIONAL.format(", ".join(own))
        points.extend(
            Point(
                name=f"{first}:{role}",
                role=role,
                module=first,
                aliases=tuple(f"{other}:{role}" for other in others),
            )
            for role in roles
        )
    return Discovery(points=tuple(points), skipped=MappingProxyType(skipped))


def require_module(model: object) -> nn.Module:
    """Return the model behind `torch.compile`, or say what was given instead of a model.

    Raises:
        AttachError: Not an `nn.Module`, or a TorchScript module.
    """
    if not isinstance(model, nn.Module):
        raise AttachError(
            f"got {type(model).__name__}, but only a torch.nn.Module, a torch.compile'd one or a "
            "PT2E GraphModule can be observed; of an ExportedProgram give .module()"
        )
    inner = unwrap(model)
    if is_scripted(inner):
        raise AttachError(
            f"{type(inner).__name__} is a TorchScript module, in which nothing can be observed; "
            "give the eager module that it was made from"
        )
    return inner


def is_scripted(module: nn.Module) -> bool:
    """Whether a module is one of TorchScript's: scripted, traced, or loaded from its archive."""
    return type(module).__module__.startswith("torch.jit")


def _reason_to_skip(module: nn.Module) -> str | None:
    if is_scripted(module):
        return _SCRIPTED  # whatever it holds: a frozen one hides its weights
    for kind, reason in _SKIPPED:
        if isinstance(module, kind):
            return reason
    if _is_complex(module):
        return "its weights are complex numbers, and only real numbers have a range"
    if is_dynamic_recurrent(module):
        return "recurrent layers are quantized dynamically and have no static input range"
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return "its parameters are not initialised: run the model once, then discover again"
    return None


def _roles(module: nn.Module, *, outputs: bool) -> Iterator[Role]:
    if isinstance(module, _INPUT_TYPES) or _is_linear_elsewhere(module) or is_dynamic_layer(module):
        yield Role.INPUT
        if outputs:
            yield Role.OUTPUT
    elif isinstance(module, _OUTPUT_TYPES):
        yield Role.OUTPUT


def _own_weights(module: nn.Module) -> tuple[str, ...]:
    """Names of the matrices that a module owns itself (stacked experts, say), for its own use.

    A leading 1 is that of a tensor which is added to a batch, as embeddings of positions are.
    """
    if isinstance(module, _NO_FACTORS):
        return ()
    return tuple(
        name
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.is_floating_point()
        and not isinstance(parameter, UninitializedParameter)
        and parameter.dim() >= 2
        and parameter.shape[0] > 1
        and sum(size > 1 for size in parameter.shape) >= 2
    )


def _is_complex(module: nn.Module) -> bool:
    """Whether a layer that would have points has complex weights, parametrized ones included."""
    if next(_roles(module, outputs=True), None) is None:
        return False
    return any(parameter.is_complex() for parameter in module.parameters())


def _is_linear_elsewhere(module: nn.Module) -> bool:
    kinds = type(module).__mro__
    return any(f"{kind.__module__}.{kind.__qualname__}" in _INPUT_NAMES for kind in kinds)
