"""Dashboards: rows of panels, variables, links and annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, final

from calidrift_analyzer.dashboards._expressions import appeared, drift_alarm
from calidrift_analyzer.dashboards._panel import DATASOURCE, Panel
from calidrift_analyzer.dashboards._series import Scope

__all__ = ["AGENTS_UID", "FLEET_UID", "MODEL_UID", "POINT_UID", "Dashboard", "Row", "Variable"]

SCHEMA_VERSION: Final = 41
"""Of Grafana 11.6 to 12; newer ones read it."""
TAG: Final = "calidrift"
FLEET_UID: Final = "calidrift-fleet"
MODEL_UID: Final = "calidrift-model"
POINT_UID: Final = "calidrift-point"
AGENTS_UID: Final = "calidrift-agents"

_COLUMNS: Final = 24
_HIDDEN: Final = 2
_ON_TIME_RANGE: Final = 2
_BY_NAME: Final = 1


@final
@dataclass(frozen=True, slots=True)
class Variable:
    """A choice above the panels, filled from the labels of a metric.

    Attributes:
        name: Its name; `$name` in expressions.
        metric: Selector of the metric whose label is listed.
        label: That label.
        several: Whether several values, and all, may be chosen.
    """

    name: str
    metric: str
    label: str
    several: bool = False

    @property
    def expr(self) -> str:
        """The query in the words of Grafana's Prometheus data source."""
        return f"label_values({self.metric}, {self.label})"

    def document(self) -> dict[str, Any]:
        """Write the variable as Grafana's JSON."""
        everything = {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}
        return {
            "name": self.name,
            "label": self.name,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"qryType": 1, "query": self.expr, "refId": "PrometheusVariableQueryEditor"},
            "refresh": _ON_TIME_RANGE,
            "regex": "",
            "sort": _BY_NAME,
            "hide": 0,
            "skipUrlSync": False,
            "multi": self.several,
            "includeAll": self.several,
            "options": [],
            **(everything if self.several else {}),
        }


@final
@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading.

    Attributes:
        title: The heading.
        panels: From left to right; a line is full at 24 columns.
    """

    title: str
    panels: tuple[Panel, ...]


@final
@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard.

    Attributes:
        uid: Its name in addresses; never changed.
        name: Name of its file.
        title: Its title.
        description: What question it answers.
        scope: Models and points that it is about.
        variables: Choices above the panels.
        rows: Its panels.
        page: Path on the Calidrift page that shows the same.
    """

    uid: str
    name: str
    title: str
    description: str
    scope: Scope
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    page: str

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)

    def annotations(self) -> dict[str, str]:
        """Give the expressions of what is marked on the time axis, by name.

        Each is non-empty exactly where something is to be marked.
        """
        promoted = self.scope.series("calidrift_recalibrations_total", outcome='="promoted"')
        return {
            "Drift alarm": f"({drift_alarm(self.scope)}) > 0",
            "Promotion": f"({appeared(promoted)}) > 0",
        }

    def document(self, page_url: str) -> dict[str, Any]:
        """Write the dashboard as Grafana's JSON.

        Args:
            page_url: Where the Calidrift page is, for people's browsers.

        Raises:
            KeyError: An expression uses a metric that the catalogue lacks.
        """
        colours = {"Drift alarm": "red", "Promotion": "green"}
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "editable": True,
            "graphTooltip": 1,
            "schemaVersion": SCHEMA_VERSION,
            "refresh": "1m",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "annotations": {
                "list": [
                    _BUILT_IN,
                    *(
                        _annotation(name, expr, colours[name])
                        for name, expr in self.annotations().items()
                    ),
                ]
            },
            "links": [_to_page(self.page), _to_dashboards()],
            "templating": {
                "list": [
                    _DATASOURCES,
                    *(variable.document() for variable in self.variables),
                    _page_variable(page_url),
                ]
            },
            "panels": self._panels(),
        }

    def _panels(self) -> list[dict[str, Any]]:
        documents: list[dict[str, Any]] = []
        y = 0
        for row in self.rows:
            documents.append(_heading(row.title, len(documents) + 1, y))
            y += 1
            x = tallest = 0
            for panel in row.panels:
                if x + panel.width > _COLUMNS:
                    x, y, tallest = 0, y + tallest, 0
                documents.append(panel.document(len(documents) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return documents


def _heading(title: str, number: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
        "panels": [],
    }


_BUILT_IN: Final = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}
_DATASOURCES: Final = {
    "name": "datasource",
    "label": "datasource",
    "type": "datasource",
    "query": "prometheus",
    "regex": "",
    "refresh": 1,
    "hide": 0,
    "skipUrlSync": False,
    "multi": False,
    "includeAll": False,
    "options": [],
}


def _page_variable(page_url: str) -> dict[str, Any]:
    option = {"selected": True, "text": page_url, "value": page_url}
    return {
        "name": "page",
        "label": "Calidrift page",
        "type": "textbox",
        "query": page_url,
        "hide": _HIDDEN,
        "skipUrlSync": True,
        "options": [option],
        "current": option,
    }


def _annotation(name: str, expr: str, colour: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "target": {
            **{"limit": 100, "matchAny": False, "tags": [], "type": "tags"},
            **{"refId": "Anno", "expr": expr, "legendFormat": "", "interval": ""},
        },
        "titleFormat": name,
        "textFormat": "{{model}}",
        "tagKeys": "model",
    }


def _to_page(path: str) -> dict[str, Any]:
    return {
        "title": "Calidrift page",
        "type": "link",
        "url": "${page}" + path,
        "icon": "external link",
        "tooltip": "Histograms, captured samples, jobs, validation, approval",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": False,
        "targetBlank": True,
    }


def _to_dashboards() -> dict[str, Any]:
    return {
        "title": "Calidrift",
        "type": "dashboards",
        "url": "",
        "icon": "dashboard",
        "tooltip": "The other dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }
