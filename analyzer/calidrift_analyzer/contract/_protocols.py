"""What a model's owner provides: four callables, named in `calidrift.toml`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calidrift_analyzer.errors import ContractError

if TYPE_CHECKING:
    from torch import nn  # a parent that only spawns children need not import torch

__all__ = ["Calibration", "Evaluate", "Evaluation", "ExampleInputs", "Factory", "Split"]

_ROUNDING = 1e-6


class Split(StrEnum):
    """Disjoint parts of the evaluation data, so that no figure is judged on what chose it."""

    SELECT = "select"
    """Chooses among candidates."""
    GATE = "gate"
    """Decides whether the chosen one passes."""
    REPORT = "report"
    """Gives the figures that are published; decides nothing about accuracy."""


@final
@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` measured on one split.

    Rows keep their order from call to call: models are compared sample by sample.

    Attributes:
        metric: Mean of `correct`, in [0, 1], higher is better; computed where it is left out.
        correct: Score of each sample in [0, 1] (a bool for a right or wrong answer). Leave both
            out where there are no labels: then models are judged by agreement with FP32.
        segments: Segment of each sample, for the worst one; optional.
        groups: Group of each sample; optional. Samples of one group tell nearly the same (one
            picture in several lights, one user's session), so intervals take groups as
            independent, not samples, and a group is one held-out request: one of its rows, drawn
            at random. The model's rows must then be the samples, one by one.

    Examples:
        >>> Evaluation(correct=[True, False, True, True]).metric
        0.75
    """

    metric: float | None = None
    correct: ArrayLike | None = None
    segments: Sequence[str] | None = None
    groups: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if self.correct is None:
            if self.metric is not None:
                raise ContractError(
                    "an Evaluation has a metric but no `correct`; give the score of each sample, "
                    "intervals and paired differences are computed from them"
                )
        else:
            scores = self.scores
            assert scores is not None
            mean = float(scores.mean())
            if self.metric is not None and not math.isclose(
                self.metric, mean, rel_tol=0, abs_tol=_ROUNDING
            ):
                raise ContractError(
                    f"an Evaluation has metric {self.metric} but its `correct` has the mean "
                    f"{mean:.6g}; the metric must be that mean, or left out"
                )
            object.__setattr__(self, "metric", mean)
            for name, given in (("segments", self.segments), ("groups", self.groups)):
                if given is not None and len(given) != scores.size:
                    raise ContractError(
                        f"an Evaluation has {len(given)} {name} for {scores.size} samples; "
                        "give one per sample"
                    )

    @property
    def scores(self) -> NDArray[np.float64] | None:
        """`correct` as (samples,) float64; `None` without labels.

        Raises:
            ContractError: Empty, not a flat array, or not within [0, 1].
        """
        if self.correct is None:
            return None
        try:
            scores = np.asarray(self.correct, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ContractError(
                f"`correct` of an Evaluation is not an array of numbers ({error})"
            ) from error
        if scores.ndim != 1 or not scores.size:
            raise ContractError(
                f"`correct` of an Evaluation has shape {scores.shape}; it must be a flat array "
                "with one score per sample, at least one"
            )
        if not bool(((scores >= 0) & (scores <= 1)).all()):
            raise ContractError(
                "`correct` of an Evaluation holds scores outside 0 ... 1; scale them, 1 is best"
            )
        return scores


class Factory(Protocol):
    """Builds the FP32 model."""

    def __call__(self) -> nn.Module:
        """Give the model; weights of the contract are loaded into it afterwards."""
        ...


class ExampleInputs(Protocol):
    """Gives inputs to export and compile the model with."""

    def __call__(self) -> tuple[Any, ...]:
        """Give one tuple of positional inputs, with as many rows as requests usually have."""
        ...


class Calibration(Protocol):
    """Gives the calibration set."""

    def __call__(self) -> Iterable[Any]:
        """Yield batches: tensors, tuples of positional or mappings of keyword inputs."""
        ...


class Evaluate(Protocol):
    """Measures a model."""

    def __call__(self, model: nn.Module, split: str) -> Evaluation:
        """Run the model over one split (`select`, `gate` or `report`) in a fixed order."""
        ...
