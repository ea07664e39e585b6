"""Layers of a model that a watch does not observe, because torch or the watch does not know them.

What is kept in a plain list or attribute is not registered with the module that keeps it, and what
was added after `watch` came too late.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from torch import nn

from calidrift_agent._points import Point, discover, unwrap

_KEPT_BY_TORCH: Final = frozenset(vars(nn.Module()))
"""Attributes of every module: its parameters, buffers, modules, hooks."""
_DEPTH: Final = 3
"""Containers in containers that are looked into."""
_ENTRIES: Final = 1_000
"""Entries of a container that are looked at: a list of layers is short, a table of data is not."""
_ADDED: Final = "it was added after watch(): close this watch and call watch() again to observe it"
_KEPT_APART: Final = (
    "it is kept in a plain attribute or container, where torch.nn does not know it (no name, no "
    "weights in the state): register it, e.g. in a torch.nn.ModuleList, to have it observed"
)


def unobserved(
    model: nn.Module, points: Sequence[Point], *, outputs: bool = False
) -> Mapping[str, str]:
    """Return the layers that a model has now and that are not among the points, and why.

    Args:
        model: The model as it is now.
        points: What is observed.
        outputs: Whether outputs of layers are points, too.

    Returns:
        Name of the layer to the reason.

    Cost: about 5 us per module; for a report, not for a request.
    """
    known = {name for point in points for name in (point.name, *point.aliases)}
    found = {
        point.module: _ADDED
        for point in discover(model, outputs=outputs).points
        if known.isdisjoint((point.name, *point.aliases))
    }
    registered = {id(module) for module in model.modules()}
    for place, value in kept_apart(model):
        if not isinstance(value, nn.Module) or id(unwrap(value)) in registered:
            continue
        layers = (point.module for point in discover(unwrap(value)).points)
        found |= {f"{place}.{name}" if name else place: _KEPT_APART for name in layers}
    return found


def kept_apart(model: nn.Module) -> Iterator[tuple[str, nn.Module | Callable[..., Any]]]:
    """Yield what can be called in attributes and containers that torch does not register.

    Modules and functions that `torch.compile` returned are meant; others come along.

    Yields:
        Where it is, e.g. ``encoder.parts[1]``, and the object.
    """
    for name, module in model.named_modules():
        for attribute, value in tuple(vars(module).items()):
            if attribute not in _KEPT_BY_TORCH:
                yield from _inside(f"{name}.{attribute}" if name else attribute, value, _DEPTH)


def _inside(
    place: str, value: Any, depth: int
) -> Iterator[tuple[str, nn.Module | Callable[..., Any]]]:
    if isinstance(value, (list, tuple)):
        entries = [(f"[{index}]", one) for index, one in enumerate(value[:_ENTRIES])]
    elif isinstance(value, dict):
        entries = [(f"[{key!r}]", one) for key, one in tuple(value.items())[:_ENTRIES]]
    else:
        if callable(value):
            yield place, value
        return
    if depth:
        for name, one in entries:
            yield from _inside(place + name, one, depth - 1)
