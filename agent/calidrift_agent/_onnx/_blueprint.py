"""The graph that is replayed beside the requests: both instruments, cut down to what they need."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from calidrift_agent._onnx._extra import onnx_package
from calidrift_agent._onnx._network import Network, is_random, reads, renamed
from calidrift_agent._onnx._survey import Survey
from calidrift_agent._profile import ClipBound

PREFIX: Final = "calidrift."
_RECTIFIED: Final = PREFIX + "relu/"
_RANGE: Final = PREFIX + "range/"
_EXTERNAL: Final = 1
_INLINE_BYTES: Final = 1024
"""Constants up to this size stay in the graph, where ONNX Runtime infers shapes from them."""


@final
@dataclass(frozen=True, slots=True)
class Tap:
    """One tensor of the replayed graph that is read.

    Attributes:
        tensor: Its name there.
        bound: The clip range that its values are held against, or None.
    """

    tensor: str
    bound: ClipBound | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Blueprint:
    """A graph to be replayed, without its weights.

    Attributes:
        nodes: Its nodes, in an order of execution.
        constants: Small initializers, and weights that lie in files of their own.
        weights: The other initializers: name and value.
        inputs: Inputs that it needs, in the order of the model.
        opset_import: The operator sets of the model.
        ir_version: The format of the model.
        folder: Where the files of weights lie, or None.
        opset: Version of the core operators.
        taps: What is read.
        ranges: Tap of each point for the range instrument.
        clips: Tap of each point for the clip instrument; the same where nothing is quantized.
    """

    nodes: tuple[Any, ...]
    constants: tuple[Any, ...]
    weights: dict[str, Any]
    inputs: tuple[Any, ...]
    opset_import: tuple[Any, ...]
    ir_version: int
    folder: str | None
    opset: int
    taps: tuple[Tap, ...]
    ranges: tuple[int, ...]
    clips: tuple[int, ...]

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights that are held a second time."""
        return sum(int(value.nbytes) for value in self.weights.values())


def draw_up(survey: Survey, clips: Sequence[ClipBound | None]) -> Blueprint:
    """Return the graph in which all points can be read.

    Of a quantized model it holds two copies of everything behind the first quantizer, over the
    same weights: the served graph (clip instrument), and one in which activation quantizers are
    left out (range instrument; weights stay quantized). A quantizer that stands for a ReLU too
    becomes one.

    Args:
        survey: The model and its points.
        clips: Clip range of each point, in the same order.

    Cost: weights are copied once; the file, if they lie in the model file itself, is not needed
    any more.
    """
    drawing = _Drawing(survey)
    taps: dict[Tap, int] = {}
    range_taps, clip_taps = [], []
    for point, bound in zip(survey.points, clips, strict=True):
        served = drawing.served(point.tensor, folded=point.folded)
        free = drawing.range_of(point.tensor, folded=point.folded)
        clip_taps.append(taps.setdefault(Tap(served, bound), len(taps)))
        # Clipping is counted where it happens only.
        range_tap = Tap(free, bound if free == served else None)
        range_taps.append(taps.setdefault(range_tap, len(taps)))
    nodes = _needed(drawing.nodes, {tap.tensor for tap in taps})
    return _blueprint(survey.network, nodes, tuple(taps), tuple(range_taps), tuple(clip_taps))


def draw_outputs(network: Network) -> Blueprint | None:
    """Return the graph as it is, with its outputs as taps; None where that says nothing.

    It says nothing of a model that draws random numbers: no two runs of it agree.

    Cost: weights are copied once.
    """
    if any(is_random(node) for node in network.nodes):
        return None
    nodes = _needed(network.nodes, set(network.outputs))
    taps = tuple(Tap(name, None) for name in network.outputs)
    every = tuple(range(len(taps)))
    return _blueprint(network, nodes, taps, every, every)


def _blueprint(
    network: Network,
    nodes: Sequence[Any],
    taps: tuple[Tap, ...],
    ranges: tuple[int, ...],
    clips: tuple[int, ...],
) -> Blueprint:
    """Return these nodes with what they need of the model; weights are copied."""
    used = {name for node in nodes for name in reads(node)} | {tap.tensor for tap in taps}
    constants, weights = _initializers(network, used)
    model = network.source.model
    return Blueprint(
        nodes=tuple(nodes),
        constants=tuple(constants),
        weights=weights,
        inputs=tuple(info for name, info in network.inputs.items() if name in used),
        opset_import=tuple(model.opset_import),
        ir_version=model.ir_version,
        folder=None if network.source.folder is None else str(network.source.folder),
        opset=network.opset,
        taps=taps,
        ranges=ranges,
        clips=clips,
    )


@final
class _Drawing:
    """The nodes of both instruments, each right behind the node that it was copied from."""

    def __init__(self, survey: Survey) -> None:
        self._make = onnx_package().helper.make_node
        self._bypasses = survey.quantization.bypasses
        quantizers = [one for one in survey.quantization.quantizers if one.folded]
        self._folded = {one.tensor for one in quantizers}
        self._folding = {survey.network.nodes[one.index].output[0] for one in quantizers}
        self._unquantized: dict[str, str] = {}
        self.nodes: list[Any] = []
        for node in survey.network.nodes:
            self.nodes.append(node)
            self._rectify(node.output)
            self._copy(node)

    def served(self, tensor: str, *, folded: bool) -> str:
        """Name of a tensor of the served graph."""
        return _RECTIFIED + tensor if folded else tensor

    def range_of(self, tensor: str, *, folded: bool) -> str:
        """Name of the same tensor where nothing is quantized before it."""
        name = self._unquantized.get(tensor, tensor)
        return _RECTIFIED + name if folded else name

    def _copy(self, node: Any) -> None:
        """Add what a node becomes where no activation is quantized, if that is another node."""
        output = node.output[0]
        if output in self._bypasses:
            self._unquantized[output] = self.range_of(
                self._bypasses[output], folded=output in self._folding
            )
            return
        if not any(name in self._unquantized for name in reads(node)):
            return
        copy = renamed(node, self._unquantized)
        for position, name in enumerate(node.output):
            if name:
                copy.output[position] = self._unquantized[name] = _RANGE + name
        copy.name = _RANGE + (node.name or output)
        self.nodes.append(copy)
        self._rectify(node.output, _RANGE)

    def _rectify(self, tensors: Iterable[str], prefix: str = "") -> None:
        """Add the ReLUs that quantizers of these tensors stand for."""
        for tensor in tensors:
            if tensor in self._folded:
                name = _RECTIFIED + prefix + tensor
                self.nodes.append(self._make("Relu", [prefix + tensor], [name], name))


def _needed(nodes: Sequence[Any], tensors: set[str]) -> list[Any]:
    """Return the nodes that some tensors depend on."""
    wanted, kept = set(tensors), []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            wanted.update(reads(node))
            kept.append(node)
    return kept[::-1]


def _initializers(network: Network, used: set[str]) -> tuple[list[Any], dict[str, Any]]:
    onnx = onnx_package()
    constants: list[Any] = []
    weights: dict[str, Any] = {}
    for name, proto in network.initializers.items():
        if name not in used:
            continue
        if proto.data_location == _EXTERNAL or proto.ByteSize() <= _INLINE_BYTES:
            constants.append(proto)
            continue
        values = onnx.numpy_helper.to_array(proto)
        if values.dtype.type.__module__ != "numpy":  # bfloat16 and the like: no OrtValue holds it
            constants.append(proto)
            continue
        weights[name] = values
        outline = onnx.TensorProto(
            name=name, data_type=proto.data_type, dims=proto.dims, data_location=_EXTERNAL
        )
        outline.external_data.add(key="location", value="calidrift")
        constants.append(outline)
    return constants, weights
