"""A second session over the same model, in which points can be read."""

import os
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._onnx._blueprint import Blueprint
from calidrift_agent._onnx._extra import onnx_package, runtime_package
from calidrift_agent._onnx._tapping import (
    OLDEST_OPSET,
    PHASE,
    ROWS,
    ReducedTap,
    TapWriter,
    shape_name,
    shape_node,
    shared_constants,
    shared_inputs,
)
from calidrift_agent._taps import WHOLE_LIMIT, Extremes, Reading, sample_plan

Array = NDArray[Any]
_GROWTH: Final = 4
"""A tensor handed out whole may outgrow `WHOLE_LIMIT` so many times before it is reduced."""
_FATAL: Final = 4
_PHASES: Final = 1 << 30
_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_NO_INTEGERS: Final = "session.disable_quant_qdq"
_HERE: Final = ["CPUExecutionProvider"]
_random = Random()


@final
class Replica:
    """Replays feeds on the CPU, on one thread, and returns what the taps saw.

    The first run looks at the shapes only; with these, small tensors are handed out whole, and
    large ones are reduced where they are made. Sessions are made here, off the request thread.
    The child of a fork makes its own.

    Args:
        blueprint: The graph.
        whole: Hand out every tensor whole, whatever its size (for calibration).
    """

    def __init__(self, blueprint: Blueprint, *, whole: bool = False) -> None:
        self._blueprint = blueprint
        self._whole = whole or blueprint.opset < OLDEST_OPSET
        self._inputs = frozenset(info.name for info in blueprint.inputs)
        self._session: Any = None
        self._process = 0
        self._failure: Exception | None = None
        self._reduced: dict[int, ReducedTap] = {}
        self._shaped = False

    @property
    def reduced(self) -> tuple[int, ...]:
        """Numbers of the taps that are reduced where their tensors are made."""
        return tuple(sorted(self._reduced))

    def refuses(self, feeds: Mapping[str, Array], rows: int) -> Exception | None:
        """Return why the model does not take these feeds, or None; then their shapes are known.

        Raises:
            Exception: No session can be made, whatever the feeds.
        """
        # As it stands: optimized, shapes that are known beforehand would not be computed at all.
        session = (
            self._session_of(self._model)
            if self._whole
            else self._session_of(self._shape_model, optimized=False)
        )
        try:
            found = _run(session, feeds)
        except Exception as error:
            return error
        if self._whole:
            return None
        for number, tap in enumerate(self._blueprint.taps):
            if tap.tensor not in self._inputs:
                self._choose(number, tuple(int(size) for size in found[shape_name(number)]), rows)
        self._shaped = True
        self._session = None
        return None

    def run(self, feeds: Mapping[str, Array], rows: int) -> list[torch.Tensor | Reading]:
        """Replay feeds.

        Args:
            feeds: Value of every input that the blueprint names.
            rows: Rows of the feeds.

        Returns:
            For each tap its tensor, or its measured reading if it is reduced.

        Raises:
            Exception: ONNX Runtime cannot make the session, or refuses the feeds.
        """
        if not self._whole and not self._shaped:
            refusal = self.refuses(feeds, rows)
            if refusal is not None:
                raise refusal
        session = self._session_of(self._model)
        given = dict(feeds)
        if self._reduced:
            given[ROWS] = np.array([rows, -1], np.int64)
            given[PHASE] = np.array([_random.randrange(_PHASES)], np.int64)
        found = _run(session, given)
        seen: list[torch.Tensor | Reading] = []
        for number, tap in enumerate(self._blueprint.taps):
            reduced = self._reduced.get(number)
            if reduced is not None:
                seen.append(_reading(reduced, [found[name] for name in reduced.outputs], rows))
            else:
                value = feeds[tap.tensor] if tap.tensor in self._inputs else found[tap.tensor]
                seen.append(torch.from_numpy(value))
        self._watch_growth(seen, rows)
        return seen

    def _session_of(self, model: Callable[[], Any], *, optimized: bool = True) -> Any:
        """Return the session in use, or make one; None where nothing has to be computed."""
        if self._process != os.getpid():
            # A session of the parent may be locked by a thread that the fork did not bring along.
            self._session, self._process = None, os.getpid()
        if self._failure is not None:
            raise self._failure
        if self._session is None:
            try:
                proto = model()
                if proto.graph.output:
                    self._session = self._make(proto, optimized=optimized)
            except Exception as error:
                self._failure = error
                raise
        return self._session

    def _watch_growth(self, seen: Sequence[torch.Tensor | Reading], rows: int) -> None:
        """Reduce from now on what has become too large to be handed out."""
        if self._whole:
            return
        for number, value in enumerate(seen):
            tap = self._blueprint.taps[number]
            if (
                isinstance(value, torch.Tensor)
                and value.numel() > _GROWTH * WHOLE_LIMIT
                and tap.tensor not in self._inputs
            ):
                self._choose(number, tuple(value.shape), rows)
                self._session = None

    def _choose(self, number: int, shape: tuple[int, ...], rows: int) -> None:
        if int(np.prod(shape)) > WHOLE_LIMIT:
            tap = self._blueprint.taps[number]
            by_row = bool(shape) and shape[0] % rows == 0
            plan = sample_plan(shape)
            self._reduced[number] = ReducedTap(number, tap.tensor, tap.bound, plan, by_row)

    def _shape_model(self) -> Any:
        behind: dict[str, list[Any]] = {}
        outputs = []
        for number, tap in enumerate(self._blueprint.taps):
            if tap.tensor not in self._inputs:
                behind.setdefault(tap.tensor, []).append(shape_node(number, tap.tensor))
                outputs.append(shape_name(number))
        return self._assemble(behind, outputs, [], [])

    def _model(self) -> Any:
        behind: dict[str, list[Any]] = {}
        outputs: list[str] = []
        constants = shared_constants() if self._reduced else []
        for number, tap in enumerate(self._blueprint.taps):
            reduced = self._reduced.get(number)
            if reduced is not None:
                writer = TapWriter(reduced, self._blueprint.opset)
                behind.setdefault(tap.tensor, []).extend(writer.nodes())
                constants.extend(writer.constants())
                outputs.extend(reduced.outputs)
            elif tap.tensor not in self._inputs and tap.tensor not in outputs:
                outputs.append(tap.tensor)
        return self._assemble(behind, outputs, constants, shared_inputs() if self._reduced else [])

    def _assemble(
        self,
        behind: Mapping[str, list[Any]],
        outputs: Sequence[str],
        constants: Sequence[Any],
        inputs: Sequence[Any],
    ) -> Any:
        """Return the model with nodes put right behind those that make what they read."""
        onnx = onnx_package()
        blueprint = self._blueprint
        nodes = []
        for node in blueprint.nodes:
            nodes.append(node)
            for name in node.output:
                nodes.extend(behind.get(name, ()))
        graph = onnx.helper.make_graph(
            nodes,
            "calidrift",
            [*blueprint.inputs, *inputs],
            # Without types: ONNX Runtime infers them.
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [*blueprint.constants, *constants],
        )
        return onnx.helper.make_model(
            graph, opset_imports=blueprint.opset_import, ir_version=blueprint.ir_version
        )

    def _make(self, model: Any, *, optimized: bool) -> Any:
        runtime = runtime_package()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        # The default order runs what nobody waits for last, wherever it stands in the file.
        options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
        if not optimized:
            level = runtime.GraphOptimizationLevel
            options.graph_optimization_level = level.ORT_DISABLE_ALL
        # Integer kernels would compute past the tensors that are read.
        options.add_session_config_entry(_NO_INTEGERS, "1")
        if self._blueprint.folder is not None:
            options.add_session_config_entry(_FOLDER, self._blueprint.folder)
        weights = self._blueprint.weights
        if weights:
            # Shared with every session that is made here, and never parsed: parsing a model
            # holds the interpreter lock (0.1 s for 200 MB, measured), and requests with it.
            options.add_external_initializers(
                list(weights),
                [runtime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()],
            )
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=_HERE, enable_fallback=0
        )


def _run(session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    if session is None:
        return {}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def _reading(tap: ReducedTap, values: Sequence[Array], rows: int) -> Reading:
    high, low, nan, inf, broken, size, sample, *clipping = values
    extremes = Extremes(
        highs=_per_row(high, rows),
        lows=_per_row(low, rows),
        broken=tuple(row for row, bad in enumerate(_per_row(broken, rows)) if bad),
        nan=int(nan),
        inf=int(inf),
    )
    if clipping:
        extremes.clip_low, extremes.clip_high = int(clipping[0]), int(clipping[1])
        extremes.clipped_energy = float(clipping[2])
    weight = max(1, round(int(size) / sample.size)) if sample.size else 1
    return Reading([], int(size), weight, extremes, sample)


def _per_row(values: Array, rows: int) -> list[float]:
    """Extremes of each row; a tensor that all rows share gives each of them its own."""
    found: list[float] = values.tolist()
    return found if len(found) == rows else found * rows
