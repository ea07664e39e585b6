"""Pictures of one point: its values by magnitude, its ranges, and its figures over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from calidrift_analyzer.service._histogram import Histogram
from calidrift_analyzer.service._views import Series
from calidrift_analyzer.service.page._heat import told
from calidrift_analyzer.service.page._rendering import figure

__all__ = [
    "Bars",
    "Line",
    "Span",
    "Strip",
    "Tick",
    "Upright",
    "draw_bars",
    "draw_line",
    "draw_strip",
]

_WIDTH: Final = 1_000
_HEIGHT: Final = 220
_LEFT: Final = 76
_RIGHT: Final = 14
_FLOOR: Final = 1e-6
_DECADES: Final = 6
_LINE: Final = 72
_LABEL: Final = 190


@final
@dataclass(frozen=True, slots=True)
class Span:
    """A range of values with its name; `kind` is the class that draws it."""

    kind: str
    name: str
    low: float
    high: float


@final
@dataclass(frozen=True, slots=True)
class Tick:
    """A text at a place, pixels."""

    at: float
    text: str


@final
@dataclass(frozen=True, slots=True)
class Upright:
    """A line at a magnitude, pixels, with what it is."""

    kind: str
    at: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Shares by magnitude, both axes logarithmic: `now` is an area, `before` a line."""

    width: int
    height: int
    left: int
    base: int
    now: str
    before: str
    uprights: tuple[Upright, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@final
@dataclass(frozen=True, slots=True)
class Strip:
    """Ranges below each other on one axis of values, pixels: name, kind, place, width, row."""

    width: int
    height: int
    zero: float
    rows: tuple[tuple[str, str, float, float, int], ...]
    ticks: tuple[Tick, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure over time; the path has a gap where nothing is known."""

    width: int
    height: int
    left: int
    path: str
    dots: tuple[tuple[float, float], ...]
    top: str
    bottom: str
    newest: str


def draw_bars(histogram: Histogram, spans: Sequence[Span]) -> Bars | None:
    """Draw the values of a point by magnitude; `None` where only zeros were seen."""
    bars = histogram.bars
    if not bars:
        return None
    inner = _WIDTH - _LEFT - _RIGHT
    low, high = math.log2(bars[0].low), math.log2(bars[-1].high)
    edges = sorted({abs(end) for span in spans for end in (span.low, span.high)} - {0.0})
    high = max([high, *(math.log2(edge) for edge in edges if math.isfinite(edge))])
    scale = inner / (high - low)

    def across(magnitude: float) -> float:
        return round(_LEFT + (math.log2(magnitude) - low) * scale, 1)

    def area(shares: Sequence[float | None]) -> str:
        if all(share is None for share in shares):
            return ""
        steps = [f"M{across(bars[0].low)} {_HEIGHT}"]
        for bar, share in zip(bars, shares, strict=True):
            steps.append(f"V{_up(share or 0.0)}H{across(bar.high)}")
        return "".join([*steps, f"V{_HEIGHT}"])

    uprights = [
        Upright(span.kind, across(end))
        for span in spans
        for end in sorted({abs(span.low), abs(span.high)})
        if end > 0 and math.log2(end) >= low
    ]
    octaves = max(1, math.ceil((high - low) / 10))
    return Bars(
        width=_WIDTH,
        height=_HEIGHT + 40,
        left=_LEFT,
        base=_HEIGHT,
        now=area([bar.production for bar in bars]),
        before=area([bar.calibration for bar in bars]),
        uprights=tuple(uprights),
        x_ticks=tuple(
            Tick(across(2.0**power), f"{2.0**power:.3g}")
            for power in range(math.ceil(low), math.floor(high) + 1, octaves)
        ),
        y_ticks=tuple(
            Tick(_up(10.0**-power), f"{100 * 10.0**-power:g} %")
            for power in range(0, _DECADES + 1, 2)
        ),
    )


def draw_strip(spans: Sequence[Span]) -> Strip | None:
    """Draw ranges on one axis of values; `None` where there is none, or all are empty."""
    ends = [abs(end) for span in spans for end in (span.low, span.high)]
    most = max(ends, default=0.0)
    if not most:
        return None
    inner = _WIDTH - _LABEL - _RIGHT
    lowest = min(0.0, *(span.low for span in spans))
    highest = max(0.0, *(span.high for span in spans))
    scale = inner / (highest - lowest)

    def across(value: float) -> float:
        return round(_LABEL + (value - lowest) * scale, 1)

    return Strip(
        width=_WIDTH,
        height=len(spans) * 28 + 24,
        zero=across(0.0),
        rows=tuple(
            (one.name, one.kind, across(one.low), max(1.0, across(one.high) - across(one.low)), row)
            for row, one in enumerate(spans)
        ),
        ticks=tuple(Tick(across(value), figure(value)) for value in sorted({lowest, 0.0, highest})),
    )


def draw_line(series: Series) -> Line | None:
    """Draw the first point of a series over time; `None` where nothing is known."""
    values = series.points[0].values if series.points else ()
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    height = (high - low) or 1.0
    step = (_WIDTH - _LEFT - _RIGHT) / len(values)
    places = [
        None
        if value is None
        else (round(_LEFT + (at + 0.5) * step, 1), round(8 + (high - value) / height * _LINE, 1))
        for at, value in enumerate(values)
    ]
    path, drawing = [], False
    for place in places:
        if place is not None:
            path.append(f"{'L' if drawing else 'M'}{place[0]} {place[1]}")
        drawing = place is not None
    alone = [
        place
        for before, place, after in zip([None, *places], places, [*places[1:], None], strict=False)
        if place is not None and before is None and after is None
    ]
    return Line(
        width=_WIDTH,
        height=_LINE + 18,
        left=_LEFT,
        path="".join(path),
        dots=tuple(alone),
        top=told(series.measure, high),
        bottom=told(series.measure, low),
        newest=told(series.measure, known[-1]),
    )


def _up(share: float) -> float:
    """Give the place of a share on the logarithmic axis."""
    return round(_HEIGHT * -math.log10(max(share, _FLOOR)) / _DECADES, 1)
