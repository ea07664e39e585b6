"""Groups of rules in the three shapes: Prometheus, Grafana's API, Grafana's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, final

from calidrift_analyzer.config import GrafanaConfig
from calidrift_analyzer.dashboards._alerts import (
    AGENT_ALERTS,
    ANALYZER_ALERTS,
    TRAFFIC_ALERTS,
)
from calidrift_analyzer.dashboards._rules import Alert, Comparison

__all__ = ["ALERTS", "GROUPS", "AlertGroup", "file_rule", "group_document"]

INTERVAL_SECONDS: Final = 60
_RANGE_SECONDS: Final = 600
_EVALUATORS: Final = {Comparison.ABOVE: "gt", Comparison.BELOW: "lt"}


@final
@dataclass(frozen=True, slots=True)
class AlertGroup:
    """Alerts that are evaluated together.

    Attributes:
        name: Its name; in Grafana also its place in an address, never changed.
        alerts: Its alerts.
    """

    name: str
    alerts: tuple[Alert, ...]


GROUPS: Final = (
    AlertGroup("calidrift-traffic", TRAFFIC_ALERTS),
    AlertGroup("calidrift-agents", AGENT_ALERTS),
    AlertGroup("calidrift-analyzer", ANALYZER_ALERTS),
)
ALERTS: Final = tuple(alert for group in GROUPS for alert in group.alerts)
"""All alerts; each has a section in the runbook."""


def group_document(group: AlertGroup, config: GrafanaConfig) -> dict[str, Any]:
    """Write a group as the body of `PUT /v1/provisioning/folder/:uid/rule-groups/:group`."""
    return {
        "title": group.name,
        "folderUid": config.folder,
        "interval": INTERVAL_SECONDS,
        "rules": [
            {
                **file_rule(alert, config),
                "orgID": 1,
                "folderUID": config.folder,
                "ruleGroup": group.name,
            }
            for alert in group.alerts
        ],
    }


def file_rule(alert: Alert, config: GrafanaConfig) -> dict[str, Any]:
    """Write a rule as Grafana's provisioning files have it.

    No series is the good state of most alerts, so Grafana's "no data" counts as normal; that the
    analyzer is gone has an alert of its own.
    """
    told = {
        key: text.replace("$value", "$values.A.Value")
        for key, text in alert.annotations(config.runbook_url).items()
    }
    settings = {"notification_settings": {"receiver": config.receiver}} if config.receiver else {}
    return {
        "uid": alert.uid,
        "title": alert.name,
        "condition": "B",
        "data": [_query(alert, config.datasource), _threshold(alert)],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": alert.hold,
        "annotations": told,
        "labels": alert.labels,
        "isPaused": False,
        **settings,
    }


def _query(alert: Alert, datasource: str) -> dict[str, Any]:
    return {
        "refId": "A",
        "relativeTimeRange": {"from": _RANGE_SECONDS, "to": 0},
        "datasourceUid": datasource,
        "model": {
            "refId": "A",
            "datasource": {"type": "prometheus", "uid": datasource},
            "editorMode": "code",
            "expr": alert.value,
            "instant": True,
            "range": False,
            "intervalMs": 1000,
            "maxDataPoints": 43200,
        },
    }


def _threshold(alert: Alert) -> dict[str, Any]:
    evaluator = {"type": _EVALUATORS[alert.comparison], "params": [alert.limit]}
    return {
        "refId": "B",
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": "__expr__",
        "model": {
            "refId": "B",
            "datasource": {"type": "__expr__", "uid": "__expr__"},
            "type": "threshold",
            "expression": "A",
            "conditions": [{"evaluator": evaluator}],
            "intervalMs": 1000,
            "maxDataPoints": 43200,
        },
    }
