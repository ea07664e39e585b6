"""Which parameters of a model's forward say something about the others: masks and caches."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import nn

from calidrift_agent._points._modules import unwrap

CACHES: Final = ("past_key_values", "past_key_value", "cache_params")
"""Names by which models call what a decode step carries, most common first."""
MASK: Final = "attention_mask"
_USE_CACHE: Final = "use_cache"
_BY_NAME: Final = (
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


@final
@dataclass(frozen=True, slots=True)
class ForwardSignature:
    """Where a forward takes its attention mask and its cache.

    Attributes:
        positions: Parameter to its place among the positional inputs.
        cache: Name of the parameter that takes the cache; "" where there is none.
        has_switch: Whether there is a parameter `use_cache`.
    """

    positions: Mapping[str, int] = field(default_factory=dict)
    cache: str = ""
    has_switch: bool = False

    @classmethod
    def of(cls, model: object) -> "ForwardSignature":
        """Read the signature of a model, or of any other callable.

        Example:
            >>> ForwardSignature.of(lambda input_ids, past_key_values=None: None).cache
            'past_key_values'
        """
        forward: Any = unwrap(model).forward if isinstance(model, nn.Module) else model
        try:
            parameters = list(inspect.signature(forward).parameters.values())
        except (TypeError, ValueError):  # not written in Python
            return cls()
        places = [one.name for one in parameters if one.kind not in _BY_NAME]
        names = {one.name for one in parameters}
        cache = next((name for name in CACHES if name in names), "")
        # A wrapper that passes everything on (`forward(*args, **kwargs)`) says nothing.
        passes_on = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
        if not cache and passes_on and _generates(model):
            cache = CACHES[0]
        positions = {name: place for place, name in enumerate(places)}
        return cls(MappingProxyType(positions), cache, _USE_CACHE in names)

    @property
    def decodes(self) -> bool:
        """Whether calls may be decode steps of one request."""
        return bool(self.cache)

    def argument(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what a call gives for a parameter, None where it gives nothing."""
        value = kwargs.get(name)
        if value is None and args:
            place = self.positions.get(name, len(args))
            return args[place] if place < len(args) else None
        return value

    def cache_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the cache that a call carries, empty or not; None without one.

        A name that the signature does not have is found too, if it is one of `CACHES`.
        """
        if self.cache:
            return self.argument(self.cache, args, kwargs)
        return next((kwargs[name] for name in CACHES if kwargs.get(name) is not None), None)

    def without_cache(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the inputs of a call without its cache, asking for none in return."""
        place = self.positions.get(self.cache, len(args))
        if place < len(args):
            args = (*args[:place], None, *args[place + 1 :])
        kwargs = {name: value for name, value in kwargs.items() if name not in CACHES}
        if self.has_switch:
            place = self.positions.get(_USE_CACHE, len(args))
            if place < len(args):
                args = (*args[:place], False, *args[place + 1 :])
            else:
                kwargs[_USE_CACHE] = False
        return args, kwargs


def cached_length(cache: Any) -> int:
    """Return how many positions a cache holds; 1 where it does not say.

    Nor is it asked where only another device knows: the host would have to wait for it.

    Cost: 0.5 us for a cache of Hugging Face's.
    """
    length = getattr(cache, "get_seq_length", None)
    if length is None:
        return len(cache) if isinstance(cache, (tuple, list, dict)) else 1
    try:
        found = length()
        return 1 if isinstance(found, torch.Tensor) and not found.is_cpu else int(found)
    except Exception:  # a cache of layers that keep a state and no positions
        return 1


def _generates(model: object) -> bool:
    return callable(getattr(model, "generate", None))
