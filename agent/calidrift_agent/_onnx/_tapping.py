"""The nodes that read a tensor, to be put right behind the node that makes it.

At the end of the graph they would keep every tensor alive until then (microsoft/onnxruntime#26768).
A small tensor is handed out as it is. A large one is reduced to the extremes of its rows and a
strided sample; only where it holds values that are not finite, or that its quantizer clips, is it
read again, in branches that otherwise do not run. Measured on a ResNet-18 of one row, either way
costs 3 to 5 % of the pass.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import numpy as np

from calidrift_agent._onnx._blueprint import PREFIX
from calidrift_agent._onnx._extra import onnx_package
from calidrift_agent._profile import ClipBound
from calidrift_agent._taps import SamplePlan

ROWS: Final = PREFIX + "rows"
"""Input int64 (2,): rows of the pass, -1."""
PHASE: Final = PREFIX + "phase"
"""Input int64 (1,): a random number, at least 0; where samples begin."""
OLDEST_OPSET: Final = 11
"""Before it, some of the operators used here do not exist."""
_ONE: Final = PREFIX + "one_row"
_FLAT: Final = PREFIX + "flat"
_END: Final = PREFIX + "end"
_FIRST: Final = PREFIX + "first"
_AXIS: Final = PREFIX + "axis"
_ZERO: Final = PREFIX + "zero"
_NONE: Final = PREFIX + "none"
_HIGHEST: Final = PREFIX + "infinity"
_LOWEST: Final = PREFIX + "minus_infinity"
_SHARED: Final = frozenset(
    {_AXIS, _END, _FIRST, _FLAT, _HIGHEST, _LOWEST, _NONE, _ONE, _ZERO, PHASE, ROWS}
)
_KINDS: Final = ("high", "low", "nan", "inf", "broken", "size", "sample")
_CLIPPING: Final = ("clip_low", "clip_high", "clip_energy")


class _Branch(Protocol):
    def __call__(self, *, taken: bool) -> list[Any]: ...


@final
@dataclass(frozen=True, slots=True)
class ReducedTap:
    """How a large tensor is reduced.

    Attributes:
        number: Number of the tap, which names its outputs.
        tensor: The tensor.
        bound: Its clip range, or None.
        plan: How it is sampled.
        by_row: Whether its first dimension is made of the rows of the request.
    """

    number: int
    tensor: str
    bound: ClipBound | None
    plan: SamplePlan
    by_row: bool

    def name(self, what: str) -> str:
        """Name of one of its tensors."""
        return f"{PREFIX}{self.number}/{what}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it hands out: high, low, nan, inf, broken, size, sample, and clipping."""
        kinds = _KINDS if self.bound is None else (*_KINDS, *_CLIPPING)
        return tuple(self.name(what) for what in kinds)


def shape_node(number: int, tensor: str) -> Any:
    """Return the node that hands out a tensor's shape, as `shape_name(number)`."""
    return onnx_package().helper.make_node("Shape", [tensor], [shape_name(number)])


def shape_name(number: int) -> str:
    """Name of the shape of a tap's tensor."""
    return f"{PREFIX}{number}/shape"


def shared_constants() -> list[Any]:
    """Return the constants that the nodes of all reduced taps share."""
    from_array = onnx_package().numpy_helper.from_array
    integers = {_ONE: [1, -1], _FLAT: [-1], _END: [1 << 62], _FIRST: [0], _AXIS: [1]}
    numbers = {_ZERO: 0.0, _HIGHEST: math.inf, _LOWEST: -math.inf}
    return [
        *(from_array(np.array(value, np.int64), name) for name, value in integers.items()),
        *(from_array(np.array(value, np.float32), name) for name, value in numbers.items()),
        from_array(np.array(0, np.int32), _NONE),
    ]


def shared_inputs() -> list[Any]:
    """Return the inputs that the nodes of reduced taps read."""
    onnx = onnx_package()
    return [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [size])
        for name, size in ((ROWS, 2), (PHASE, 1))
    ]


@final
class TapWriter:
    """Writes the nodes of one reduced tap.

    Args:
        tap: The tap.
        opset: Version of the core operators in the model.
    """

    def __init__(self, tap: ReducedTap, opset: int) -> None:
        onnx = onnx_package()
        self._tap = tap
        self._opset = opset
        self._float = onnx.TensorProto.FLOAT
        self._int32 = onnx.TensorProto.INT32
        self._int64 = onnx.TensorProto.INT64
        self._helper = onnx.helper

    def nodes(self) -> list[Any]:
        """Return the nodes, in an order of execution."""
        tap = self._tap
        nodes = [
            self._node("Cast", [tap.tensor], "values", to=self._float),
            self._node("Reshape", ["values", ROWS if tap.by_row else _ONE], "rows"),
            self._reduce("ReduceMax", "rows", "raw_high", by_row=True),
            self._reduce("ReduceMin", "rows", "raw_low", by_row=True),
            # Extremes pass over NaN, sums do not.
            self._reduce("ReduceSumSquare", "rows", "energy"),
            self._node("IsNaN", ["energy"], "is_nan"),
            self._node("IsInf", ["energy"], "is_inf"),
            self._node("Or", ["is_nan", "is_inf"], "suspect"),
            self._branch("suspect", ("high", "low", "nan", "inf", "broken"), self._nonfinite),
            self._node("Size", [tap.tensor], "size"),
            self._node("Reshape", ["values", _FLAT], "flat"),
            self._node("Mod", [PHASE, "stride"], "start"),
            self._node("Slice", ["flat", "start", _END, _FIRST, "stride"], "sample"),
        ]
        if tap.bound is not None:
            nodes += [
                self._reduce("ReduceMax", "high", "highest"),
                self._reduce("ReduceMin", "low", "lowest"),
                self._node("Greater", ["highest", "limit_high"], "is_above"),
                self._node("Less", ["lowest", "limit_low"], "is_below"),
                self._node("Or", ["is_above", "is_below"], "clipped"),
                self._branch(
                    "clipped", ("clip_low", "clip_high", "clip_energy"), self._beyond_range
                ),
            ]
        return nodes

    def constants(self) -> list[Any]:
        """Return the constants that only these nodes read."""
        make, name, bound = self._helper.make_tensor, self._tap.name, self._tap.bound
        found = [make(name("stride"), self._int64, [1], [self._tap.plan.stride])]
        if bound is not None:
            values = {
                "bound_low": bound.lo,
                "bound_high": bound.hi,
                "limit_low": bound.lo - bound.scale / 2,
                "limit_high": bound.hi + bound.scale / 2,
            }
            found += [make(name(what), self._float, [], [one]) for what, one in values.items()]
        return found

    def _nonfinite(self, *, taken: bool) -> list[Any]:
        if not taken:
            return [
                self._node("Identity", ["raw_high"], "high"),
                self._node("Identity", ["raw_low"], "low"),
                self._node("Identity", [_NONE], "nan"),
                self._node("Identity", [_NONE], "inf"),
                self._node("Sub", ["raw_high", "raw_high"], "broken"),
            ]
        return [
            self._node("IsNaN", ["rows"], "nans"),
            self._node("IsInf", ["rows"], "infs"),
            self._node("Or", ["nans", "infs"], "bad"),
            self._node("Where", ["bad", _LOWEST, "rows"], "for_high"),
            self._reduce("ReduceMax", "for_high", "high", by_row=True),
            self._node("Where", ["bad", _HIGHEST, "rows"], "for_low"),
            self._reduce("ReduceMin", "for_low", "low", by_row=True),
            *self._count("nans", "nan"),
            *self._count("infs", "inf"),
            self._node("Cast", ["bad"], "bad_number", to=self._float),
            self._reduce("ReduceMax", "bad_number", "broken", by_row=True),
        ]

    def _beyond_range(self, *, taken: bool) -> list[Any]:
        if not taken:
            return [
                self._node("Identity", [_NONE], "clip_low"),
                self._node("Identity", [_NONE], "clip_high"),
                self._node("Identity", [_ZERO], "clip_energy"),
            ]
        nodes: list[Any] = []
        for side, outside, inside in (("low", "Less", "Greater"), ("high", "Greater", "Less")):
            end = _LOWEST if side == "low" else _HIGHEST
            nodes += [
                self._node(outside, ["rows", f"limit_{side}"], f"out_{side}"),
                self._node(inside, ["rows", end], f"finite_{side}"),
                self._node("And", [f"out_{side}", f"finite_{side}"], f"cut_{side}"),
                *self._count(f"cut_{side}", f"clip_{side}"),
                self._node("Sub", ["rows", f"bound_{side}"], f"distance_{side}"),
                self._node("Where", [f"cut_{side}", f"distance_{side}", _ZERO], f"lost_{side}"),
                self._reduce("ReduceSumSquare", f"lost_{side}", f"energy_{side}"),
            ]
        return [*nodes, self._node("Add", ["energy_low", "energy_high"], "clip_energy")]

    def _branch(self, condition: str, outputs: tuple[str, ...], write: _Branch) -> Any:
        """An If whose costly branch runs only where there is something to count."""
        name = self._tap.name
        integers = {"nan", "inf", "clip_low", "clip_high"}
        bodies = {}
        for branch, taken in (("then_branch", True), ("else_branch", False)):
            nodes = write(taken=taken)
            own = {node.output[0]: f"{node.output[0]}/{branch}" for node in nodes}
            for node in nodes:
                node.input[:] = [own.get(one, one) for one in node.input]
                node.output[:] = [own[node.output[0]]]
            infos = [
                self._helper.make_tensor_value_info(
                    own[name(what)], self._int32 if what in integers else self._float, None
                )
                for what in outputs
            ]
            bodies[branch] = self._helper.make_graph(nodes, branch, [], infos)
        return self._helper.make_node(
            "If", [name(condition)], [name(what) for what in outputs], **bodies
        )

    def _count(self, mask: str, output: str) -> list[Any]:
        return [
            self._node("Cast", [mask], f"{output}_ones", to=self._int32),
            self._reduce("ReduceSum", f"{output}_ones", output),
        ]

    def _reduce(self, operation: str, value: str, output: str, *, by_row: bool = False) -> Any:
        """Reduce over everything but the rows, or over everything."""
        since = 13 if operation == "ReduceSum" else 18
        inputs, axes = [value], {}
        if by_row and self._opset >= since:
            inputs.append(_AXIS)
        elif by_row:
            axes = {"axes": [1]}
        return self._node(operation, inputs, output, keepdims=0, **axes)

    def _node(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        name = self._tap.name
        given = [one if one in self._foreign() else name(one) for one in inputs]
        return self._helper.make_node(operation, given, [name(output)], **attributes)

    def _foreign(self) -> frozenset[str]:
        return _SHARED | {self._tap.tensor}
