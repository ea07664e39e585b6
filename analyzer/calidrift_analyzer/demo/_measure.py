"""Figures of the demo that no stage reports: accuracy by condition, and maxima by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import nn
from torch.fx import GraphModule

from calidrift_agent import CalibrationProfile, calibrate
from calidrift_analyzer.demo._contract import DigitsContract, tensor_of
from calidrift_analyzer.demo._data import Condition, Part, pictures

__all__ = ["Score", "maxima_by_condition", "range_ends", "score"]


@final
@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy on the report split.

    Attributes:
        accuracy: All conditions together.
        segments: Accuracy by condition.
    """

    accuracy: float
    segments: Mapping[str, float]


def score(model: nn.Module, contract: DigitsContract) -> Score:
    """Measure a model on the report split, which decides nothing in the demo.

    Args:
        model: FP32 or INT8; takes batches of any size.
        contract: Gives the split.
    """
    evaluation = contract.evaluate(model, Part.REPORT)
    right = np.asarray(evaluation.correct, dtype=np.float64)
    seen = np.asarray(evaluation.segments)
    return Score(
        accuracy=float(right.mean()),
        segments={str(name): float(right[seen == name].mean()) for name in Condition},
    )


def maxima_by_condition(
    graph: GraphModule, points: tuple[str, ...], seed: int
) -> dict[str, list[float]]:
    """Measure how far activations reach under each condition, on the pictures of the traffic.

    Args:
        graph: The q/dq graph; it is measured with its quantizers bypassed.
        points: Which points, in which order.
        seed: The demo's seed.

    Returns:
        By condition, the largest magnitude at each point.
    """
    found = {}
    for condition in Condition:
        seen = pictures(Part.TRAFFIC, seed, (condition,))
        profile = calibrate(graph, [tensor_of(seen)])
        sketches = (profile.points[name].sketch for name in points)
        found[str(condition)] = [0.0 if one is None else one.absmax for one in sketches]
    return found


def range_ends(profile: CalibrationProfile, points: tuple[str, ...]) -> list[float]:
    """Give the largest magnitude that each quantizer of a profile can represent."""
    bounds = (profile.points[name].clip_bound for name in points)
    return [0.0 if bound is None else bound.absmax for bound in bounds]
