"""The user's model and example inputs, by name; whatever they do wrong becomes one sentence."""

import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

from calidrift_agent.errors import ConfigurationError

_MOST: Final = 10_000
"""Example requests that are read from an iterator."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One call of the model.

    Attributes:
        args: Positional inputs.
        kwargs: Keyword inputs.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is examined.

    Attributes:
        model: Anything that `watch` takes.
        requests: Example requests, at least one.
    """

    model: Any
    requests: tuple[Request, ...]


def load_subject(factory: str, inputs: str | None = None) -> Subject:
    """Build the model and its example inputs, in this process.

    Args:
        factory: `package.module:callable`; called without arguments, returns the model, or the
            model and its example inputs.
        inputs: The same for the example inputs alone; they win over those of the factory. A
            tensor or a tuple of positional inputs or a mapping of keyword inputs; or a list or
            an iterator of these.

    Raises:
        ConfigurationError: A name is no such callable, the user's code raises, or there are no
            inputs.
    """
    model = _called(factory, "the factory")
    given: Any = None
    if isinstance(model, tuple):
        if len(model) != 2:
            raise ConfigurationError(
                f"the factory {factory} returned a tuple of {len(model)}, but must return the "
                "model, or the model and its example inputs"
            )
        model, given = model
    _require_model(model, factory)
    if inputs is not None:
        given = _called(inputs, "--inputs")
    if given is None:
        raise ConfigurationError(
            f"there are no example inputs: let {factory} return (model, inputs), or name a "
            "function that returns them with --inputs package.module:callable"
        )
    return Subject(model, _requests(given, inputs or factory))


def _require_model(model: Any, factory: str) -> None:
    """Refuse what is plainly no model; what kinds of models there are, `watch` knows."""
    if model is None or isinstance(model, list):
        raise ConfigurationError(
            f"the factory {factory} returned {'None' if model is None else 'a list'}, but must "
            "return the model, or a tuple of the model and its example inputs"
        )
    if isinstance(model, Generator | AsyncGenerator):
        raise ConfigurationError(
            f"the factory {factory} yields, but must return the model, or a tuple of the model "
            "and its example inputs; write return instead of yield"
        )
    if isinstance(model, type):
        raise ConfigurationError(
            f"the factory {factory} returned the class {model.__name__}, but must return a model; "
            f"let it return {model.__name__}(...)"
        )


def _called(name: str, what: str) -> Any:
    call = _resolved(name, what)
    try:
        found = call()
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{what} {name} failed: {_told(error)}; it is called without arguments, in this "
            "process: correct it, and try it in Python"
        ) from error
    if isinstance(found, Coroutine):
        found.close()  # otherwise Python warns of it
        raise ConfigurationError(
            f"{what} {name} is an async function, but is called without an event loop; give an "
            "ordinary function, which may use asyncio.run"
        )
    return found


def _resolved(name: str, what: str) -> Callable[[], Any]:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigurationError(
            f"{what} is {name!r}, but must name a callable as package.module:callable"
        )
    if "/" in module_name or module_name.endswith(".py") or module_name.startswith("."):
        raise ConfigurationError(
            f"{what} is {name!r}, which names a file, but must name a callable as "
            f"package.module:callable; run it in the folder that holds the module and write "
            f"{Path(module_name).stem.lstrip('.')}:{attribute}"
        )
    here = str(Path.cwd())
    if here not in sys.path:  # a console script does not look where it was started
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{what} {name}: {module_name} cannot be imported: {_told(error)}; run it in the "
            "folder that holds the module, or install it, and import it in Python to see more"
        ) from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigurationError(
            f"{what} {name}: {module_name} has no callable {attribute!r}; correct the name"
        )
    call: Callable[[], Any] = found
    return call


def _requests(given: Any, name: str) -> tuple[Request, ...]:
    if isinstance(given, AsyncIterator):
        raise ConfigurationError(
            f"the example inputs of {name} come from an asynchronous iterator, which needs an "
            "event loop; give a list, or an ordinary iterator"
        )
    several = isinstance(given, list | Iterator)
    try:
        items = list(islice(given, _MOST)) if several else [given]
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"the example inputs of {name} cannot be read: {_told(error)}"
        ) from error
    if not items:
        raise ConfigurationError(f"{name} gave no example inputs; give at least one")
    return tuple(_request(item) for item in items)


def _request(item: Any) -> Request:
    if isinstance(item, Mapping):
        return Request((), item)
    return Request(item if isinstance(item, tuple) else (item,), {})


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
