"""The one thing that a watched model carries: a root `forward` that decides and passes on."""

import copy
import itertools
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, final

from torch import nn
from torch.compiler import is_compiling
from torch.fx import GraphModule

from calidrift_agent._observe._sampling import MASK, NO_DECISIONS

Observe = Callable[[int, tuple[Any, ...], Mapping[str, Any]], Any]
"""Called with the decision and the inputs of a call that is not an ordinary one."""


@final
class CallCounter:
    """Counts calls of any number of threads exactly, without a lock: `next(counter.calls)`."""

    __slots__ = ("_taken", "calls")

    def __init__(self) -> None:
        self.calls = itertools.count()
        self._taken = 0

    def take(self) -> int:
        """Return the calls since the last time; for one reader at a time."""
        # The one way to read an itertools.count without advancing it (advancing would use up a
        # decision): "count(123)", the next number.
        now = int(repr(self.calls)[6:-1])
        calls, self._taken = now - self._taken, now
        return calls


@final
class Gate:
    """Stands in the root module's `__dict__` as `forward`.

    A copy or a pickle of the model holds the original forward, not the gate. Whatever else is
    asked of it (signature, name, code) is answered by the original forward, which is looked up
    anew at each call, so that a replaced class attribute takes effect. (A shallow copy shares
    everything with its original, the gate too: what it is called with runs on the original.)

    Args:
        model: The module to stand in.

    Cost: 0.5 us per call that is not observed, whatever the number of layers.
    """

    __slots__ = (
        "__weakref__",
        "_counter",
        "_found",
        "calls",
        "decisions",
        "model",
        "observe",
        "own",
    )

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._found = model.__dict__.get("forward")
        self.own: Callable[..., Any] | None = (
            None if _is_class_forward(self._found, model) else self._found
        )
        self.decisions = NO_DECISIONS
        self.observe: Observe | None = None
        self.reset()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        # While torch.compile or torch.export traces, the gate must leave no trace in the graph.
        if not is_compiling():
            decision = self.decisions[next(self.calls) & MASK]
            if decision:
                observe = self.observe
                if observe is not None:
                    return observe(decision, args, kwargs)
        own = self.own
        if own is not None:
            return own(*args, **kwargs)
        model = self.model
        return type(model).forward(model, *args, **kwargs)

    def original(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the forward that the gate stands for."""
        if self.own is not None:
            return self.own(*args, **kwargs)
        return type(self.model).forward(self.model, *args, **kwargs)

    @property
    def attached(self) -> bool:
        """Whether the gate still stands in its model."""
        return self.model.__dict__.get("forward") is self

    def attach(self) -> None:
        """Put the gate into the model."""
        self.model.__dict__["forward"] = self

    def detach(self) -> None:
        """Take the gate out, leaving `__dict__` as it was; safe to repeat.

        Where something else was put on top meanwhile, the gate stays below it and passes on.
        """
        self.decisions = NO_DECISIONS
        self.observe = None
        if not self.attached:
            return
        if self._found is not None:
            self.model.__dict__["forward"] = self._found
        else:
            del self.model.__dict__["forward"]

    def take_seen(self) -> int:
        """Return the calls since the last time, exactly; for one reader at a time."""
        return self._counter.take()

    def reset(self) -> None:
        """Count from zero, as the child of a fork must."""
        self._counter = CallCounter()
        self.calls = self._counter.calls

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        if self.own is not None:
            return self.own
        return MethodType(type(self.model).forward, self.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.own is not None:
            return copy.deepcopy(self.own, memo)
        twin = memo.get(id(self.model))
        if twin is None:
            twin = copy.deepcopy(self.model, memo)
        return MethodType(type(twin).forward, twin)

    def __reduce__(self) -> Any:
        if self.own is not None:
            return _same, (self.own,)
        if isinstance(self.model, GraphModule):
            # A graph module pickles its `__dict__` before itself and rebuilds its own forward.
            return _same, (None,)
        return getattr, (self.model, "forward")


def _is_class_forward(found: object, model: nn.Module) -> bool:
    """Whether an instance's forward is no other than that of its class, as in a copied model."""
    return (
        isinstance(found, MethodType)
        and found.__self__ is model
        and found.__func__ is type(model).forward
    )


def _same(value: Any) -> Any:
    return value
