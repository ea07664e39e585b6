"""The heat map of points by time: a picture of few bytes, however many cells it has."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Final, final

from calidrift_analyzer.service._views import Measure, Series
from calidrift_analyzer.service.page._rendering import figure, percent, when

__all__ = ["HeatMap", "Label", "LevelPath", "Mark", "draw_heat", "level", "shorten", "told"]

ROW: Final = 16
LEFT: Final = 250
_WIDTH: Final = 760
_TOP: Final = 22
_TICKS: Final = 6
_LETTERS: Final = 36
_NEAR: Final = 14.0
_RIGHT: Final = 40
_SHARES: Final = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
_ENERGIES: Final = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)
_DECIBELS: Final = (0.5, 1.0, 2.0, 3.0, 6.0, 10.0, 20.0)
_STEPS: Final[Mapping[Measure, Sequence[float]]] = MappingProxyType(
    {
        Measure.COVERAGE: _SHARES,
        Measure.EXCEEDANCE: _SHARES,
        Measure.CLIPPED_ENERGY: _ENERGIES,
        Measure.SQNR_CHANGE: _DECIBELS,
    }
)


@final
@dataclass(frozen=True, slots=True)
class LevelPath:
    """All cells of one level as one path, in units of cells."""

    level: int
    path: str


@final
@dataclass(frozen=True, slots=True)
class Label:
    """A text at a place, in pixels."""

    at: int
    text: str


@final
@dataclass(frozen=True, slots=True)
class Mark:
    """Moments that are marked, in pixels, with their numbers in the list below the picture."""

    at: float
    text: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """What the template draws.

    Attributes:
        width: Of the whole picture, pixels.
        height: Likewise.
        left: Where the cells begin.
        top: Likewise.
        cell: Width of a cell.
        row: Height of a cell.
        paths: Cells by level; those of which nothing is known are in none.
        rows: Names of the points.
        ticks: Moments below the cells.
        marks: Marked moments.
        legend: What each level means, in words.
        text: The picture in one sentence.
    """

    width: int
    height: int
    left: int
    top: int
    cell: float
    row: int
    paths: tuple[LevelPath, ...]
    rows: tuple[Label, ...]
    ticks: tuple[Label, ...]
    marks: tuple[Mark, ...]
    legend: tuple[str, ...]
    text: str


def level(measure: Measure, value: float) -> int:
    """Give how bad a value is, from 0 (as calibrated) to 7.

    >>> level(Measure.COVERAGE, 1.0), level(Measure.COVERAGE, 0.5), level(Measure.SQNR_CHANGE, 3.0)
    (0, 7, 0)
    >>> level(Measure.SQNR_CHANGE, -4.0), level(Measure.EXCEEDANCE, 0.0)
    (4, 0)
    """
    harm = _harm(measure, value)
    steps = _STEPS[measure]
    if measure is Measure.SQNR_CHANGE:
        return bisect_right(steps, harm)
    return 0 if harm <= 0 else bisect_right(steps, harm)


def told(measure: Measure, value: float | None) -> str:
    """Write a value of a measure."""
    if measure is Measure.SQNR_CHANGE:
        return figure(value, 3, "dB")
    return figure(value, 2) if measure is Measure.CLIPPED_ENERGY else percent(value)


def shorten(name: str, letters: int = _LETTERS) -> str:
    """Leave out the middle of a long name.

    >>> shorten("encoder.layers.3.attention:input", 13)
    'encode…:input'
    """
    if len(name) <= letters:
        return name
    half = (letters - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-(letters - 1 - half) :]}"


def draw_heat(
    series: Series, marked: Sequence[datetime] = (), first: int = 0, most: int = 200
) -> HeatMap:
    """Draw points by time, the worst on top.

    Args:
        series: Points by slices of time.
        marked: Moments to mark, in the order of their list.
        first: Row to begin with.
        most: At most so many rows.
    """
    shown = series.points[first : first + most]
    columns = len(series.starts)
    cell = (_WIDTH - _RIGHT) / columns
    found: dict[int, list[str]] = {}
    worst: tuple[int, float, str, datetime] | None = None
    for row, point in enumerate(shown):
        for start, length, what in _runs(series.measure, point.values):
            found.setdefault(what, []).append(f"M{start} {row}h{length}")
        for value, moment in zip(point.values, series.starts, strict=True):
            if value is None:
                continue
            here = (level(series.measure, value), _harm(series.measure, value), point.point, moment)
            worst = here if worst is None or here[:2] > worst[:2] else worst
    begin, step = series.starts[0], timedelta(seconds=series.step_seconds)
    places = [(moment - begin) / step * cell for moment in marked]
    return HeatMap(
        width=LEFT + _WIDTH,
        height=_TOP + len(shown) * ROW + 26,
        left=LEFT,
        top=_TOP,
        cell=round(cell, 3),
        row=ROW,
        paths=tuple(LevelPath(what, "".join(found[what])) for what in sorted(found)),
        rows=tuple(
            Label(_TOP + row * ROW + 12, shorten(one.point)) for row, one in enumerate(shown)
        ),
        ticks=_ticks(series, cell),
        marks=_marks(places, columns * cell),
        legend=_legend(series.measure),
        text=_sentence(series, len(shown), worst),
    )


def _harm(measure: Measure, value: float) -> float:
    if measure is Measure.COVERAGE:
        return 1.0 - value
    return -value if measure is Measure.SQNR_CHANGE else value


def _runs(measure: Measure, values: Sequence[float | None]) -> list[tuple[int, int, int]]:
    """Give start, length and level of neighbours of one level."""
    found: list[tuple[int, int, int]] = []
    for column, value in enumerate(values):
        if value is None:
            continue
        what = level(measure, value)
        if found and found[-1][2] == what and found[-1][0] + found[-1][1] == column:
            start, length, _ = found.pop()
            found.append((start, length + 1, what))
        else:
            found.append((column, 1, what))
    return found


def _ticks(series: Series, cell: float) -> tuple[Label, ...]:
    every = max(1, len(series.starts) // _TICKS)
    days = series.step_seconds * len(series.starts) > 2 * 86_400
    form = "%d %b" if days else "%H:%M"
    return tuple(
        Label(round(LEFT + place * cell), series.starts[place].strftime(form))
        for place in range(0, len(series.starts), every)
    )


def _marks(places: Sequence[float], width: float) -> tuple[Mark, ...]:
    """Put moments beside the cells; the numbers of those too near to be told apart stand together.

    >>> _marks([9.0, 5.0, -1.0], 100.0)
    (Mark(at=255.0, text='2, 1'),)
    """
    groups: list[tuple[float, list[int]]] = []
    for place, number in sorted(zip(places, range(1, len(places) + 1), strict=True)):
        if groups and place - groups[-1][0] < _NEAR:
            groups[-1][1].append(number)
        elif 0 <= place <= width:
            groups.append((place, [number]))
    return tuple(
        Mark(round(LEFT + place, 1), ", ".join(map(str, numbers))) for place, numbers in groups
    )


def _legend(measure: Measure) -> tuple[str, ...]:
    steps = _STEPS[measure]
    if measure is Measure.SQNR_CHANGE:
        lost = [f"{step:g}" for step in steps]
        pairs = pairwise(lost)
        middle = [f"{low} to {high} dB lost" for low, high in pairs]
        return (f"less than {lost[0]} dB lost", *middle, f"{lost[-1]} dB lost or more")
    what = "energy clipped" if measure is Measure.CLIPPED_ENERGY else "outside"
    shares = [f"{step * 100:g} %" for step in steps[1:]]
    middle = [f"{low} to {high} {what}" for low, high in pairwise(shares)]
    return (f"nothing {what}", f"up to {shares[0]} {what}", *middle, f"{shares[-1]} or more {what}")


def _sentence(series: Series, rows: int, worst: tuple[int, float, str, datetime] | None) -> str:
    where = f"{rows} points by {len(series.starts)} slices of time"
    if worst is None:
        return f"{where}; nothing is known in any of them."
    _, harm, point, moment = worst
    value = {Measure.COVERAGE: 1.0 - harm, Measure.SQNR_CHANGE: -harm}.get(series.measure, harm)
    return f"{where}. The worst one is {point} from {when(moment)}: {told(series.measure, value)}."
