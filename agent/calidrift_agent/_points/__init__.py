"""What can be observed in a model: points, their names, quantized graphs, fingerprints."""

from calidrift_agent._points._ao_graph import CodeGraph
from calidrift_agent._points._ao_modules import (
    LinearQuantization,
    is_code_layer,
    is_converted,
    is_dynamic_layer,
)
from calidrift_agent._points._discover import discover, static_points
from calidrift_agent._points._fingerprint import cpu_isa, fingerprint_of
from calidrift_agent._points._frame import Frame
from calidrift_agent._points._graph import Observe, QuantizedGraph
from calidrift_agent._points._layout import Layout, grid_of, layout_of
from calidrift_agent._points._modules import (
    Discovery,
    Point,
    plain_name,
    require_module,
    unwrap,
)
from calidrift_agent._points._quantize import (
    ObserverPoint,
    QuantizePoint,
    is_quantized,
    observer_nodes,
    quantize_nodes,
    training_operation,
)
from calidrift_agent._points._rows import (
    batch_input,
    batch_rows,
    fold_rows,
    rail_counts,
    row_absmax,
)
from calidrift_agent._points._signature import CACHES, ForwardSignature, cached_length
from calidrift_agent._points._torch_ao import CodePoint, CodePoints, is_torch_ao, torch_ao_points
from calidrift_agent._points._torchao import torchao_layers, torchao_points

__all__ = [
    "CACHES",
    "CodeGraph",
    "CodePoint",
    "CodePoints",
    "Discovery",
    "ForwardSignature",
    "Frame",
    "Layout",
    "LinearQuantization",
    "Observe",
    "ObserverPoint",
    "Point",
    "QuantizePoint",
    "QuantizedGraph",
    "batch_input",
    "batch_rows",
    "cached_length",
    "cpu_isa",
    "discover",
    "fingerprint_of",
    "fold_rows",
    "grid_of",
    "is_code_layer",
    "is_converted",
    "is_dynamic_layer",
    "is_quantized",
    "is_torch_ao",
    "layout_of",
    "observer_nodes",
    "plain_name",
    "quantize_nodes",
    "rail_counts",
    "require_module",
    "row_absmax",
    "static_points",
    "torch_ao_points",
    "torchao_layers",
    "torchao_points",
    "training_operation",
    "unwrap",
]
