"""Panels: what they show, and how Grafana is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, final

from calidrift_analyzer.dashboards._series import metrics_of, unit_of

__all__ = ["BAD_ABOVE", "Column", "Panel", "PanelKind", "Query", "Step", "bad_below"]

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_NOTHING: Final = "no data"
"""What a panel says where there is no sample: it must not look like a zero."""


@final
class PanelKind(StrEnum):
    """Visualization, in Grafana's words."""

    HEATMAP = "heatmap"
    STAT = "stat"
    STATES = "state-timeline"
    TABLE = "table"
    TIME_SERIES = "timeseries"


@final
@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel.

    Attributes:
        expr: PromQL with Grafana's variables.
        legend: How its series are called, with `{{label}}`; a column's heading in a table.
    """

    expr: str
    legend: str = ""


@final
@dataclass(frozen=True, slots=True)
class Step:
    """A colour from a value on.

    Attributes:
        colour: One of Grafana's names.
        value: Least value; `None` for the colour of everything below the first step.
    """

    colour: str
    value: float | None = None


BAD_ABOVE: Final = (Step("green"), Step("red", 1))
"""Green at 0, red from 1 on: of flags and of counts that should be 0."""


def bad_below(warning: float, good: float) -> tuple[Step, ...]:
    """Give the colours of a figure that should be high."""
    return (Step("red"), Step("orange", warning), Step("green", good))


@final
@dataclass(frozen=True, slots=True)
class Column:
    """How a table shows one of its queries.

    Attributes:
        heading: Its heading: the legend of the query, or a label.
        unit: Grafana's unit; empty for none.
        steps: Colours of its cells.
        link: Where a click leads, with Grafana's variables; empty for nowhere.
        words: Texts in place of numbers.
    """

    heading: str
    unit: str = ""
    steps: tuple[Step, ...] = ()
    link: str = ""
    words: Mapping[int, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows, in words.
        kind: Visualization.
        queries: Its expressions.
        unit: Grafana's unit; empty: that of the first metric of the catalogue that is used.
        note: A sentence above the explanations that the catalogue gives of the metrics.
        steps: Colours by value.
        width: In columns, of 24.
        height: In rows of 30 pixels.
        logarithmic: Whether the scale of the values is.
        lowest: Least value of the scale; `None`: as the data are.
        highest: Greatest value of the scale.
        words: Texts in place of numbers.
        link: Where a click on a series leads; empty for nowhere.
        columns: For a table, how columns are shown.
    """

    title: str
    kind: PanelKind
    queries: tuple[Query, ...]
    unit: str = ""
    note: str = ""
    steps: tuple[Step, ...] = ()
    width: int = 12
    height: int = 8
    logarithmic: bool = False
    lowest: float | None = None
    highest: float | None = None
    words: Mapping[int, str] = field(default_factory=dict)
    link: str = ""
    columns: tuple[Column, ...] = ()

    def document(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Write the panel as Grafana's JSON.

        Args:
            number: Its id, from 1.
            x: Its first column.
            y: Its first row.

        Raises:
            KeyError: An expression uses a metric that the catalogue lacks.
        """
        return {
            "id": number,
            "type": self.kind.value,
            "title": self.title,
            "description": self._description(),
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(place, one) for place, one in enumerate(self.queries)],
            "fieldConfig": {
                "defaults": self._defaults(),
                "overrides": [_override(one) for one in self.columns],
            },
            "options": _OPTIONS[self.kind],
            **self._transformations(),
        }

    def _description(self) -> str:
        entries = metrics_of(query.expr for query in self.queries)
        told = [f"- `{entry.name}`: {entry.help}" for entry in entries]
        return "\n".join([*([self.note, ""] if self.note else []), *told])

    def _target(self, place: int, query: Query) -> dict[str, Any]:
        at_once = self.kind in {PanelKind.STAT, PanelKind.TABLE}
        shape = {PanelKind.TABLE: "table", PanelKind.HEATMAP: "heatmap"}
        return {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "format": shape.get(self.kind, "time_series"),
            "instant": at_once,
            "range": not at_once,
        }

    def _defaults(self) -> dict[str, Any]:
        unit = self.unit or unit_of(metrics_of(query.expr for query in self.queries)[0])
        limits = {"min": self.lowest, "max": self.highest}
        return {
            "unit": unit,
            "noValue": _NOTHING,
            "color": {"mode": "thresholds" if self._coloured() else "palette-classic"},
            "thresholds": _thresholds(self.steps),
            "mappings": _mappings(self.words),
            "links": _links(self.link),
            "custom": self._custom(),
            **{key: value for key, value in limits.items() if value is not None},
        }

    def _coloured(self) -> bool:
        return self.kind in {PanelKind.STAT, PanelKind.STATES}

    def _custom(self) -> dict[str, Any]:
        if self.kind is not PanelKind.TIME_SERIES:
            return {}
        scale = {"type": "log", "log": 10} if self.logarithmic else {"type": "linear"}
        return {
            "drawStyle": "line",
            "fillOpacity": 5,
            "lineWidth": 1,
            "scaleDistribution": scale,
            "showPoints": "auto",
            "spanNulls": False,
            "thresholdsStyle": {"mode": "dashed" if self.steps else "off"},
        }

    def _transformations(self) -> dict[str, Any]:
        if self.kind is not PanelKind.TABLE:
            return {}
        several = len(self.queries) > 1  # the value of a single query has no letter
        letters = [chr(ord("A") + place) for place in range(len(self.queries))]
        values = [f"Value #{letter}" if several else "Value" for letter in letters]
        renamed = zip(values, (query.legend for query in self.queries), strict=True)
        organized = {
            "excludeByName": {"Time": True},
            "indexByName": {},
            "renameByName": dict(renamed),
        }
        return {
            "transformations": [
                {"id": "merge", "options": {}},
                {"id": "organize", "options": organized},
            ]
        }


def _override(column: Column) -> dict[str, Any]:
    properties: list[dict[str, Any]] = []
    if column.unit:
        properties.append({"id": "unit", "value": column.unit})
    if column.steps:
        properties.append({"id": "thresholds", "value": _thresholds(column.steps)})
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    if column.words:
        properties.append({"id": "mappings", "value": _mappings(column.words)})
    if column.link:
        properties.append({"id": "links", "value": _links(column.link)})
    return {"matcher": {"id": "byName", "options": column.heading}, "properties": properties}


def _thresholds(steps: Sequence[Step]) -> dict[str, Any]:
    shown = steps or (Step("text"),)
    return {
        "mode": "absolute",
        "steps": [{"color": step.colour, "value": step.value} for step in shown],
    }


def _mappings(words: Mapping[int, str]) -> list[dict[str, Any]]:
    if not words:
        return []
    told = {str(value): {"text": text, "index": value} for value, text in words.items()}
    return [{"type": "value", "options": told}]


def _links(link: str) -> list[dict[str, Any]]:
    return [{"title": "Open", "url": link, "targetBlank": False}] if link else []


_LEGEND: Final = {
    "displayMode": "table",
    "placement": "bottom",
    "calcs": ["lastNotNull"],
    "showLegend": True,
}
_OPTIONS: Final[Mapping[PanelKind, Mapping[str, Any]]] = {
    PanelKind.TIME_SERIES: {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    PanelKind.STAT: {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
        "wideLayout": True,
    },
    PanelKind.TABLE: {"cellHeight": "sm", "showHeader": True},
    PanelKind.STATES: {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    },
    PanelKind.HEATMAP: {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "exponent": 0.5,
            "fill": "dark-orange",
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Oranges",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False},
    },
}
