"""Whether the code of a module would notice that it runs on a shallow clone."""

import dis
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Final

from torch import nn

_TRUSTED: Final = ("torch.nn.modules.", "torch.nn.parallel")
_WRITES: Final = frozenset({"STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL"})
_READS: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD"})
_REFLECTION: Final = frozenset({"__dict__", "setattr", "delattr", "vars", "__class__"})
_NOT_PART_OF_A_CALL: Final = frozenset(
    {
        "__init__",
        "__setstate__",
        "__getstate__",
        "__repr__",
        "_apply",
        "_init_weights",
        "_load_from_state_dict",
        "_reset_parameters",
        "extra_repr",
        "init_weights",
        "load_state_dict",
        "reset_parameters",
        "train",
    }
)
_HOOKED: Final = ("__getattr__", "__setattr__", "__delattr__", "__getattribute__")


def is_trusted(kind: type[nn.Module]) -> bool:
    """Whether a module class belongs to torch itself, whose forwards keep to their tensors."""
    return kind.__module__.startswith(_TRUSTED)


@lru_cache(maxsize=1024)
def notices_clone(kind: type[nn.Module]) -> str | None:
    """Return why instances of a class must not run on a shallow clone, or None.

    A clone shares parameters, buffers and every other object with the live module, but it is
    another object: attributes written to it are lost, and `self` used as a key is not found.
    Methods other than those of construction and loading are searched for attribute writes and
    for a `self` that is used as a whole. What this cannot see (a helper that is handed a bound
    method) goes to the clone and is lost, in a shadow pass that nobody waits for.
    """
    if is_trusted(kind):
        return None
    for base in kind.__mro__:
        if base in (nn.Module, object):
            continue
        if base.__dict__.get("__slots__"):
            return f"{base.__name__} has __slots__"
        for name in _HOOKED:
            if name in base.__dict__:
                return f"{base.__name__} defines {name}"
        if is_trusted(base):
            continue
        for name, function in _methods(base):
            found = _search(function.__code__)
            if found is not None:
                return f"{base.__name__}.{name} {found}"
    return None


def _methods(kind: type) -> Iterator[tuple[str, FunctionType]]:
    for name, value in kind.__dict__.items():
        if name in _NOT_PART_OF_A_CALL:
            continue
        for candidate in (value, getattr(value, "fget", None), getattr(value, "__func__", None)):
            wrapped = getattr(candidate, "__wrapped__", candidate)
            if isinstance(wrapped, FunctionType):
                yield name, wrapped


def _search(code: CodeType) -> str | None:
    own = code.co_varnames[0] if code.co_argcount else ""
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None], strict=True):
        operation = instruction.opname
        if operation in _WRITES:
            return f"writes {instruction.argval}"
        if operation.startswith("LOAD_") and instruction.argval in _REFLECTION:
            return f"uses {instruction.argval}"
        if not operation.startswith("LOAD_FAST") or not own:
            continue
        loaded = instruction.argval
        names = loaded if isinstance(loaded, tuple) else (loaded,)
        bare = own in names[:-1] or (
            names[-1] == own and (following is None or following.opname not in _READS | _WRITES)
        )
        if bare:
            return f"hands {own} on as a whole"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found = _writes(constant)
            if found is not None:
                return found
    return None


def _writes(code: CodeType) -> str | None:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _WRITES:
            return f"writes {instruction.argval}"
    return next(
        (found for one in code.co_consts if isinstance(one, CodeType) if (found := _writes(one))),
        None,
    )
