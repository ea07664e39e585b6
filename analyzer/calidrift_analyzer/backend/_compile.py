"""Compiling with Inductor freezing, and running what was compiled for a fixed number of rows."""

import sysconfig
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from calidrift_analyzer.backend._export import rows_of
from calidrift_analyzer.backend._kernels import count_kernels
from calidrift_analyzer.backend._plan import planned_layers
from calidrift_analyzer.errors import ToolchainError
from calidrift_analyzer.records import KernelReport

__all__ = ["CompiledInt8", "FixedRows", "compile_float", "compile_int8", "require_compiler"]


@final
@dataclass(frozen=True, slots=True)
class CompiledInt8:
    """A compiled q/dq graph.

    Attributes:
        module: What to serve: a `torch.compile`d module, already compiled for the example inputs.
        kernels: The INT8 kernels that its code runs, against the plan.
    """

    module: nn.Module
    kernels: KernelReport


def require_compiler() -> None:
    """Check that Inductor can compile C++ here; call it before work that ends in compiling.

    Raises:
        ToolchainError: There is no working C++ compiler, or no `Python.h`.
    """
    import torch._inductor.config as inductor
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError) as error:
        raise ToolchainError(
            f"no C++ compiler works here (tried {inductor.cpp.cxx[-1]!r}); INT8 kernels are "
            "compiled on this machine: install one (Debian: apt-get install g++) or name one in "
            "the variable CXX"
        ) from error
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise ToolchainError(
            f"the header {header} is missing; compiled kernels are loaded into Python, so install "
            "the headers of this Python (Debian: apt-get install python3-dev)"
        )


def compile_int8(
    graph: GraphModule, inputs: Sequence[Any], *, freezing: bool = True
) -> CompiledInt8:
    """Compile a q/dq graph to INT8 kernels for the number of rows of `inputs`.

    Another number of rows compiles again (seconds). Shapes stay static on purpose: with a symbolic
    number of rows Inductor 2.13 assumes contiguous outputs of onednn.qconv_pointwise where it gets
    channels-last ones, and one-channel images give wrong results.

    Freezing is switched on for the whole process and stays on, and the module always runs without
    gradients: a later compilation without either (another number of rows, a caller that forgot
    `torch.no_grad()`) would run in float, and nobody would notice.

    Args:
        graph: The q/dq graph, as `quantize` returns it or `load_graph` reads it.
        inputs: Positional example inputs.
        freezing: False only to prove that the kernel count notices its absence.

    Returns:
        The compiled module and its kernel report. Check `kernels.complete` before serving it.

    Raises:
        ToolchainError: There is no C++ compiler.
        ContractError: The graph is not quantized.

    Cost: 5 s for the first small CNN in a fresh process (16 s on a machine that never compiled),
    0.5 s for the next candidate of the same model.
    """
    # The fusion passes of x86 are registered by this import; without them nothing is INT8.
    from calidrift_analyzer.backend import _quantizer  # noqa: F401

    plan = planned_layers(graph)
    module, generated = _compile(graph, inputs, freezing=freezing)
    return CompiledInt8(module, count_kernels(plan, generated, lambda: module(*inputs)))


def compile_float(model: nn.Module, inputs: Sequence[Any]) -> nn.Module:
    """Compile an FP32 graph in the same way: the baseline that INT8 latency is compared with."""
    return _compile(model, inputs, freezing=True)[0]


def _compile(
    model: nn.Module, inputs: Sequence[Any], *, freezing: bool
) -> tuple[nn.Module, list[ModuleType]]:
    import torch._inductor.config as inductor
    from torch._inductor.codecache import PyCodeCache

    require_compiler()
    inductor.freezing = freezing
    compiled: nn.Module = torch.compile(model, dynamic=False, fullgraph=True)  # type: ignore[assignment]
    compiled.forward = torch.no_grad()(compiled.forward)
    before = len(PyCodeCache.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(*inputs)
    return compiled, PyCodeCache.modules[before:]


@final
class FixedRows(nn.Module):
    """Runs any number of rows through a module compiled for one number of rows.

    Batches are cut into pieces of that size and the last piece is filled up with its own first
    row, so that one compilation serves an evaluation with batches of every size. Correct for models
    whose rows do not look at each other (no model in eval mode does).

    Args:
        module: The compiled module.
        inputs: The inputs it was compiled for.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Any]) -> None:
        super().__init__()
        # In a tuple, so that `eval()` does not reach exported graphs, which refuse it.
        self._module = (module,)
        self._rows = rows_of(inputs)

    def forward(self, *inputs: Any) -> Any:
        """Same result as the module's own forward on all rows at once."""
        rows = rows_of(inputs)
        pieces = []
        with torch.no_grad():
            for start in range(0, rows, self._rows):
                count = min(self._rows, rows - start)
                filled = [
                    _piece(one, start, count, self._rows) if isinstance(one, Tensor) else one
                    for one in inputs
                ]
                output = self._module[0](*filled)
                pieces.append(pytree.tree_map(lambda leaf, n=count: _cut(leaf, n), output))
        return pytree.tree_map(_join, pieces[0], *pieces[1:])


def _piece(tensor: Tensor, start: int, count: int, rows: int) -> Tensor:
    piece = tensor[start : start + count]
    if count == rows:
        return piece
    return torch.cat([piece, piece[:1].expand(rows - count, *piece.shape[1:])])


def _cut(leaf: Any, count: int) -> Any:
    return leaf[:count] if isinstance(leaf, Tensor) and leaf.dim() else leaf


def _join(*leaves: Any) -> Any:
    return torch.cat(leaves) if isinstance(leaves[0], Tensor) and leaves[0].dim() else leaves[0]
