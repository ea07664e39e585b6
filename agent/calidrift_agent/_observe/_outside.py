"""What the functions of a model write to beyond the model, read from their source.

A run on a copy would do it all the same, so it must be known before the first one: globals,
attributes of classes, containers that are shared by all calls. What the source does not tell (an
alias, a C extension) is found by the first run itself.
"""

import ast
import inspect
import sys
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from types import CodeType, FunctionType, MethodType
from typing import Final, final

import torch
from torch import nn

_CHANGES: Final = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"}
    | {"popleft", "remove", "setdefault", "update"}
)
"""Methods that change a container."""
_CONTAINERS: Final = (list, dict, set, deque)
_METHODS: Final = frozenset(
    chain.from_iterable(map(dir, (torch.Tensor, list, dict, set, tuple, str, int)))
)
"""Methods of tensors, containers and plain values."""
_ALSO_LAYERS: Final = frozenset(
    {"norm", "relu", "sigmoid", "softmax", "log_softmax", "tanh", "prelu", "hardshrink"}
)
_AT_DEFINITION: Final = frozenset({"decorator_list", "annotation", "returns", "type_comment"})
_DISPLAYS: Final = (ast.List, ast.Dict, ast.Set)
_FUNCTIONS: Final = 2_000
"""Functions that are read, at most."""
_FOREIGN: Final = frozenset({"torch", "numpy", "torchvision", "triton", *sys.stdlib_module_names})
"""Packages whose functions and classes are not searched: they do not keep state of a model."""


@final
@dataclass(frozen=True, slots=True)
class _Source:
    """What one function does.

    Attributes:
        stores: What it writes to beyond its own variables, in its own words.
        changed: Names beyond its own variables on which a method that changes containers is
            called.
        names: Names that it looks up.
        methods: Attributes that it looks up on its first argument, or on its base class.
        runs: Whether it calls something that it was given, or that it found in it; a method of
            tensors or containers is none. True where there is no source.
    """

    stores: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    runs: bool = True


def compiled_from(value: object) -> object | None:
    """Return the function behind one that `torch.compile` returned; None for any other object."""
    if getattr(value, "_torchdynamo_disable", False):
        return None  # what torch.compiler.disable returned
    found: object | None = getattr(value, "_torchdynamo_orig_callable", None)
    while not isinstance(found, MethodType) and hasattr(found, "__wrapped__"):
        found = found.__wrapped__  # torch puts a function of its own around methods of its layers
    return found


def is_foreign(module: str | None) -> bool:
    """Whether functions and classes of a module are not searched: the standard library, torch."""
    root = (module or "").partition(".")[0]
    return root in _FOREIGN and root != "__main__"


def reached_functions(root: nn.Module) -> list[FunctionType]:
    """Return the forward functions of a module tree, and what they call, as their source tells.

    Cost: 1 ms per function when it is first read.
    """
    return [function for function, _ in _reached(_entries(root))]


def compiled_with_layers(root: nn.Module) -> str | None:
    """Name a compiled function that a forward calls and that may run layers; None without one.

    It is given layers, say, and calls them. A function that only works on tensors is none.

    Cost: that of `reached_functions`.
    """
    if "torch._dynamo" not in sys.modules:
        return None  # nothing was ever compiled
    for function, kind in _reached(_entries(root)):
        for value in _referred(function, kind):
            compiled = compiled_from(value)
            inner = None if compiled is None else _function_of(compiled)
            if inner is not None and _may_run_layers(inner, kind):
                return inner.__qualname__
    return None


def _may_run_layers(function: FunctionType, kind: type) -> bool:
    for one, _ in _reached([(function, kind)]):
        if _read(one.__code__).runs:
            return True
        if any(_holds_layers(value) for value in _referred(one, kind)):
            return True
    return False


def _holds_layers(value: object) -> bool:
    values = value.values() if isinstance(value, dict) else value
    if isinstance(values, Iterable) and isinstance(value, _CONTAINERS):
        return any(isinstance(one, nn.Module) for one in tuple(values))
    return isinstance(value, nn.Module)


def _reached(
    entries: Iterable[tuple[FunctionType, type]],
) -> Iterator[tuple[FunctionType, type]]:
    """Yield functions and what they call, each once, with the class to look methods up in."""
    waiting = deque(entries)
    found: set[tuple[CodeType, int]] = set()
    while waiting and len(found) < _FUNCTIONS:
        function, kind = waiting.popleft()
        key = (function.__code__, id(function.__closure__))
        if key in found or is_foreign(function.__module__):
            continue
        found.add(key)
        yield function, kind
        called = filter(None, map(_function_of, _referred(function, kind)))
        waiting.extend((one, kind) for one in called)


def writes_outside(root: nn.Module) -> str | None:
    """Return what the forward functions of a module tree write to beyond it, or None."""
    for function in reached_functions(root):
        source = _read(function.__code__)
        if source.stores:
            return f"it writes to {source.stores[0]}, in {function.__qualname__}"
        for name in source.changed:
            if isinstance(function.__globals__.get(name), _CONTAINERS):
                return f"it changes {name}, in {function.__qualname__}"
    return None


def _entries(root: nn.Module) -> Iterator[tuple[FunctionType, type]]:
    """The functions that a call of each module begins with, and the class to look methods up in."""
    for module in root.modules():
        kind = type(module)
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        forward = getattr(kind, "forward", None)  # the class of TorchScript's modules has none
        for one in (forward, kind.__call__, module.__dict__.get("forward"), *hooks):
            function = _function_of(one)
            if function is not None:
                yield function, kind


def _referred(function: FunctionType, kind: type) -> list[object]:
    """Return what the names stand for that a function looks up beyond its own variables."""
    source = _read(function.__code__)
    found: list[object] = [function.__globals__.get(name) for name in sorted(source.names)]
    found += [getattr(kind, name, None) for name in sorted(source.methods)]
    for cell in function.__closure__ or ():  # what a decorator wraps
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue
    return found


def _function_of(value: object) -> FunctionType | None:
    value = compiled_from(value) or value
    if isinstance(value, MethodType):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    return value if isinstance(value, FunctionType) else None


@lru_cache(maxsize=4_096)
def _read(code: CodeType) -> _Source:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError, TypeError, ValueError):  # no file, or part of an expression
        return _Source()
    nodes = list(_at_call(tree))
    shared = {
        name
        for node in nodes
        if isinstance(node, (ast.Global, ast.Nonlocal))
        for name in node.names
    }
    defaults = set(_shared_defaults(nodes))
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own -= shared | defaults
    own -= {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)
        for target in node.targets
        if isinstance(target, ast.Name) and node.value.id not in own  # another name for a global
    }
    stores = []
    changed = []
    for node in nodes:
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
            if not isinstance(node.ctx, ast.Load) and _is_outside(node, own, shared):
                stores.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.func.value
            if node.func.attr in _CHANGES and isinstance(target, ast.Name):
                if target.id in defaults:
                    stores.append(f"the default of {target.id}")
                elif target.id not in own:
                    changed.append(target.id)
    names = {n.id for n in nodes if isinstance(n, ast.Name)}
    methods = {n.attr for n in nodes if isinstance(n, ast.Attribute) and _is_own(n.value, code)}
    return _Source(
        tuple(stores),
        tuple(changed),
        frozenset(names),
        frozenset(methods),
        any(isinstance(node, ast.Call) and _runs_own(node, own) for node in nodes),
    )


def _runs_own(call: ast.Call, own: set[str]) -> bool:
    """Whether a call is one of something that a function was given, or found in it."""
    called = call.func
    root: ast.expr = called
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    if not isinstance(root, ast.Name) or root.id not in own:
        return False
    if not isinstance(called, ast.Attribute) or called.attr not in _METHODS:
        return True
    # Both a method of tensors and a usual name of a layer: what is given to it is the input.
    return called.attr in _ALSO_LAYERS and any(isinstance(one, ast.Name) for one in call.args)


def _at_call(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over what runs when a function is called: not its decorators and annotations."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        for name, value in ast.iter_fields(node):
            if name in _AT_DEFINITION:
                continue
            values = value if isinstance(value, list) else [value]
            waiting.extend(one for one in values if isinstance(one, ast.AST))


def _is_own(value: ast.expr, code: CodeType) -> bool:
    """Whether an expression is the object whose method a function is."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in code.co_varnames[:1]


def _shared_defaults(nodes: list[ast.AST]) -> Iterator[str]:
    """Names of parameters whose default is a container, one for all calls."""
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            arguments = node.args
            positional = (*arguments.posonlyargs, *arguments.args)
            last = positional[len(positional) - len(arguments.defaults) :]
            pairs = (
                *zip(last, arguments.defaults, strict=True),
                *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
            )
            yield from (one.arg for one, default in pairs if isinstance(default, _DISPLAYS))


def _is_outside(
    node: ast.Name | ast.Attribute | ast.Subscript, own: set[str], shared: set[str]
) -> bool:
    """Whether what a store goes to belongs to no variable of the function."""
    if isinstance(node, ast.Name):
        return node.id in shared
    value: ast.expr = node
    while isinstance(value, (ast.Attribute, ast.Subscript)):
        if isinstance(value, ast.Attribute) and value.attr == "__class__":
            return True
        value = value.value
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "type"
    return isinstance(value, ast.Name) and value.id not in own
