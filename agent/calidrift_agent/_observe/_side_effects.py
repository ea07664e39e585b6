"""What an operation does beside computing: draw random numbers, write to its arguments.

Read from schemas, so that it serves a graph that is only looked at (arguments are nodes) and a
pass that is running (arguments are tensors).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

_SWITCHES: Final = ("train", "training")
_PROBABILITIES: Final = ("dropout_p", "p")
_STATISTICS: Final = ("running_mean", "running_var")


def draws_random_numbers(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation advances a random generator; switched-off dropout does not.

    Example:
        >>> dropout = torch.ops.aten.dropout.default
        >>> draws_random_numbers(dropout, ("x", 0.5, True), {})
        True
        >>> draws_random_numbers(dropout, ("x", 0.5, False), {})
        False
    """
    if torch.Tag.nondeterministic_seeded not in getattr(operation, "tags", ()):
        return False
    given = dict(_arguments(operation, args, kwargs))
    off = any(given.get(name) is False for name in _SWITCHES)
    return not (off or any(given.get(name) == 0 for name in _PROBABILITIES))


def written(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments that an operation writes to.

    Batch normalization in training mode writes to its running statistics without its schema
    saying so.
    """
    schema = getattr(operation, "_schema", None)
    if schema is None:
        return []
    given = dict(_arguments(operation, args, kwargs))
    found = [
        given[argument.name]
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if "batch_norm" in schema.name and given.get("training") is True:
        found.extend(given[name] for name in _STATISTICS if given.get(name) is not None)
    return found


def views_of(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments whose memory the result may share."""
    schema = getattr(operation, "_schema", None)
    if schema is None:
        return []
    given = dict(_arguments(operation, args, kwargs))
    return [given[one.name] for one in schema.arguments if one.alias_info is not None]


def _arguments(
    operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    schema = getattr(operation, "_schema", None)
    if schema is None:
        return
    for position, argument in enumerate(schema.arguments):
        if position < len(args):
            yield argument.name, args[position]
        else:
            yield argument.name, kwargs.get(argument.name, argument.default_value)
