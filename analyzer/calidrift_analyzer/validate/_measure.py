"""Runs models through the user's `evaluate` and keeps what came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import GraphModule

from calidrift_agent._points import QuantizedGraph, batch_rows, fold_rows, row_absmax
from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.backend import first_tensor
from calidrift_analyzer.contract import Evaluation, Split, UserCode
from calidrift_analyzer.errors import ContractError

__all__ = ["Measured", "measure", "require_comparable", "uncovered_units"]

_LARGEST_OUTPUT: Final = 1 << 27
"""Output elements that are kept of one split: 1 GiB in float64."""

_Floats = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One model on one split.

    Attributes:
        evaluation: What `evaluate` returned.
        outputs: The first floating-point output of every call, rows of all calls together.
    """

    evaluation: Evaluation
    outputs: _Floats

    @property
    def scores(self) -> _Floats | None:
        """Score of each sample; `None` without labels."""
        return self.evaluation.scores


def measure(code: UserCode, model: nn.Module, split: Split) -> Measured:
    """Evaluate a model and keep its outputs.

    Raises:
        ContractError: `evaluate` misbehaves or never runs the model.
    """
    recorder = _OutputRecorder(model)
    evaluation = code.evaluate(recorder, split)
    return Measured(evaluation, recorder.outputs(split))


def require_comparable(reference: Measured, given: Measured, split: Split) -> None:
    """Check that two models saw the same samples.

    Raises:
        ContractError: Numbers of samples, segments or output shapes differ, or only one has labels.
    """
    one, two = reference.scores, given.scores
    problem = None
    if (one is None) != (two is None):
        problem = "gives labels for one model and none for another"
    elif one is not None and two is not None and one.size != two.size:
        problem = f"scores {one.size} samples for one model and {two.size} for another"
    elif _list(reference.evaluation.segments) != _list(given.evaluation.segments):
        problem = "gives other segments for another model"
    elif reference.outputs.shape != given.outputs.shape:
        problem = (
            f"gets outputs of shape {reference.outputs.shape} from one model and "
            f"{given.outputs.shape} from another"
        )
    if problem is not None:
        raise ContractError(
            f"evaluate {problem} on the split {split}; it must run the same samples in the same "
            "order whatever the model"
        )


def uncovered_units(
    code: UserCode, graph: GraphModule, profile: CalibrationProfile, splits: Sequence[Split]
) -> dict[str, NDArray[np.bool_]]:
    """Run held-out requests through the range instrument of a candidate.

    Args:
        code: The user's code.
        graph: The candidate's q/dq graph; its activation quantizers are bypassed.
        profile: Its profile, with the observed bounds.
        splits: Whose rows are the held-out requests.

    Returns:
        For each point, (units,) whether that unit passed the observed bound. A unit with a value
        that is not finite passes every bound, and so does one at a point without a bound.

    Raises:
        ContractError: `evaluate` misbehaves.
    """
    recorder = _UnitRecorder(graph)
    for split in splits:
        code.evaluate(recorder, split)
    exceeded = {}
    for name, absmax in recorder.absmax().items():
        point = profile.points.get(name)
        bound = None if point is None else point.observed_bound
        limit = -1.0 if bound is None else bound.value
        exceeded[name] = np.asarray(~(absmax <= limit))
    return exceeded


@final
class _OutputRecorder(nn.Module):
    """Passes calls on and keeps the first floating-point tensor of each output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # In a tuple, so that `eval()` does not reach exported graphs, which refuse it.
        self._model = (model,)
        self._kept: list[_Floats] = []
        self._elements = 0
        # `next(model.parameters()).device` is how user code often asks where to put its inputs.
        self.anchor = nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Same output as the model's."""
        with torch.no_grad():
            output = self._model[0](*args, **kwargs)
        array = first_tensor(output).detach().to(torch.float64).cpu().numpy()
        self._elements += array.size
        if self._elements > _LARGEST_OUTPUT:
            raise ContractError(
                f"the outputs of one split have more than {_LARGEST_OUTPUT:,} elements; evaluate "
                "on fewer samples"
            )
        self._kept.append(array)
        return output

    def outputs(self, split: Split) -> _Floats:
        """Everything that was kept, rows of all calls together."""
        if not self._kept:
            raise ContractError(
                f"evaluate never called the model on the split {split}; it must run the model it "
                "is given"
            )
        shapes = {array.shape[1:] for array in self._kept if array.ndim}
        if len(shapes) == 1 and all(array.ndim for array in self._kept):
            return np.concatenate(self._kept)
        # Texts of different lengths, say: compare the numbers, not the rows.
        return np.concatenate([array.ravel() for array in self._kept])


@final
class _UnitRecorder(nn.Module):
    """The range instrument as a model: outputs without activation quantization, maxima per row."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self._graph = QuantizedGraph(graph)
        names = [quantizer.name for quantizer in self._graph.quantizers]
        self._absmax: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
        self._names = names
        self.anchor = nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run one batch."""
        rows = batch_rows(args, kwargs)
        if rows is None:
            raise ContractError("evaluate called the model without a tensor that has rows")
        largest: dict[int, NDArray[np.float64]] = {}

        def observe(index: int, tensor: torch.Tensor) -> None:
            folded = fold_rows(tensor, rows)
            peaks = row_absmax(folded).to(torch.float64)
            # Finite values alone may be inside the bound; the unit is not covered all the same.
            finite = torch.isfinite(folded).all(dim=1)
            units = torch.where(finite, peaks, torch.inf).cpu().numpy()
            largest[index] = np.broadcast_to(units, (rows,))

        with torch.no_grad():
            output = self._graph.run(args, kwargs, bypass=True, observe=observe)
        for index, absmax in largest.items():
            self._absmax[self._names[index]].append(absmax)
        return output

    def absmax(self) -> dict[str, NDArray[np.float64]]:
        """(units,) absmax of each point that fired."""
        return {name: np.concatenate(kept) for name, kept in self._absmax.items() if kept}


def _list(segments: Sequence[str] | None) -> list[str] | None:
    return None if segments is None else [str(one) for one in segments]
