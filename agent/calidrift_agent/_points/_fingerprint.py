"""Fingerprints: what a profile must share with a model to be used with it."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

import calidrift_agent
from calidrift_agent._points._modules import plain_name, require_module, unwrap
from calidrift_agent._points._naming import operation_of, scope_of
from calidrift_agent._points._quantize import is_quantized
from calidrift_agent._profile import Fingerprint
from calidrift_agent.errors import AttachError

_CPU_INFO: Final = Path("/proc/cpuinfo")
_ISA_FLAGS: Final[Mapping[str, str]] = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx",
}
_UNKNOWN: Final = "unknown"
_BASELINE: Final = "baseline"
_SIZE: Final = "sym_size"
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")


def fingerprint_of(model: nn.Module, *, data: str = "", preprocessing: str = "") -> Fingerprint:
    """Return the fingerprint of a model on this machine.

    Weights: names, dtypes, shapes and bytes, sorted by name (of a graph, the tensors that it
    reads: weights that are left over from before conversion do not count). Graph: names, types
    and settings of all modules, or the operations of the graph with their constants, so that
    other ranges are another graph. Both are the same before and after `torch.export.save` and
    `load`, and for a model behind `torch.compile`.

    Args:
        model: The model.
        data: Fingerprint of the calibration data, as the caller defines it.
        preprocessing: Fingerprint of the preprocessing, as the caller defines it.

    Raises:
        AttachError: Not a model, or one whose weights have no values.

    Cost: one sha256 over the weights, measured 0.6 s per GB on one core; GPU weights are
    copied to the host one tensor at a time.
    """
    inner = require_module(model)
    if isinstance(inner, GraphModule) and is_quantized(inner):
        tensors, lines = _graph_tensors(inner), _graph_lines(inner)
    else:
        tensors, lines = _state_tensors(inner), _module_lines(inner)
    return Fingerprint(
        weights=_hash_tensors(tensors),
        graph=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        data=data,
        preprocessing=preprocessing,
        versions={"calidrift": calidrift_agent.__version__, "torch": torch.__version__},
        isa=cpu_isa(),
    )


def cpu_isa(cpu_info: Path = _CPU_INFO) -> str:
    """Return the integer instruction sets of this CPU that change quantized results.

    Args:
        cpu_info: The kernel's description of the CPU.

    Returns:
        Sorted names joined by a space, e.g. ``"amx avx2 avx512 avx512_vnni"``; ``"baseline"``
        for an x86 CPU with none of them, ``"unknown"`` elsewhere.
    """
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _UNKNOWN
    found = re.search(r"^flags\s*:(.*)$", text, flags=re.MULTILINE)
    if found is None:
        return _UNKNOWN
    flags = set(found.group(1).split())
    return " ".join(sorted(name for flag, name in _ISA_FLAGS.items() if flag in flags)) or _BASELINE


def _state_tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    state = {plain_name(name): value for name, value in model.state_dict().items()}
    found: list[tuple[str, torch.Tensor]] = []
    for name in sorted(state):
        # torch.ao packs the weight and the bias of a linear layer into one entry.
        packed = state[name] if isinstance(state[name], tuple) else (state[name],)
        found.extend((name, one) for one in packed if isinstance(one, torch.Tensor))
    return found


def _graph_tensors(graph_module: GraphModule) -> Iterable[tuple[str, torch.Tensor]]:
    found: dict[str, torch.Tensor] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and node.users:
            value: object = graph_module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            if isinstance(value, torch.Tensor):
                found[str(node.target)] = value
    return sorted(found.items())


def _hash_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        if is_lazy(tensor) or tensor.is_meta:
            raise AttachError(
                f"{name} has no values (a lazy or meta tensor), so nothing can be measured; load "
                "the weights, and run a lazy model once"
            )
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        values = tensor.detach().to("cpu")
        if is_traceable_wrapper_subclass(values):
            digest.update(_hash_parts(values).encode())
            continue
        if values.is_quantized:
            values = values.dequantize()
        if values.layout != torch.strided:
            values = values.to_dense()
        flat = values.resolve_conj().resolve_neg().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash_parts(tensor: torch.Tensor) -> str:
    """Hash a tensor that is made of others, as the weights of torchao are, with its settings."""
    names, settings = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    parts = [(name, getattr(tensor, name)) for name in names]
    return f"{_hash_tensors(parts)}\0{_ADDRESS.sub('', repr(settings))}\0"


def _module_lines(model: nn.Module) -> list[str]:
    return [
        f"{plain_name(name)}\t{type(module).__name__}\t{_ADDRESS.sub('', module.extra_repr())}"
        for name, module in model.named_modules(remove_duplicate=False)
        if unwrap(module) is module
    ]


def _graph_lines(graph_module: GraphModule) -> list[str]:
    """Return the graph's output as a hash over everything that it depends on.

    Each node is hashed from its operation, scope, constants and the hashes of its inputs, so
    neither node names nor the order of independent nodes count: `torch.export` changes both.
    """
    known: dict[Node, str] = {}
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for node in graph_module.graph.nodes:
        known[node] = hashlib.sha256(_describe(node, known, inputs).encode()).hexdigest()
    outputs = [known[node] for node in graph_module.graph.nodes if node.op == "output"]
    return [str(len(inputs)), *outputs]


def _describe(node: Node, known: Mapping[Node, str], inputs: list[Node]) -> str:
    if node.op == "get_attr":
        return f"attribute {node.target}"
    if node.op == "placeholder":
        return f"input {inputs.index(node)}"
    operation = "output" if node.op == "output" else operation_of(node)
    if operation == _SIZE:
        # Which input a dynamic size is read from is an accident of the export.
        return f"{_SIZE} {node.args[1:]}"
    arguments = map_arg((node.args, node.kwargs), lambda one: _Name(known[one]))
    return f"{scope_of(node)} {operation} {arguments!r}"


@final
class _Name(str):
    """The hash of an input, printed without quotes so that no constant can look like it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
