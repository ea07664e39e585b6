"""FP32 model to q/dq graph: prepared once, converted once per set of ranges."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import nn
from torch.fx import GraphModule

from calidrift_agent._points import observer_nodes
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.backend._export import export_graph, first_tensor
from calidrift_analyzer.backend._plan import drop_dead_weights
from calidrift_analyzer.errors import ContractError, NoDataError
from calidrift_analyzer.ranges import Codes, Estimator, Range, estimate_range

__all__ = ["PreparedModel", "quantize"]

_PARITY: Final = 1e-3
"""Largest accepted difference between FP32 and the prepared graph, relative to the output's rms.

Folding BatchNorm costs about 1e-6; a weight that was folded twice is wrong in the first digit.
"""


@final
class PreparedModel:
    """A float model with observers in it, ready to be converted for any set of ranges.

    The model is exported with a variable number of rows, BatchNorm is folded, convolution and
    linear layers with their fused neighbours are planned in INT8 (u8 per-tensor activations, s8
    per-channel weights), and the result is compared with the model it came from.

    Args:
        model: The FP32 model; a copy is put into eval mode, the model itself is left alone.
        inputs: Positional example inputs.
        reduce_range: Activations 0..127 instead of 0..255; by default where the CPU lacks VNNI.

    Raises:
        ContractError: The model cannot be exported, has nothing to quantize, gives NaN or infinity
            on its own example inputs, or changes when BatchNorm is folded.

    Cost: about 0.5 s for a small CNN, plus 2 s for the first import of torchao.
    """

    def __init__(
        self, model: nn.Module, inputs: Sequence[Any], *, reduce_range: bool | None = None
    ) -> None:
        from calidrift_analyzer.backend import _quantizer

        reduced = _quantizer.reduces_range() if reduce_range is None else reduce_range
        self._inputs = tuple(inputs)
        self._codes = Codes(0, 127 if reduced else 255)
        evaluated = copy.deepcopy(model).eval().requires_grad_(False)
        self._float = export_graph(evaluated, inputs)
        with torch.no_grad():
            self._prepared = _quantizer.prepare(
                export_graph(evaluated, inputs), reduce_range=reduced
            )
            wanted = first_tensor(evaluated(*inputs))
            given = first_tensor(self._prepared(*inputs))
        _require_parity(wanted, given)
        if not self.points:
            raise ContractError(
                f"{type(model).__name__} has no convolution or linear layer that can be quantized; "
                "INT8 recalibration needs at least one"
            )

    @property
    def codes(self) -> Codes:
        """Codes of the activation quantizers."""
        return self._codes

    @property
    def float_graph(self) -> GraphModule:
        """The exported FP32 model: the baseline."""
        return self._float

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the quantized tensors, in the order of the graph."""
        return tuple(observed.point.name for observed in observer_nodes(self._prepared))

    def estimate(
        self, sketches: Mapping[str, MagnitudeSketch], estimator: Estimator
    ) -> dict[str, Range]:
        """Estimate the range of every point from its sketch.

        Points that share one quantizer are estimated from the sum of their sketches.

        Args:
            sketches: Sketch of each point, measured with the range instrument.
            estimator: How.

        Raises:
            NoDataError: A point has no sketch, or one without a finite value.
        """
        from calidrift_analyzer.backend import _quantizer

        ranges: dict[str, Range] = {}
        for points, _ in _quantizer.observer_groups(self._prepared):
            merged = MagnitudeSketch()
            for name in points:
                sketch = sketches.get(name)
                if sketch is None or not sketch.count:
                    raise NoDataError(
                        f"the point {name} has no finite values to estimate a range from; let the "
                        "agent observe more traffic, or give samples"
                    )
                merged.merge(sketch)
            ranges.update(dict.fromkeys(points, estimate_range(merged, estimator, self._codes)))
        return ranges

    def convert(self, ranges: Mapping[str, Range] | None = None) -> GraphModule:
        """Make the q/dq graph for a set of ranges.

        Args:
            ranges: Range of every point. Without, every range is [-1, 1]: such a graph serves only
                as a range instrument, with its activation quantizers bypassed.

        Returns:
            A new graph, without float copies of its INT8 weights.

        Raises:
            ContractError: A point has no range.

        Cost: 0.1 s for a small CNN.
        """
        from calidrift_analyzer.backend import _quantizer

        given = dict.fromkeys(self.points, Range(-1.0, 1.0)) if ranges is None else ranges
        pairs = {name: (one.lo, one.hi) for name, one in given.items()}
        graph = drop_dead_weights(_quantizer.convert(self._prepared, pairs))
        return graph.requires_grad_(False)


def quantize(
    model: nn.Module,
    inputs: Sequence[Any],
    ranges: Mapping[str, Range] | Mapping[str, MagnitudeSketch],
    estimator: Estimator = Estimator.MSE,
) -> GraphModule:
    """Quantize a model in this process, with given ranges or with ranges estimated from sketches.

    Importing torchao changes Inductor for the whole process; the stages do this in a child.

    Args:
        model: The FP32 model.
        inputs: Positional example inputs.
        ranges: Range or sketch of every quantized point.
        estimator: How ranges are estimated from sketches.

    Returns:
        The q/dq graph.

    Raises:
        ContractError: See `PreparedModel` and `PreparedModel.convert`.
        NoDataError: See `PreparedModel.estimate`.
    """
    prepared = PreparedModel(model, inputs)
    given = {name: one for name, one in ranges.items() if isinstance(one, Range)}
    sketches = {name: one for name, one in ranges.items() if isinstance(one, MagnitudeSketch)}
    return prepared.convert(given if given else prepared.estimate(sketches, estimator))


def _require_parity(wanted: torch.Tensor, given: torch.Tensor) -> None:
    if not bool(torch.isfinite(wanted).all()):
        raise ContractError(
            "the FP32 model gives NaN or infinity on its own example inputs; give inputs of the "
            "kind that it serves, and check its weights"
        )
    scale = float(wanted.double().square().mean().sqrt()) or 1.0
    difference = float((wanted.double() - given.double()).abs().max()) / scale
    if difference > _PARITY:
        raise ContractError(
            f"folding BatchNorm changes the output by {difference:.2g} of its size (at most "
            f"{_PARITY:g} is accepted); a convolution that is called twice before two different "
            "BatchNorms cannot be folded: give each call its own layer"
        )
