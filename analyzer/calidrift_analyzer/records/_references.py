"""Random units of production, on their way to become a reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument

__all__ = ["BurnIn", "ObservedUnits", "PointUnits"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class PointUnits:
    """What the first units of production showed at one point.

    Attributes:
        name: Name of the point.
        units: Units measured here; fewer than elsewhere where not every unit runs through it.
        not_finite: Of these, units that hold a NaN or an infinity.
        highest: Largest magnitude of the others; `None` where there are none.
        sketch: All values of the requests in the same windows.
    """

    name: str
    units: int
    not_finite: int
    highest: float | None
    sketch: MagnitudeSketch


@final
@dataclass(frozen=True, slots=True, eq=False)
class ObservedUnits:
    """The first random units that were observed under a profile, as whole windows.

    Windows are taken in the order in which they arrived, up to the one in which the wanted number
    of units is reached, whatever they hold.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile.
        instrument: What they were measured on.
        wanted: How many units were asked for.
        units: Units in the windows that were taken: at least `wanted`, or else all there are.
        measured: Units in all windows so far.
        began_ns: Start of the first window with a unit, UTC nanoseconds; 0 without any.
        until_ns: End of the last window with a unit so far; 0 without any.
        first_ns: Start of the first window that was taken; 0 without any.
        last_ns: End of the last window that was taken; 0 without any.
        windows: Windows that were taken.
        coarse_windows: Of these, windows that stand for several overwritten ones: their largest
            magnitude may be that of a later window, which makes a bound wider, never narrower.
        points: By name.
        segments: How many of them were of which segment of the traffic, an empty name for those of
            none; None where agents did not count them, as without bounds to compare with.
    """

    model: str
    profile: str
    instrument: Instrument
    wanted: int
    units: int
    measured: int
    began_ns: int
    until_ns: int
    first_ns: int
    last_ns: int
    windows: int
    coarse_windows: int
    points: tuple[PointUnits, ...]
    segments: Mapping[str, int] | None = None

    @property
    def missing(self) -> int:
        """Units that are still to come."""
        return max(0, self.wanted - self.units)

    @property
    def time_left(self) -> str:
        """How long the missing units take, in words; empty where that cannot be said."""
        span = (self.until_ns - self.began_ns) / 1e9
        known = self.measured and span > 0
        return _time_left(self.missing * span / self.measured if known else None)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BurnIn:
    """How far production has come on its way to a reference of its own.

    Attributes:
        units: Random units observed under the profile.
        wanted: Units that a reference is made of.
        seconds_left: How long the others take at the traffic so far; `None` where that cannot be
            said.
        provisional: There are bounds, but not of random units; without them there are none.
    """

    units: int
    wanted: int
    seconds_left: float | None
    provisional: bool

    @property
    def complete(self) -> bool:
        """Whether there are enough."""
        return self.units >= self.wanted

    @property
    def time_left(self) -> str:
        """How long the missing units take, in words; empty where that cannot be said."""
        return _time_left(self.seconds_left)


def _time_left(seconds: float | None) -> str:
    """Write how long something takes.

    >>> _time_left(42), _time_left(None)
    (', in about 42 s at this traffic', '')
    >>> _time_left(600), _time_left(200_000)
    (', in about 10 min at this traffic', ', in about 2.3 days at this traffic')
    """
    if seconds is None:
        return ""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f", in about {seconds / length:.2g} {unit} at this traffic"
    return f", in about {seconds:.2g} s at this traffic"
