"""What a selection chooses from, and what it chose."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.errors import ConfigurationError

__all__ = ["CandidatePool", "PickedBy", "Selection", "Suspicion", "SuspicionReason"]


class PickedBy(StrEnum):
    """Why a request was picked."""

    RANGE = "range"
    """It removes the most clipped energy that the picks before it left."""
    RANDOM = "random"
    """Drawn at random from the uncovered traffic."""


class SuspicionReason(StrEnum):
    """Why a request must not be picked without a look by a person."""

    NOT_FINITE = "not_finite"
    """A maximum is NaN or infinite."""
    ALONE = "alone"
    """Too few other requests come near its maximum at a point that it would widen."""


@final
@dataclass(frozen=True, slots=True)
class Suspicion:
    """One request that the outlier guard kept out.

    Attributes:
        id: The request.
        reason: Why.
        point: The point where it stands out most.
        maximum: Its maximum there; `None` for `NOT_FINITE`.
    """

    id: str
    reason: SuspicionReason
    point: str
    maximum: float | None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidatePool:
    """Captured requests, N of them, with what was measured at each of P points.

    Attributes:
        ids: N distinct names, the order of all arrays.
        points: P distinct names.
        maxima: (N, P) largest magnitude of each request at each point, range instrument; NaN or
            infinite where the activations were.
        bounds: (P,) observed bound of each point; NaN where there is none: the point is left out.
        sketches: P sketches of the production traffic, range instrument.
        segments: N segments, `None` where a request has none.
        inclusion: (N,) inclusion probability of each capture, in (0, 1].
        uniform: (N,) whether a capture came from the uniform reservoir.

    Raises:
        ConfigurationError: shapes that do not fit, names given twice, or impossible probabilities.
    """

    ids: tuple[str, ...]
    points: tuple[str, ...]
    maxima: NDArray[np.float32]
    bounds: NDArray[np.float64]
    sketches: tuple[MagnitudeSketch, ...]
    segments: tuple[str | None, ...]
    inclusion: NDArray[np.float64]
    uniform: NDArray[np.bool_]

    def __post_init__(self) -> None:
        size, points = len(self.ids), len(self.points)
        shapes = {
            "maxima": (self.maxima.shape, (size, points)),
            "bounds": (self.bounds.shape, (points,)),
            "sketches": ((len(self.sketches),), (points,)),
            "segments": ((len(self.segments),), (size,)),
            "inclusion": (self.inclusion.shape, (size,)),
            "uniform": (self.uniform.shape, (size,)),
        }
        for name, (given, needed) in shapes.items():
            if given != needed:
                raise ConfigurationError(
                    f"{name} of {size} requests at {points} points must have the shape {needed}, "
                    f"got {given}"
                )
        for name, entries in (("request", self.ids), ("point", self.points)):
            if len(set(entries)) != len(entries):
                twice = next(one for one in entries if entries.count(one) > 1)
                raise ConfigurationError(f"{name} {twice!r} is given twice: names must be distinct")
        if not bool(((self.inclusion > 0) & (self.inclusion <= 1)).all()):
            raise ConfigurationError(
                "inclusion probabilities must be above 0 and at most 1; use 1.0 for requests that "
                "are always captured"
            )
        if bool((self.bounds < 0).any()):
            raise ConfigurationError("observed bounds are magnitudes and must not be negative")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The requests that were picked.

    Attributes:
        ids: In the order of picking.
        picked_by: Why, for each of `ids`.
        by_segment: Picks per segment; the empty name counts requests without one.
        value: F of the picks: clipped energy removed over energy, summed over points.
        attainable: F of all requests that may be picked.
        upper_bound: No set of at most `budget` requests has a larger F than this.
        certificate: `value / upper_bound`: at least this share of the best possible; 1.0 where
            nothing can be removed.
        suspicious: Requests that were kept out, for a person to look at.
        uncovered: Requests in the pool that exceed the bound of at least one point, suspicious ones
            included.
    """

    ids: tuple[str, ...]
    picked_by: tuple[PickedBy, ...]
    by_segment: Mapping[str, int]
    value: float
    attainable: float
    upper_bound: float
    certificate: float
    suspicious: tuple[Suspicion, ...]
    uncovered: int
