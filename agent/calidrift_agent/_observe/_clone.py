"""A shallow clone of a module tree with taps, which nobody else can see.

For shadow passes of compiled models: taps on the live modules would fail the guards of the
compiled code and make it compile again.
"""

from collections.abc import Mapping
from typing import Any, Final, final

from torch import nn

from calidrift_agent._observe._plan import Leaf, Node, TreePlan
from calidrift_agent._taps import Recorder

_set_attribute: Final = object.__setattr__


@final
class Slot:
    """Where the taps of one tree find the recorder of the running call."""

    __slots__ = ("recorder",)

    def __init__(self) -> None:
        self.recorder: Recorder | None = None


@final
class CloneTap:
    """The `forward` of an observed module in a clone."""

    __slots__ = ("_leaf", "_module", "_slot")

    def __init__(self, module: nn.Module, leaf: Leaf, slot: Slot) -> None:
        self._module = module
        self._leaf = leaf
        self._slot = slot

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        recorder = self._slot.recorder
        leaf = self._leaf
        module = self._module
        if recorder is not None and leaf.input_point >= 0:
            recorder.observe_input(leaf.input_point, args, kwargs)
        output = type(module).forward(module, *args, **kwargs)
        if recorder is not None and leaf.output_point >= 0:
            recorder.observe(leaf.output_point, output)
        return output


@final
class TreeClone:
    """A clone of the nodes of a plan; everything else is shared with the live tree.

    Parameters, buffers and hooks live in dictionaries that clone and module share, so `.to()`
    and `load_state_dict` reach the clone by themselves; plain attributes are copied by `refresh`
    before each call. One call at a time.

    Args:
        plan: The live tree.

    Cost: 1.5 us per node to make, 0.3 us (caches cold: 1 us) per node to refresh.
    """

    __slots__ = ("_parts", "_root", "_slot", "plan")

    def __init__(self, plan: TreePlan) -> None:
        self.plan = plan
        self._slot = Slot()
        clones: dict[int, nn.Module] = {}
        self._parts: list[_Part] = []
        for node in plan.nodes:
            clone = object.__new__(node.kind)
            clones[id(node.module)] = clone
            children = {
                name: clones.get(id(child), child)
                for name, child in zip(node.names, node.children, strict=True)
            }
            extra: dict[str, Any] = {"_modules": children}
            if node.leaf is not None:
                extra["forward"] = CloneTap(clone, node.leaf, self._slot)
            self._parts.append(_Part(node, clone, extra))
        self._root = clones[id(plan.root)]

    def refresh(self) -> None:
        """Copy the live plain attributes."""
        root = self._root
        for part in self._parts:
            attributes = part.live.copy()
            if part.clone is root:
                attributes.pop("forward", None)
            attributes.update(part.extra)
            _set_attribute(part.clone, "__dict__", attributes)

    def run(self, recorder: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the clone's forward and observe it.

        Raises:
            Exception: Whatever the model's forward raises, unchanged.
        """
        root = self._root
        self._slot.recorder = recorder
        try:
            # Not `root(...)`: hooks of the live root run around the gate already.
            forward = root.__dict__.get("forward")
            if forward is not None:
                return forward(*args, **kwargs)
            return type(root).forward(root, *args, **kwargs)
        finally:
            self._slot.recorder = None


@final
class _Part:
    """A clone beside the module that it follows."""

    __slots__ = ("clone", "extra", "live")

    def __init__(self, node: Node, clone: nn.Module, extra: dict[str, Any]) -> None:
        self.live = node.live
        self.clone = clone
        self.extra = extra
