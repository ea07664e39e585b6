"""What is told about a version on canaries."""

from dataclasses import dataclass
from datetime import datetime
from typing import final

from calidrift_analyzer.records import CanaryMeasure

__all__ = ["CanaryMeasureView", "CanaryView"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryMeasureView:
    """One measure of canaries beside their peers, as the last look found it.

    `p` is the probability that canaries as good as their peers show so many or more; a measure is
    `worse` where that is too small to be chance.
    """

    measure: CanaryMeasure
    canary_bad: int
    canary_of: int
    peers_bad: int
    peers_of: int
    p: float | None
    worse: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryView:
    """A version on canaries.

    Attributes:
        version: The version that is tried.
        serving: The version that all others served when it began.
        since: When it began.
        until: When it is withdrawn for want of units.
        units: Units that canaries have shown: by now while it is tried, else by the last look.
        peers: Units that their peers have shown in the same time.
        wanted: Units that each side must show.
        look: Number of the last look; 0 before the first one.
        looks: How many looks there are at most.
        measures: What the last look found; empty before the first one.
    """

    version: str
    serving: str
    since: datetime | None
    until: datetime | None
    units: int
    peers: int
    wanted: int
    look: int
    looks: int
    measures: tuple[CanaryMeasureView, ...] = ()
