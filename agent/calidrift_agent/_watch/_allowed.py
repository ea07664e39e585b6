"""Which inputs of a call may be kept in captures, by the names that the model has for them."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, Final, final

import torch
from torch import nn

from calidrift_agent._observe import Gate
from calidrift_agent._onnx import is_session
from calidrift_agent._points import unwrap
from calidrift_agent._taps import named_tensors
from calidrift_agent.errors import ConfigurationError

_BY_POSITION: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_PASSES_ON: Final = [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]
_SHOWN: Final = 8
"""Names that a sentence lists."""


@final
@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a model says about its inputs.

    Attributes:
        positional: Parameters that may be given by position, in order.
        others: Parameters that are given by name only.
        rest: Parameter that takes all further positional inputs; "" where there is none.
        any_position: Whether there may be more positional inputs.
        any_name: Whether there may be more named inputs; then no name can be refused.
    """

    positional: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    rest: str = ""
    any_position: bool = True
    any_name: bool = True

    def aliases(self, name: str) -> tuple[str, ...]:
        """All names that an input may come by; none where it is no input of the model."""
        root, dot, rest = name.partition(".")
        place = _place(root)
        if root in self.positional:
            return (name, f"arg{self.positional.index(root)}{dot}{rest}")
        if root and root == self.rest:
            number, deeper, within = rest.partition(".")
            if not dot:
                return (f"arg{len(self.positional)}",)
            if not (number.isascii() and number.isdigit()):
                return ()
            return (f"arg{len(self.positional) + int(number)}{deeper}{within}",)
        if place is not None and place < len(self.positional):
            return (name, f"{self.positional[place]}{dot}{rest}")
        known = {name, root} & {*self.others}
        if known or self.any_name or (place is not None and self.any_position):
            return (name,)
        return ()


@final
class AllowedInputs:
    """The allow-list of captures, as one model understands it.

    A name may be that of a parameter, or `arg0`, `arg1` for what is given by position; either way
    it stands for the same input. The name of a container stands for all tensors in it, which are
    numbered (`batch.0`). The name of `*images` stands for all that it takes, `images.0` for the
    first.

    What counts are the names of what is called, which a decorator may have changed. Where it was
    replaced after `watch`, its names are read anew, and nothing is kept of calls made before this
    was noticed: nobody can say by which names they were made.

    Args:
        model: What is watched.
        names: As given to `CaptureOptions`, at least one.

    Raises:
        ConfigurationError: A name is none of the model's.
    """

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        self._model = model
        self._names = names
        self._gate: Gate | None = None
        self._forward = _forward_of(model, None)
        self._occurred: set[str] = set()
        self._calls = self._unclear = 0
        self._since_ns = 0
        inputs = self._take_in(_inputs_of(model, self._forward))
        foreign = [name for name, aliases in self._aliases.items() if not aliases]
        if foreign:
            rest = (f"*{inputs.rest}",) if inputs.rest else ()
            known = (*inputs.positional, *rest, *inputs.others)
            raise ConfigurationError(
                f"capture option inputs names {foreign[0]!r}, which is no input of the model: its "
                f"inputs are {_listed(known)}; correct the name (what is given by position is also "
                "known as arg0, arg1)"
            )

    def follow(self, gate: Gate) -> None:
        """Know the gate that calls come through, and with it what it passes them on to."""
        self._gate = gate
        self._forward = _forward_of(self._model, gate)
        self._take_in(_inputs_of(self._model, self._forward))

    def choose(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], time_ns: int
    ) -> dict[str, torch.Tensor]:
        """Return those tensors of a call that may be kept, as `named_tensors` calls them.

        Args:
            args: Positional inputs.
            kwargs: Named inputs.
            time_ns: When the call was made, UTC nanoseconds.
        """
        self._calls += 1
        forward = _forward_of(self._model, self._gate)
        if not _same(forward, self._forward):
            self._forward = forward
            self._take_in(_inputs_of(self._model, forward))
            self._since_ns = time.time_ns()
        if time_ns <= self._since_ns:
            self._unclear += 1
            return {}
        kept: dict[str, torch.Tensor] = {}
        roots = [(f"arg{at}", at >= self._rest_from, one) for at, one in enumerate(args)]
        roots += [(name, False, one) for name, one in kwargs.items()]
        for root, further, value in roots:
            found = named_tensors((), {root: value})
            self._occurred.update(found)
            if found:
                self._occurred.add(root)
            whole = further or root in self._all
            kept.update({name: one for name, one in found.items() if whole or name in self._all})
        return kept

    def _take_in(self, inputs: _Inputs) -> _Inputs:
        self._aliases = {name: inputs.aliases(name) for name in self._names}
        self._all = frozenset(alias for aliases in self._aliases.values() for alias in aliases)
        whole = bool(inputs.rest) and inputs.rest in self._names
        self._rest_from = len(inputs.positional) if whole else math.inf
        return inputs

    def remarks(self) -> tuple[str, ...]:
        """Sentences for the report, about names that have not occurred in any call."""
        remarks = []
        if self._unclear:
            remarks.append(
                "captures: the model's forward was replaced after watch, and nothing was kept of "
                f"{self._unclear} observed calls made before that was noticed, since the names of "
                "their inputs cannot be told; they are counted as unsuitable_input"
            )
        missing = [
            name for name, aliases in self._aliases.items() if self._occurred.isdisjoint(aliases)
        ]
        if missing and self._calls > self._unclear:
            remarks.append(
                f"captures: {_listed(missing)} of CaptureOptions(inputs=...) has not come as a "
                f"tensor in {self._calls - self._unclear} observed calls, which gave "
                f"{_listed(sorted(self._occurred))}; where nothing is left of a row, it is dropped "
                "and counted as unsuitable_input"
            )
        return tuple(remarks)


def _place(name: str) -> int | None:
    """Position that a name like `arg0` stands for."""
    digits = name.removeprefix("arg")
    return int(digits) if digits != name and digits.isascii() and digits.isdigit() else None


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN]) or "none"
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _forward_of(model: Any, gate: Gate | None) -> Any:
    """What takes the inputs of calls; None for a model that says its inputs by itself."""
    if is_session(model) or isinstance(model, torch.jit.ScriptModule):
        return None
    if not isinstance(model, nn.Module):
        return model
    module = unwrap(model)
    if gate is not None and gate.owner is module:
        return gate.__wrapped__
    return getattr(module, "forward", None)


def _same(one: Any, other: Any) -> bool:
    """Whether two ways to reach a forward reach the same; bound methods are made at each look."""
    if type(one) is MethodType and type(other) is MethodType:
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    return one is other


def _inputs_of(model: Any, forward: Any) -> _Inputs:
    if is_session(model):
        names = tuple(one.name for one in model.get_inputs())
        return _Inputs((), names, any_position=False, any_name=False)
    if isinstance(model, torch.jit.ScriptModule):
        script: Any = model.forward
        arguments = script.schema.arguments[1:]
        return _Inputs(tuple(one.name for one in arguments), any_position=False, any_name=False)
    try:
        parameters = _parameters(forward, 0)
    except (TypeError, ValueError):  # written in C, without a signature
        return _Inputs()
    kinds = {one.kind for one in parameters}
    return _Inputs(
        tuple(one.name for one in parameters if one.kind in _BY_POSITION),
        tuple(one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY),
        next((one.name for one in parameters if one.kind is inspect.Parameter.VAR_POSITIONAL), ""),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        inspect.Parameter.VAR_KEYWORD in kinds,
    )


def _parameters(forward: Any, bound: int) -> list[inspect.Parameter]:
    """Parameters of what is called, not of what a decorator says to stand for.

    A decorator that takes nothing but `*args, **kwargs` passes them on as they are, so that they
    have the names of what it wraps.

    Args:
        forward: Any callable.
        bound: Number of positional inputs that methods give by themselves.

    Raises:
        TypeError: It is not callable, or does not say.
        ValueError: It does not say.
    """
    if type(forward) is Gate:
        return _parameters(forward.__wrapped__, bound)
    if type(forward) is MethodType:
        return _parameters(forward.__func__, bound + 1)
    parameters = list(inspect.signature(forward, follow_wrapped=False).parameters.values())
    own = [one for one in parameters[:bound] if one.kind in _BY_POSITION]
    parameters = parameters[len(own) :]
    inner = getattr(forward, "__wrapped__", None)
    if callable(inner) and [one.kind for one in parameters] == _PASSES_ON:
        return _parameters(inner, bound)
    return parameters
