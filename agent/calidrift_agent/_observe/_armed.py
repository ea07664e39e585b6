"""Observing on the live modules: taps that stand there only for the length of a call."""

import copy
import threading
from collections.abc import Callable, Mapping
from threading import get_ident
from types import FunctionType, MethodType
from typing import Any, Final, cast, final

from torch import nn
from torch.compiler import is_compiling

from calidrift_agent._observe._frames import never_compiled
from calidrift_agent._observe._fused import FusedLayer, fused_layer, layer_call
from calidrift_agent._observe._gate import Gate
from calidrift_agent._observe._plan import Leaf, TreePlan
from calidrift_agent._taps import (
    Recorder,
    Tap,
    arm,
    class_forward,
    copied_forward,
    disarm,
    hides_its_instance,
    plain_forward,
)

# What a tap calls may come to stand among frames of the host that are being compiled.
never_compiled(Recorder.observe, Recorder.observe_any, Recorder.observe_input, class_forward)

Calls = dict[int, Recorder]
"""Thread to the recorder of the call that it is observing."""


@final
class _Arming:
    """One lock for all trees, which may share modules, for which a thread never waits on itself.

    A signal handler or a finalizer runs between any two steps of a thread, also while that thread
    puts taps in or takes them out. If it calls a watched model there, that call must go on, and
    not touch the taps either.
    """

    __slots__ = ("_busy", "_lock")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget the lock, which another thread may have held at a fork."""
        self._lock = threading.RLock()
        self._busy = False

    def enter(self) -> bool:
        """Take the lock, or say False where this very thread is in the middle of arming."""
        self._lock.acquire()
        if self._busy:
            self._lock.release()
            return False
        self._busy = True
        return True

    def leave(self) -> None:
        """Give the lock back."""
        self._busy = False
        self._lock.release()


_arming: Final = _Arming()


def renew_lock() -> None:
    """Replace the lock, which another thread may have held at the fork."""
    _arming.renew()


class LiveTap(Tap):
    """The `forward` of a live module while a call of this tree is being observed.

    Calls of other threads pass through (0.2 us). A copy or a pickle made meanwhile holds the
    original forward, and so does code that is compiled meanwhile.
    """

    __slots__ = ("__weakref__",)  # torch.compile keeps references to what it looked at

    def bind(self) -> Callable[..., Any]:
        """Return the forward of the module's class, bound as Python binds it.

        It may be replaced at any time. One that is a plain function is remembered: it is called
        without this, as long as the class has it.
        """
        module = self._module
        self._plain = plain_forward(type(module))
        return cast(Callable[..., Any], class_forward(module))

    def arm(self) -> None:
        """Stand in the module, in front of a forward of its instance if it has one."""
        self.armed = True
        if self._stands():
            return  # still below a tap of another tree: on top of it, both would call each other
        attributes = self._module.__dict__
        self.own = attributes.get("forward")
        self._forward = self.own
        attributes["forward"] = self

    def stand_for(self, forward: Any) -> None:
        """Call `forward` without standing in the module (for an observed root)."""
        self.own = self._forward = forward

    def disarm(self) -> bool:
        """Leave the module as it was; whether this tap may be armed again.

        Not where the host put a forward of its own on top meanwhile, which may call this one.
        """
        self.armed = False
        attributes = self._module.__dict__
        found = attributes.get("forward")
        if found is not self:
            if self._is_foreign(found):
                attributes["forward"] = _behind_taps(found)
            # Below a tap of another tree, which passes it over when it leaves; or lost.
            return self._stands()
        own = self.own
        while isinstance(own, LiveTap) and not own.armed and not self._is_foreign(own):
            own = own.own
        if self._is_foreign(own):
            own = _behind_taps(own)
        if own is None:
            del attributes["forward"]
        else:
            attributes["forward"] = own
            if isinstance(own, Gate) and own.observe is None:
                own.detach()  # a watch of this very module, closed while the tap stood before it
        return True

    def successor(self) -> "LiveTap":
        """Return a tap to be used from now on; this one passes everything on, for ever."""
        successor = type(self)(self._module, self._input, self._output, self._calls)
        self._calls = {}
        return successor

    def _is_foreign(self, found: Any) -> bool:
        """Whether the host read this as the forward of another module, and gave it to this one."""
        return isinstance(found, LiveTap) and found._module is not self._module

    def _stands(self) -> bool:
        """Whether this tap is in the module, on top or below taps of other trees."""
        one = self._module.__dict__.get("forward")
        while isinstance(one, LiveTap):
            if one is self:
                return True
            one = one.own
        return False

    @property
    def __wrapped__(self) -> Any:
        return class_forward(self._module) if self.own is None else self.own

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        # Where a compiled function of the host is given this layer, and compiled at this moment, a
        # tap would be more than torch.compile can follow: as a function with a plain one behind it
        # (the name below is torch's), it takes in that one's lines, and of the tap nothing.
        if is_compiling():
            return FunctionType
        return MethodType if type(self.__wrapped__) is MethodType else type(self)

    @property
    def _torchdynamo_inline(self) -> Any:
        return self.__wrapped__

    def __getattr__(self, name: str) -> Any:
        # Code of the host that looks at a layer's forward (its name, its signature) sees its own.
        return getattr(self.__wrapped__, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.own is not None:
            return copy.deepcopy(self.own, memo)
        twin = memo.get(id(self._module))
        if twin is None:
            twin = copy.deepcopy(self._module, memo)
        return copied_forward(twin)

    def __reduce__(self) -> Any:
        if hides_its_instance(type(self._module)):
            return copied_forward, (self._module,)
        return getattr, (self._module, "forward")


def _behind_taps(found: Any) -> Any:
    """Return what the host would have read, had there been no taps."""
    while isinstance(found, LiveTap):
        found = found.__wrapped__
    return found


@final
class LayerTap(LiveTap):
    """Stands in a layer that may run as one fused kernel, which passes over its submodules.

    Where none of the taps inside fired, the kernel ran: then the layer's input is copied, one row
    of it, and the drain works out what the submodules would have been given.
    """

    __slots__ = ("_layer",)

    def __init__(self, module: nn.Module, layer: FusedLayer, calls: Calls) -> None:
        super().__init__(module, -1, -1, calls)
        self._layer = layer

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """See `LiveTap`."""
        recorder = self._calls.get(get_ident())
        if recorder is None:
            return super().__call__(*args, **kwargs)
        before = recorder.count
        output = super().__call__(*args, **kwargs)
        if recorder.count == before:
            layer = self._layer
            recorder.postpone(lambda: layer_call(layer, args, kwargs, recorder))
        return output

    def successor(self) -> "LayerTap":
        """See `LiveTap`."""
        successor = LayerTap(self._module, self._layer, self._calls)
        self._calls = {}
        return successor


@final
class ArmedTree:
    """The taps of one live tree, armed while at least one of its calls is being observed.

    Taps are `forward` attributes and not hooks: hooks would switch off the fused path of
    `nn.TransformerEncoderLayer`, for this call and for those of other threads, and with it change
    outputs; and they cost 1 us more per module.

    Args:
        plan: The live tree.
        gate: The gate in its root.
    """

    __slots__ = ("_calls", "_gate", "_root_tap", "_taps", "plan")

    def __init__(self, plan: TreePlan, gate: Gate) -> None:
        self.plan = plan
        self._gate = gate
        self._calls: Calls = {}
        taps: list[tuple[nn.Module, LiveTap]] = [
            (node.module, _tap_of(node.module, node.leaf, self._calls))
            for node in plan.nodes
            if node.leaf is not None
        ]
        leaves = {id(node.module): node.leaf for node in plan.nodes if node.leaf is not None}
        for node in plan.nodes:
            layer = fused_layer(node.module, leaves)
            if layer is not None and node.leaf is None:
                taps.append((node.module, LayerTap(node.module, layer, self._calls)))
        # The gate stands where the tap of an observed root would; it is called by hand.
        self._root_tap = next((tap for module, tap in taps if module is plan.root), None)
        self._taps = [tap for module, tap in taps if module is not plan.root]

    @property
    def observing(self) -> bool:
        """Whether this thread is inside an observed call already."""
        return get_ident() in self._calls

    def run(self, recorder: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the live forward behind the gate and observe it.

        Raises:
            Exception: Whatever the model's forward raises, unchanged.
        """
        gate = self._gate
        observed = False
        try:
            observed = self._begin(recorder)
            if observed and self._root_tap is not None:
                self._root_tap.stand_for(gate.original)
                return self._root_tap(*args, **kwargs)
            return gate.original(*args, **kwargs)
        finally:
            if observed:
                self._end()

    def _begin(self, recorder: Recorder) -> bool:
        """Arm the taps for this thread; whether its call is observed now."""
        if not _arming.enter():
            return False
        try:
            # Before anything can fail: what is half armed must be taken out again.
            self._calls[get_ident()] = recorder
            if len(self._calls) == 1:
                arm(self._taps)
        except Exception as error:
            recorder.fail(error)
        finally:
            _arming.leave()
        return True

    def _end(self) -> None:
        if not _arming.enter():
            return
        try:
            self._calls.pop(get_ident(), None)
            if not self._calls:
                self.disarm()
        finally:
            _arming.leave()

    def disarm(self) -> None:
        """Take the taps out; for a call that ends, and for a child of a fork."""
        taps = self._taps
        for index in disarm(taps):
            taps[index] = taps[index].successor()

    def forget_calls(self) -> None:
        """Forget the calls of threads that a fork did not bring along."""
        self._calls.clear()
        self.disarm()


def _tap_of(module: nn.Module, leaf: Leaf, calls: Calls) -> LiveTap:
    return LiveTap(module, leaf.input_point, leaf.output_point, calls)
