"""INT8 on this CPU: exported graphs, their quantization, their compilation, and the proof of it.

torchao and Inductor are imported inside functions only, because importing torchao's x86 quantizer
changes Inductor for the whole process. The stages call this package in a child process.
"""

from calidrift_analyzer.backend._compile import (
    CompiledInt8,
    FixedRows,
    compile_float,
    compile_int8,
    require_compiler,
)
from calidrift_analyzer.backend._export import (
    export_graph,
    first_tensor,
    load_graph,
    rows_of,
    save_graph,
)
from calidrift_analyzer.backend._kernels import count_kernels
from calidrift_analyzer.backend._plan import (
    PlannedLayer,
    drop_dead_weights,
    planned_layers,
)
from calidrift_analyzer.backend._quantize import PreparedModel, quantize

__all__ = [
    "CompiledInt8",
    "FixedRows",
    "PlannedLayer",
    "PreparedModel",
    "compile_float",
    "compile_int8",
    "count_kernels",
    "drop_dead_weights",
    "export_graph",
    "first_tensor",
    "load_graph",
    "planned_layers",
    "quantize",
    "require_compiler",
    "rows_of",
    "save_graph",
]
