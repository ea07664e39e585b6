"""Figures that describe and never decide: seasons, and the range of the next million requests."""

from dataclasses import dataclass
from typing import final

__all__ = ["ReturnLevel", "Season", "Seasons"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnLevel:
    """Advisory: the absmax that one request in `requests` is expected to pass.

    Extrapolated from the maxima of *sampled* requests by a generalized Pareto tail; no alarm, and
    no range, is made of it alone.

    Attributes:
        requests: How many requests, sampled or not.
        level: The absmax, in the values of the point.
        low: Lower end of the 90 % bootstrap interval.
        high: Upper end.
        shape: Shape of the tail: above 0 heavy, below 0 bounded.
        threshold: Maxima above this made the fit.
        above: How many units they were.
        units: Of how many.
    """

    requests: int
    level: float
    low: float
    high: float
    shape: float
    threshold: float
    above: int
    units: int


@final
@dataclass(frozen=True, slots=True)
class Season:
    """Units of one hour of the day, or of one day of the week.

    Attributes:
        slot: Hour of the day in UTC, 0 to 23; or day of the week, 0 for Monday.
        units: Units observed.
        outside: Those of them outside the observed bound of some point.
    """

    slot: int
    units: int
    outside: int

    @property
    def share(self) -> float:
        """Share of the units outside."""
        return self.outside / self.units


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Seasons:
    """When units leave the ranges: a description, without a promise.

    Attributes:
        hours: Hours of the day (UTC) with units, ascending; empty before a day of data.
        weekdays: Days of the week with units, ascending; empty before a week of data.
        worst_hour: The hour whose share is largest even at its lower 95 % bound; None where no unit
            left a range.
        worst_weekday: The same of the days.
    """

    hours: tuple[Season, ...] = ()
    weekdays: tuple[Season, ...] = ()
    worst_hour: Season | None = None
    worst_weekday: Season | None = None
