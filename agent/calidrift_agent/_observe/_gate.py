"""The one thing that a watched model carries: a callable that decides and passes on."""

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, Final, cast, final

from torch.compiler import is_compiling, is_dynamo_compiling, is_exporting
from torch.fx import GraphModule

from calidrift_agent._observe._frames import (
    apart,
    as_before,
    compiler_of_frames,
    never_compiled,
    not_compiled,
)
from calidrift_agent._observe._sampling import MASK, NO_DECISIONS
from calidrift_agent._taps import (
    class_forward,
    copied_forward,
    function_modes,
    hides_its_instance,
    plain_forward,
)

Observe = Callable[[int, tuple[Any, ...], Mapping[str, Any]], Any]
"""Called with the decision and the inputs of a call that is not an ordinary one."""


FORWARD: Final = "forward"
"""The attribute that `nn.Module.__call__` looks up."""
_SELF: Final = "__self__"
"""What torch.compile asks a method for when it takes in its lines."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """Where a gate stands.

    Attributes:
        owner: The object whose calls are observed; it must have a `__dict__`, unless there is no
            attribute.
        attribute: Name of the attribute that is replaced in the owner's `__dict__`; None where
            nothing can be replaced: then calls go through the gate itself (`Watch.__call__`).
    """

    owner: Any
    attribute: str | None = FORWARD


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
    """Stands in the `__dict__` of what is watched, by default as `forward` of a root module.

    A copy or a pickle of the model holds the original, not the gate. Whatever else is asked of it
    (signature, name, code) is answered by the original. The forward of a module's class is looked
    up anew at each call, so that a replaced class attribute takes effect; what stands behind any
    other attribute is taken when the gate is made. (A shallow copy shares everything with its
    original, the gate too: what it is called with runs on the original.)

    Args:
        owner: The module or other object to stand in.
        attribute: The attribute to stand for; None for a callable that cannot be replaced, for
            which the gate is called by hand.

    Attributes:
        traced: Called when code of the model is compiled into that of something else, so that
            calls from there will not be seen; may be called more than once, in any thread.

    Cost: 0.5 us per call that is not observed, whatever the number of layers.
    """

    # `__dict__` stays empty: code that calls the owner from inside torch.compile is guarded on it.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_attribute",
        "_counter",
        "_found",
        "_ordinary",
        "calls",
        "decisions",
        "observe",
        "own",
        "owner",
        "traced",
    )

    def __init__(self, owner: Any, attribute: str | None = FORWARD) -> None:
        self.owner = owner
        self._attribute = attribute
        self._found = None if attribute is None else owner.__dict__.get(attribute)
        self.own: Callable[..., Any] | None
        if attribute == FORWARD and hasattr(type(owner), FORWARD):  # TorchScript's class has none
            self.own = None if _is_class_forward(self._found, owner) else self._found
        else:
            self.own = owner if attribute is None else getattr(owner, attribute)
        # The owner and the forward of its class, where that is known to be a plain function and
        # `own` is None: the ordinary case, and the shortest. (One attribute: each costs 20 ns.)
        plain = plain_forward(type(owner)) if self.own is None else None
        self._ordinary: tuple[Any, Callable[..., Any]] | None = plain and (owner, plain)
        self.decisions = NO_DECISIONS
        self.observe: Observe | None = None
        self.traced: Callable[[], None] | None = None
        self.reset()

    @not_compiled
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        # Traced by torch.compile, the gate must leave nothing in the graph. (Not `is_compiling`,
        # which is true for all threads while one of them compiles.)
        if not is_dynamo_compiling():
            decision = self.decisions[next(self.calls) & MASK]
            if decision:
                observe = self.observe
                if observe is not None:
                    if compiler_of_frames() is None and not function_modes():
                        return observe(decision, args, kwargs)
                    return apart(observe, decision, args, kwargs)
        ordinary = self._ordinary
        if ordinary is not None:
            owner, forward = ordinary
            if type(owner).forward is forward:
                return forward(owner, *args, **kwargs)
        own = self.own
        return (self._bind() if own is None else own)(*args, **kwargs)

    def _bind(self) -> Callable[..., Any]:
        """Return the forward of the owner's class as Python binds it; it may change any time."""
        owner = self.owner
        plain = plain_forward(type(owner))
        known = None if self._ordinary is None else self._ordinary[1]
        if plain is not known:  # written only then: torch.compile may be tracing this
            self._ordinary = None if plain is None else (owner, plain)
        return cast(Callable[..., Any], class_forward(owner))

    def original(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the forward that the gate stands for."""
        own, owner = self.own, self.owner
        if own is not None:
            return as_before(own, (), args, kwargs)
        ordinary = self._ordinary
        if ordinary is not None and type(owner).forward is ordinary[1]:
            return as_before(ordinary[1], (owner,), args, kwargs)
        return as_before(self._bind(), (), args, kwargs)

    @property
    def attached(self) -> bool:
        """Whether the gate still stands where it was put; without an attribute it always does."""
        return self._attribute is None or self.owner.__dict__.get(self._attribute) is self

    @property
    def passed_by(self) -> bool:
        """Whether its owner answers the attribute with something else although the gate is there.

        A property or a `__getattribute__` of its class is asked for that, as a call would.
        """
        if self._attribute is None or not self.attached:
            return False
        try:
            return getattr(self.owner, self._attribute) is not self
        except Exception:
            return True

    def attach(self) -> None:
        """Put the gate into its owner."""
        if self._attribute is not None:
            self.owner.__dict__[self._attribute] = self

    def detach(self) -> None:
        """Take the gate out, leaving `__dict__` as it was; safe to repeat.

        Where something else was put on top meanwhile, the gate stays below it and passes on.
        """
        # In this order: who fills the gate looks at `observe` last.
        self.observe = None
        self.decisions = NO_DECISIONS
        if self._attribute is None or not self.attached:
            return
        if self._found is not None:
            self.owner.__dict__[self._attribute] = self._found
        else:
            del self.owner.__dict__[self._attribute]

    def take_seen(self) -> int:
        """Return the calls since the last time, exactly; for one reader at a time."""
        return self._counter.take()

    def reset(self) -> None:
        """Count from zero, as the child of a fork must."""
        self._counter = CallCounter()
        self.calls = self._counter.calls

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        own: Callable[..., Any] = class_forward(self.owner) if self.own is None else self.own
        return own

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        # Of a forward that is no method (a function, an object), nothing is to be found behind it.
        return MethodType if type(self.__wrapped__) is MethodType else Gate

    def __getattr__(self, name: str) -> Any:
        if name == _SELF and self.traced is not None and is_compiling() and not is_exporting():
            self.traced()
        return getattr(self.__wrapped__, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.own is not None:
            return copy.deepcopy(self.own, memo)
        twin = memo.get(id(self.owner))
        if twin is None:
            twin = copy.deepcopy(self.owner, memo)
        return copied_forward(twin)

    def __reduce__(self) -> Any:
        if self.own is not None:
            return _same, (self.own,)
        if isinstance(self.owner, GraphModule):
            # A graph module pickles its `__dict__` before itself and rebuilds its own forward.
            return _same, (None,)
        if hides_its_instance(type(self.owner)):
            return copied_forward, (self.owner,)
        return getattr, (self.owner, FORWARD)


never_compiled(Gate._bind, class_forward)


def _is_class_forward(found: object, model: object) -> bool:
    """Whether an instance's forward is no other than that of its class, as in a copied model."""
    return (
        isinstance(found, MethodType)
        and found.__self__ is model
        and found.__func__ is getattr(type(model), FORWARD, None)
    )


def _same(value: Any) -> Any:
    return value
