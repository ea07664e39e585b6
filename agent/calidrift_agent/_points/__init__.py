"""What can be observed in a model: points, their names, quantized graphs, fingerprints."""

from calidrift_agent._points._discover import discover
from calidrift_agent._points._fingerprint import cpu_isa, fingerprint_of
from calidrift_agent._points._graph import Observe, QuantizedGraph
from calidrift_agent._points._modules import Discovery, Point, require_module, unwrap
from calidrift_agent._points._quantize import (
    ObserverPoint,
    QuantizePoint,
    is_quantized,
    observer_nodes,
    quantize_nodes,
    training_operation,
)
from calidrift_agent._points._rows import batch_rows, fold_rows, rail_counts, row_absmax

__all__ = [
    "Discovery",
    "Observe",
    "ObserverPoint",
    "Point",
    "QuantizePoint",
    "QuantizedGraph",
    "batch_rows",
    "cpu_isa",
    "discover",
    "fingerprint_of",
    "fold_rows",
    "is_quantized",
    "observer_nodes",
    "quantize_nodes",
    "rail_counts",
    "require_module",
    "row_absmax",
    "training_operation",
    "unwrap",
]
