"""Everything a module tree refers to: what a run of it could change, and whether it did."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, partial
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, Final, final

import numpy as np
import torch

from calidrift_agent._observe._outside import compiled_from, is_foreign, reached_functions

LIMIT: Final = 20_000
"""Objects that are looked at; the nearest come first, what lies farther away is not compared."""
_HASHED_BYTES: Final = 1 << 20
"""Arrays up to this size are compared by their bytes, larger ones by their identity."""
_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, Enum)
_FIXED: Final = (ModuleType, BuiltinFunctionType, torch.dtype, torch.device, torch.layout)
_OWN: Final = "calidrift_agent."
"""Our own classes: of a tap or a gate, what it stands for is looked at."""
_DESCRIPTORS: Final = (property, classmethod, staticmethod, cached_property)


@final
@dataclass(slots=True)
class Footprint:
    """What was found on a walk.

    Attributes:
        facts: One entry per object, in the order of the walk; two walks over an unchanged tree
            give the same ones.
        places: Where each was found, as words for people.
        tensors: The tensors.
        modules: Identities of the `nn.Module`s.
        compiled: Names of functions behind `torch.compile`.
        generators: Random generators of numpy.
    """

    facts: list[object] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    modules: set[int] = field(default_factory=set)
    compiled: list[str] = field(default_factory=list)
    generators: list[np.random.Generator | np.random.RandomState] = field(default_factory=list)

    def difference(self, later: "Footprint") -> str | None:
        """Return where a later walk found something else; None where nothing changed."""
        for position, (old, new) in enumerate(zip(self.facts, later.facts, strict=False)):
            if old != new:
                return self.places[position]
        if len(self.facts) != len(later.facts):
            return "something new"
        return None


def footprint(root: torch.nn.Module) -> Footprint:
    """Walk over everything that a module tree refers to.

    Modules, their attributes, those of their classes, and what the functions reach that a call
    runs: closures, default arguments, globals. Not looked into: objects of the standard library,
    torch and numpy, and what only their functions refer to.

    Args:
        root: The module.

    Cost: about 3 us per object; 4 ms for an encoder of 12 layers.
    """
    found = Footprint()
    seen: dict[int, Any] = {}  # values keep the identities valid
    waiting: deque[tuple[str, Any]] = deque([(type(root).__name__, root)])
    waiting.extend((one.__qualname__, one) for one in reached_functions(root))
    while waiting and len(found.facts) < LIMIT:
        place, value = waiting.popleft()
        if isinstance(value, _PLAIN):
            found.facts.append((type(value), repr(value) if value != value else value))
            found.places.append(place)
            continue
        if id(value) in seen:
            fact: object = ("again", id(value))
        else:
            seen[id(value)] = value
            fact = _look(found, value, place, waiting)
        found.facts.append(fact)
        found.places.append(place)
    return found


def _look(found: Footprint, value: Any, place: str, waiting: deque[tuple[str, Any]]) -> object:
    """Return what is to be compared of an object itself, and queue what it refers to."""
    if isinstance(value, torch.Tensor):
        found.tensors.append(value)
        return _tensor_fact(value)
    if isinstance(value, torch.Generator):
        return ("generator", value.get_state().numpy().tobytes())
    if isinstance(value, np.ndarray):
        return _array_fact(value)
    if isinstance(value, (np.random.Generator, np.random.RandomState)):
        found.generators.append(value)
    if isinstance(value, itertools.count):
        return ("count", repr(value))
    if isinstance(value, torch.nn.Module):
        found.modules.add(id(value))
    if isinstance(value, FunctionType) and compiled_from(value) is not None:
        found.compiled.append(getattr(value, "__qualname__", place))
    inner = None if isinstance(value, _FIXED) else _inside(value)
    if inner is None:
        return (type(value), id(value))
    referred = list(inner)
    waiting.extend((f"{place}.{name}", one) for name, one in referred)
    return (type(value), id(value), tuple(name for name, _ in referred))


def _inside(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Names and values that an object refers to; None for one that is not looked into."""
    if isinstance(value, dict):
        return _of_dict(value)
    if isinstance(value, (list, tuple, deque)):
        return ((str(index), one) for index, one in enumerate(list(value)))
    if isinstance(value, (set, frozenset)):
        return iter(
            sorted((repr(one) if isinstance(one, _PLAIN) else hex(id(one)), None) for one in value)
        )
    if isinstance(value, FunctionType):
        return None if is_foreign(value.__module__) else _of_function(value)
    if isinstance(value, MethodType):
        return iter((("__self__", value.__self__), ("__func__", value.__func__)))
    if isinstance(value, partial):
        return iter((("func", value.func), ("args", value.args), ("keywords", value.keywords)))
    if isinstance(value, type):
        return None if is_foreign(value.__module__) else _of_class(value)
    if type(value).__module__.startswith(_OWN):
        forward = getattr(value, "__wrapped__", None)
        return None if forward is None else iter((("__wrapped__", forward),))
    looked_into = isinstance(value, (torch.nn.Module, SimpleNamespace))
    if looked_into or not is_foreign(type(value).__module__):
        return _of_object(value)
    return None


def _of_dict(value: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, one in list(value.items()):
        yield (str(key) if isinstance(key, _PLAIN) else f"{type(key).__name__}@{id(key)}"), one


def _of_object(value: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        if is_foreign(kind.__module__):
            continue
        yield f"<{kind.__name__}>", kind
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if isinstance(name, str) and hasattr(value, name):
                yield name, getattr(value, name)


def _of_class(value: type) -> Iterator[tuple[str, Any]]:
    for name, one in list(vars(value).items()):
        dunder = name.startswith("__")
        if not (dunder or callable(one) or isinstance(one, _DESCRIPTORS)):
            yield name, one


def _of_function(value: FunctionType) -> Iterator[tuple[str, Any]]:
    yield "__defaults__", value.__defaults__
    yield "__kwdefaults__", value.__kwdefaults__
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet filled
            yield name, None
    yield from list(value.__dict__.items())
    for name in sorted(_names(value.__code__)):
        found = value.__globals__.get(name)
        if found is not None and not isinstance(found, FunctionType):
            yield name, found


def _names(code: CodeType) -> set[str]:
    """Return the names that a function, or one inside it, looks up."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _tensor_fact(tensor: torch.Tensor) -> object:
    version = -1 if tensor.is_inference() else tensor._version
    plain = tensor.layout is torch.strided and not tensor.is_meta
    address = tensor.data_ptr() if plain and not tensor.is_nested else 0
    return ("tensor", id(tensor), version, address, tuple(tensor.shape), tensor.dtype)


def _array_fact(array: np.ndarray[Any, Any]) -> object:
    content = hash(array.tobytes()) if array.nbytes <= _HASHED_BYTES else None
    return ("array", id(array), array.shape, content)
