"""A version on canaries beside its peers: what both showed, and what each look at it came to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CanaryComparison",
    "CanaryLook",
    "CanaryMeasure",
    "CanaryTrial",
    "CanaryWindows",
]


class CanaryMeasure(StrEnum):
    """What is counted on both sides, each as so many of so many."""

    UNITS_OUTSIDE = "units_outside"
    """Units outside the observed bounds of the profile that they ran under, of observed units."""
    OTHER_CLASS = "other_class"
    """Units with another most likely class than the FP32 reference, of compared units."""
    AGENT_ERRORS = "agent_errors"
    """Sampled requests in which the agent failed while observing, of sampled requests."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class CanaryWindows:
    """Windows of canaries and of their peers, W of them, in the order in which they arrived.

    Attributes:
        canary: `(W,)` bool, whether a window ran under the profile of the version that is tried.
        started_ns: `(W,)` int64, start of each window, UTC nanoseconds.
        units: `(W,)` int64, units that were compared with bounds.
        bad: `(W, 3)` int64, per `CanaryMeasure` in its order; never above `of`.
        of: `(W, 3)` int64, out of how many.
    """

    canary: NDArray[np.bool_]
    started_ns: NDArray[np.int64]
    units: NDArray[np.int64]
    bad: NDArray[np.int64]
    of: NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryComparison:
    """One measure of canaries beside their peers.

    Attributes:
        measure: Which one.
        canary_bad: How many were bad on canaries.
        canary_of: Out of how many.
        peers_bad: The same of peers.
        peers_of: The same of peers.
        p: Probability that canaries that are as good as their peers show so many bad ones or more
            (Fisher's exact test, one-sided); `None` where a side has shown none at all.
    """

    measure: CanaryMeasure
    canary_bad: int
    canary_of: int
    peers_bad: int
    peers_of: int
    p: float | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryLook:
    """One look at a canary, with the figures that it was decided on.

    Attributes:
        look: Its number, from 1.
        looks: How many there are at most.
        mark: Units that both sides had to show before it.
        units: Units that canaries had shown.
        peers: Units that their peers had shown.
        comparisons: In the order of `CanaryMeasure`.
        level: A measure whose `p` is at most this counts as worse.
    """

    look: int
    looks: int
    mark: int
    units: int
    peers: int
    comparisons: tuple[CanaryComparison, ...]
    level: float

    @property
    def worse(self) -> tuple[CanaryComparison, ...]:
        """The measures that are worse on canaries than on their peers, the clearest first."""
        found = [(one.p, one) for one in self.comparisons if one.p is not None]
        return tuple(one for p, one in sorted(found, key=_clearest) if p <= self.level)

    @property
    def last(self) -> bool:
        """Whether nothing is looked at after it."""
        return self.look == self.looks


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryTrial:
    """How a version came to be tried on canaries.

    Attributes:
        version: The version.
        profile: Digest of its profile.
        serving: The version that all others serve.
        peers: Digest of that one's profile.
        since_ns: When canaries were told, UTC nanoseconds.
        units: Units that each side must show.
        hours: Longest wait for them.
    """

    version: str
    profile: str
    serving: str
    peers: str
    since_ns: int
    units: int
    hours: float

    @property
    def until_ns(self) -> int:
        """When the wait ends, UTC nanoseconds."""
        return self.since_ns + int(self.hours * 3_600e9)


def _clearest(found: tuple[float, CanaryComparison]) -> float:
    return found[0]
