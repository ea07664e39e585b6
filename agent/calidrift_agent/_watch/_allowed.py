"""Which inputs of a call may be kept in captures, by the names that the model has for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import nn

from calidrift_agent._onnx import is_session
from calidrift_agent._points import unwrap
from calidrift_agent._taps import named_tensors
from calidrift_agent.errors import ConfigurationError

_BY_POSITION: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_SHOWN: Final = 8
"""Names that a sentence lists."""


@final
@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a model says about its inputs.

    Attributes:
        positional: Parameters that may be given by position, in order.
        others: Parameters that are given by name only.
        any_position: Whether there may be more positional inputs.
        any_name: Whether there may be more named inputs; then no name can be refused.
    """

    positional: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    any_position: bool = True
    any_name: bool = True

    def aliases(self, name: str) -> tuple[str, ...]:
        """All names that an input may come by; none where it is no input of the model."""
        root, dot, rest = name.partition(".")
        place = _place(root)
        if root in self.positional:
            return (name, f"arg{self.positional.index(root)}{dot}{rest}")
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
    numbered (`batch.0`).

    Args:
        model: What is watched.
        names: As given to `CaptureOptions`, at least one.

    Raises:
        ConfigurationError: A name is none of the model's.
    """

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        inputs = _inputs_of(model)
        self._aliases = {name: inputs.aliases(name) for name in names}
        foreign = [name for name, aliases in self._aliases.items() if not aliases]
        if foreign:
            known = (*inputs.positional, *inputs.others)
            raise ConfigurationError(
                f"capture option inputs names {foreign[0]!r}, which is no input of the model: its "
                f"inputs are {_listed(known)}; correct the name (what is given by position is also "
                "known as arg0, arg1)"
            )
        self._all = frozenset(alias for aliases in self._aliases.values() for alias in aliases)
        self._occurred: set[str] = set()
        self._calls = 0

    def choose(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return those tensors of a call that may be kept, as `named_tensors` calls them."""
        self._calls += 1
        kept: dict[str, torch.Tensor] = {}
        for root, value in (*((f"arg{at}", one) for at, one in enumerate(args)), *kwargs.items()):
            found = named_tensors((), {root: value})
            self._occurred.update(found)
            if found:
                self._occurred.add(root)
            whole = root in self._all
            kept.update({name: one for name, one in found.items() if whole or name in self._all})
        return kept

    def remarks(self) -> tuple[str, ...]:
        """Sentences for the report, about names that have not occurred in any call."""
        if not self._calls:
            return ()
        missing = [
            name for name, aliases in self._aliases.items() if self._occurred.isdisjoint(aliases)
        ]
        if not missing:
            return ()
        return (
            f"captures: {_listed(missing)} of CaptureOptions(inputs=...) has not come as a tensor "
            f"in {self._calls} observed calls, which gave {_listed(sorted(self._occurred))}; where "
            "nothing is left of a row, it is dropped and counted as unsuitable_input",
        )


def _place(name: str) -> int | None:
    """Position that a name like `arg0` stands for."""
    digits = name.removeprefix("arg")
    return int(digits) if digits != name and digits.isascii() and digits.isdigit() else None


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN]) or "none"
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _inputs_of(model: Any) -> _Inputs:
    if is_session(model):
        names = tuple(one.name for one in model.get_inputs())
        return _Inputs((), names, any_position=False, any_name=False)
    if isinstance(model, torch.jit.ScriptModule):
        script: Any = model.forward
        arguments = script.schema.arguments[1:]
        return _Inputs(tuple(one.name for one in arguments), (), False, False)
    forward: Any = unwrap(model).forward if isinstance(model, nn.Module) else model
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):  # written in C, without a signature
        return _Inputs()
    kinds = {one.kind for one in parameters}
    return _Inputs(
        tuple(one.name for one in parameters if one.kind in _BY_POSITION),
        tuple(one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        inspect.Parameter.VAR_KEYWORD in kinds,
    )
