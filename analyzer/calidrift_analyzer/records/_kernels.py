"""INT8 kernels of a compiled model, layer by layer, against the plan."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

__all__ = ["KernelReport", "LayerKernels", "LayerKind"]


class LayerKind(StrEnum):
    """Which INT8 kernel a layer needs."""

    CONVOLUTION = "convolution"
    LINEAR = "linear"


@final
@dataclass(frozen=True, slots=True)
class LayerKernels:
    """INT8 kernels of one layer.

    Attributes:
        name: Module name.
        kind: Kind of kernel.
        planned: Calls of the layer in the q/dq graph.
        found: Calls of its kernel when the generated code runs once.
    """

    name: str
    kind: LayerKind
    planned: int
    found: int


@final
@dataclass(frozen=True, slots=True)
class KernelReport:
    """INT8 kernels of a compiled model against its plan.

    Attributes:
        layers: One entry per planned layer.
        unattributed: Kernels that ran with the weight of no planned layer.
        in_code: Kernel calls in the generated code.
    """

    layers: tuple[LayerKernels, ...]
    unattributed: int = 0
    in_code: int = 0

    @property
    def planned(self) -> int:
        """Calls planned in INT8."""
        return sum(layer.planned for layer in self.layers)

    @property
    def found(self) -> int:
        """INT8 kernel calls of planned layers when the generated code runs once."""
        return sum(layer.found for layer in self.layers)

    @property
    def missing(self) -> tuple[str, ...]:
        """Layers that did not get the planned number of kernels."""
        return tuple(layer.name for layer in self.layers if layer.found != layer.planned)

    @property
    def complete(self) -> bool:
        """Whether something was planned, every planned call has its kernel, and none is foreign."""
        return (
            self.planned > 0
            and not self.missing
            and self.unattributed == 0
            and self.in_code == self.planned
        )
