"""Proof of INT8: the kernels in the generated code, layer by layer, against the plan.

Nothing else shows it. Without freezing the compiled q/dq graph computes in float, its output equals
the INT8 one to five decimals, and it is faster than FP32 eager: neither accuracy nor latency tells.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, final

from torch import Tensor

from calidrift_analyzer.backend._plan import PlannedLayer, scale_bytes
from calidrift_analyzer.records import KernelReport, LayerKernels, LayerKind

__all__ = ["count_kernels"]

_OPERATION: Final = re.compile(r"q(conv|linear)\w*_pointwise")
_IN_CODE: Final = re.compile(r"torch\.ops\.onednn\.q(conv|linear)\w*_pointwise\b")
_KINDS: Final = {"conv": LayerKind.CONVOLUTION, "linear": LayerKind.LINEAR}
_WEIGHT_SCALE: Final = 4
"""Argument of every onednn.q*_pointwise that holds the weight's scales."""

_Call = tuple[LayerKind, bytes]


def count_kernels(
    plan: Sequence[PlannedLayer], generated: Sequence[ModuleType], run: Callable[[], object]
) -> KernelReport:
    """Count INT8 kernels in generated code and say which layer each one belongs to.

    A kernel is a call of `onednn.qconv*_pointwise` or `onednn.qlinear_pointwise`, counted twice:
    in the syntax tree of the code (comments and texts do not count), and while the code runs once.
    The running call belongs to the layer whose per-channel weight scales it is given; the code
    alone does not say, because Inductor inlines tensors of up to eight elements.

    Args:
        plan: The planned layers of the q/dq graph.
        generated: The modules that Inductor generated and loaded for it.
        run: Runs the compiled model once, through these modules.

    Returns:
        The report; `complete` only where code and run both show exactly the plan.
    """
    calls: Counter[_Call] = Counter()
    with ExitStack() as stack:
        for module in generated:
            stack.enter_context(_listening(module, calls))
        run()
    groups: dict[_Call, list[PlannedLayer]] = {}
    for layer in plan:
        groups.setdefault((layer.kind, layer.scales), []).append(layer)
    layers = []
    for key, members in groups.items():
        remaining = calls.pop(key, 0)
        planned = Counter(layer.name for layer in members)
        for position, (name, wanted) in enumerate(planned.items(), start=1):
            # Layers with equal scales cannot be told apart: the last one gets what is left over.
            found = remaining if position == len(planned) else min(wanted, remaining)
            layers.append(LayerKernels(name, key[0], wanted, found))
            remaining -= found
    return KernelReport(
        layers=tuple(layers),
        unattributed=sum(calls.values()),
        in_code=sum(_calls_in_code(module) for module in generated),
    )


def _calls_in_code(module: ModuleType) -> int:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    return sum(
        isinstance(node, ast.Call) and _IN_CODE.match(ast.unparse(node.func)) is not None
        for node in ast.walk(tree)
    )


@contextmanager
def _listening(module: ModuleType, calls: Counter[_Call]) -> Iterator[None]:
    """Note the INT8 kernels that a generated module calls meanwhile.

    The module's own name `torch` is replaced, so nothing else in the process is touched.
    """
    real = module.__dict__.get("torch")
    if real is None:
        yield
        return

    def operation(packet: Any, name: str) -> Any:
        match = _OPERATION.fullmatch(name)
        if match is None:
            return packet
        kind = _KINDS[match[1]]
        return _Through(packet, {}, lambda overload, _: _noting(overload, kind, calls))

    kernels = _Through(real.ops.onednn, {}, operation)
    module.__dict__["torch"] = _Through(real, {"ops": _Through(real.ops, {"onednn": kernels})})
    try:
        yield
    finally:
        module.__dict__["torch"] = real


def _noting(call: Any, kind: LayerKind, calls: Counter[_Call]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        scales = args[_WEIGHT_SCALE] if len(args) > _WEIGHT_SCALE else None
        calls[kind, scale_bytes(scales) if isinstance(scales, Tensor) else b""] += 1
        return call(*args, **kwargs)

    return noted


@final
class _Through:
    """An object seen through: same attributes, some of them replaced or changed."""

    def __init__(
        self,
        real: Any,
        replaced: dict[str, Any],
        changed: Callable[[Any, str], Any] | None = None,
    ) -> None:
        self._real = real
        self._replaced = replaced
        self._changed = changed

    def __getattr__(self, name: str) -> Any:
        if name in self._replaced:
            return self._replaced[name]
        value = getattr(self._real, name)
        return value if self._changed is None else self._changed(value, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real(*args, **kwargs)
