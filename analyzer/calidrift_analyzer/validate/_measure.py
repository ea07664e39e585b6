"""Runs models through the user's `evaluate` and keeps what came out."""

from collections.abc import Mapping, Sequence
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
from calidrift_analyzer.validate._samples import SampleLog

__all__ = ["HeldOut", "Measured", "measure", "require_comparable", "uncovered_units"]

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
        samples: Digests of the rows that the model was called with; `None` where not asked for.
    """

    evaluation: Evaluation
    outputs: _Floats
    samples: tuple[bytes, ...] | None = None

    @property
    def scores(self) -> _Floats | None:
        """Score of each sample; `None` without labels."""
        return self.evaluation.scores


@final
@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out requests against the observed bounds of a candidate.

    Attributes:
        exceeded: For each point, (units,) whether that unit passed the bound.
        rows: Rows that the units were drawn from.
    """

    exceeded: Mapping[str, NDArray[np.bool_]]
    rows: int


def measure(
    code: UserCode, model: nn.Module, split: Split, *, samples: SampleLog | None = None
) -> Measured:
    """Evaluate a model and keep its outputs.

    Args:
        code: The user's code.
        model: The model.
        split: The split.
        samples: An empty log for the inputs, where they are to be known.

    Raises:
        ContractError: `evaluate` misbehaves or never runs the model.
    """
    recorder = _OutputRecorder(model, samples)
    evaluation = code.evaluate(recorder, split)
    digests = None if samples is None else samples.digests
    return Measured(evaluation, recorder.outputs(split), digests)


def require_comparable(reference: Measured, given: Measured, split: Split) -> None:
    """Check that two models saw the same samples.

    Raises:
        ContractError: Numbers of samples, segments, groups or output shapes differ, or only one
            has labels.
    """
    one, two = reference.scores, given.scores
    problem = None
    if (one is None) != (two is None):
        problem = "gives labels for one model and none for another"
    elif one is not None and two is not None and one.size != two.size:
        problem = f"scores {one.size} samples for one model and {two.size} for another"
    elif _list(reference.evaluation.segments) != _list(given.evaluation.segments):
        problem = "gives other segments for another model"
    elif _list(reference.evaluation.groups) != _list(given.evaluation.groups):
        problem = "gives other groups for another model"
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
    code: UserCode,
    graph: GraphModule,
    profile: CalibrationProfile,
    splits: Sequence[Split],
    rng: np.random.Generator,
) -> HeldOut:
    """Run held-out requests through the range instrument of a candidate.

    A unit is a row, or one row of each group, every one with the same probability: so units are
    independent draws from the requests of the splits (each group counts once, whatever its
    size), and binomial bounds hold for them. Four views of one picture, covered or not
    together, would count as four.

    Args:
        code: The user's code.
        graph: The candidate's q/dq graph; its activation quantizers are bypassed.
        profile: Its profile, with the observed bounds.
        splits: Whose rows are the held-out requests.
        rng: Draws the rows.

    Returns:
        The units. One with a value that is not finite passes every bound, and so does one at a
        point without a bound.

    Raises:
        ContractError: `evaluate` misbehaves, or groups are not those of the model's rows.
    """
    recorder = _UnitRecorder(graph)
    chosen: list[NDArray[np.intp]] = []
    for split in splits:
        before = recorder.rows
        evaluation = code.evaluate(recorder, split)
        rows = recorder.rows - before
        chosen.append(before + _draw(evaluation, rows, split, rng))
    units = np.concatenate(chosen)
    exceeded = {}
    for name, absmax in recorder.absmax().items():
        point = profile.points.get(name)
        bound = None if point is None else point.observed_bound
        limit = -1.0 if bound is None else bound.value
        exceeded[name] = np.asarray(~(absmax <= limit))[units]
    return HeldOut(exceeded, recorder.rows)


def _draw(
    evaluation: Evaluation, rows: int, split: Split, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Choose one row of each group; all rows where there are no groups."""
    groups = _list(evaluation.groups)
    if groups is None:
        return np.arange(rows)
    if len(groups) != rows:
        raise ContractError(
            f"evaluate gives groups for {len(groups)} samples on the split {split}, but called the "
            f"model with {rows} rows; with groups the rows must be the samples, one by one: call "
            "the model with each sample once, or leave `groups` out"
        )
    order = rng.permutation(rows)
    _, first = np.unique(np.asarray(groups)[order], return_index=True)
    return np.sort(order[first])


@final
class _OutputRecorder(nn.Module):
    """Passes calls on and keeps the first floating-point tensor of each output."""

    def __init__(self, model: nn.Module, samples: SampleLog | None) -> None:
        super().__init__()
        # In a tuple, so that `eval()` does not reach exported graphs, which refuse it.
        self._model = (model,)
        self._samples = samples
        self._kept: list[_Floats] = []
        self._elements = 0
        # `next(model.parameters()).device` is how user code often asks where to put its inputs.
        self.anchor = nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Same output as the model's."""
        if self._samples is not None:
            self._samples.add(args, kwargs)  # before the model, which may write to its inputs
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
        self.rows = 0
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

        self.rows += rows

        with torch.no_grad():
            output = self._graph.run(args, kwargs, bypass=True, observe=observe)
        for index, absmax in largest.items():
            self._absmax[self._names[index]].append(absmax)
        return output

    def absmax(self) -> dict[str, NDArray[np.float64]]:
        """(units,) absmax of each point that fired."""
        return {name: np.concatenate(kept) for name, kept in self._absmax.items() if kept}


def _list(labels: Sequence[Any] | None) -> list[str] | None:
    return None if labels is None else [str(one) for one in labels]
