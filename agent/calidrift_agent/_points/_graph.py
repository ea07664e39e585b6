"""Running a quantized graph with its quantizers in place or bypassed.

Submodules of an exported graph are empty shells whose hooks never fire, so a graph is observed by
running code that is generated from it. Nothing on the graph is touched: any number of threads may
run one graph.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx._pytree import tree_flatten_spec
from torch.fx.graph import _PyTreeCodeGen

from calidrift_agent._points._modules import Point
from calidrift_agent._points._program import Constants, GraphProgram
from calidrift_agent._points._quantize import (
    QuantizePoint,
    activation_dequantizers,
    is_quantized,
    quantize_nodes,
)
from calidrift_agent.errors import AttachError

Observe = Callable[[int, torch.Tensor], None]
"""Called with the index of a quantizer and the tensor that enters it."""


@final
class QuantizedGraph:
    """A converted PT2E graph whose quantizers can be watched, and left out.

    Two instruments, one graph: with `bypass=False` the tensors that the served graph quantizes
    (the clip instrument), with `bypass=True` what they would be if no activation had been
    quantized before them (the range instrument; weights stay quantized).

    Args:
        graph_module: What `convert_pt2e` returned, or a reloaded ``ExportedProgram.module()``.

    Raises:
        AttachError: The graph has no static activation quantizer.
    """

    __slots__ = (
        "_constants",
        "_dequantizers",
        "_graph_module",
        "_indices",
        "_programs",
        "_quantizers",
    )

    def __init__(self, graph_module: nn.Module) -> None:
        if not isinstance(graph_module, GraphModule) or not is_quantized(graph_module):
            raise AttachError(
                f"{type(graph_module).__name__} has no static activation quantizer "
                "(quantize_per_tensor), so it has no clip ranges; give the graph that "
                "convert_pt2e returned"
            )
        self._graph_module = graph_module
        self._quantizers = quantize_nodes(graph_module)
        self._indices = {point.node: index for index, point in enumerate(self._quantizers)}
        self._dequantizers = activation_dequantizers(graph_module)
        self._constants = Constants(graph_module)
        self._programs: dict[tuple[bool, bool], GraphProgram] = {}

    @property
    def quantizers(self) -> tuple[QuantizePoint, ...]:
        """The quantizers, in the order of the indices that `observe` is called with."""
        return self._quantizers

    @property
    def graph_module(self) -> GraphModule:
        """The graph module itself."""
        return self._graph_module

    @property
    def points(self) -> tuple[Point, ...]:
        """The points of the quantizers, in the same order."""
        return tuple(quantizer.point for quantizer in self._quantizers)

    def run(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        bypass: bool,
        observe: Observe,
        output: bool = True,
    ) -> Any:
        """Run the graph on one input.

        Args:
            args: Positional inputs, as for the graph module itself.
            kwargs: Keyword inputs, in any order.
            bypass: Leave all activation quantizers out.
            observe: Called for each quantizer that runs, before it does, with the tensor that
                enters it, detached. It shares the graph's memory: read or copy it, do not keep it.
            output: Compute the output, too. Without it, what lies behind the last quantizer is
                left out, but for checks of the inputs.

        Returns:
            What the graph module returns, but for the rounding of convolutions, whose weights are
            packed; without gradients. None without `output`.

        Raises:
            TypeError: The inputs do not fit the graph's signature.

        Cost: one eager run of the graph on weights that are dequantized already, and 0.5 us for
        each weight; the first run of each kind generates its code (5 ms) and dequantizes weights,
        of which a copy in float32 is kept (see `Constants`).
        """
        flat = self.flat_inputs(args, kwargs or {})
        found = self._program(bypass=bypass, output=output).run(flat, observe)
        return self._graph_module.graph.process_outputs(found) if output else None

    @property
    def kept_bytes(self) -> int:
        """Memory that dequantized weights take, 256 MiB at most; 0 before the first run.

        With it come copies of weights that were made in inference mode, which count no writes.
        """
        return self._constants.kept_bytes

    def _program(self, *, bypass: bool, output: bool) -> GraphProgram:
        program = self._programs.get((bypass, output))
        if program is None:
            # Two threads may both write it: the same program twice.
            program = self._programs[bypass, output] = GraphProgram(
                self._graph_module,
                self._indices,
                self._dequantizers if bypass else None,
                self._constants,
                output=output,
            )
        return program

    def flat_inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """Return the inputs in the order of the graph's placeholders.

        Raises:
            TypeError: The inputs do not fit the graph's signature.
        """
        bound = inspect.signature(self._graph_module.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        codegen = self._graph_module.graph._codegen
        if not isinstance(codegen, _PyTreeCodeGen):
            return [*bound.args, *bound.kwargs.values()]
        names = codegen.pytree_info.orig_args
        spec = codegen.pytree_info.in_spec
        values = bound.arguments
        if spec.num_children == 2 and spec.type is tuple and spec.child(1).type is dict:
            count = spec.child(0).num_children
            positional = tuple(values[name] for name in names[:count])
            keyword = {name: values[name] for name in spec.child(1).context}
            return tree_flatten_spec((positional, keyword), spec)
        return tree_flatten_spec([values[name] for name in names], spec)
