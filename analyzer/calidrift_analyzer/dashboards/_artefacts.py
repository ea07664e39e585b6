"""Every file that Grafana, Prometheus and Kubernetes are given, made from one source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final, final

from jinja2 import Environment, PackageLoader, StrictUndefined

from calidrift_analyzer.config import GrafanaConfig
from calidrift_analyzer.dashboards._agents import AGENTS
from calidrift_analyzer.dashboards._alerts import RECORDINGS
from calidrift_analyzer.dashboards._fleet import FLEET
from calidrift_analyzer.dashboards._groups import GROUPS, INTERVAL_SECONDS, file_rule
from calidrift_analyzer.dashboards._model import MODEL_DASHBOARD
from calidrift_analyzer.dashboards._point import POINT_DASHBOARD

__all__ = ["DASHBOARDS", "FOLDER_TITLE", "Format", "artefacts", "dashboard_text"]

DASHBOARDS: Final = (FLEET, MODEL_DASHBOARD, POINT_DASHBOARD, AGENTS)
"""All dashboards, in the order in which people meet them."""
FOLDER_TITLE: Final = "Calidrift"
DASHBOARD_PATH: Final = "/var/lib/grafana/dashboards/calidrift"
"""Where the provider file looks for dashboards inside Grafana's container."""


@final
class Format(StrEnum):
    """In which form artefacts are written."""

    FILES = "files"
    """As Grafana's file provisioning and Prometheus' `rule_files` read them."""
    CONFIGMAP = "configmap"
    """As Kubernetes manifests: ConfigMaps, and a PrometheusRule for the operator."""


def artefacts(config: GrafanaConfig, form: Format) -> dict[str, str]:
    """Make all files of a form.

    Args:
        config: What the links lead to, and whom alerts are sent to.
        form: The form.

    Returns:
        The text of each file by its path, both the same for the same settings.
    """
    found = _files(config) if form is Format.FILES else _manifests(config)
    return dict(found)


def dashboard_text(document: Mapping[str, Any]) -> str:
    """Write a dashboard so that a change is a short difference."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _files(config: GrafanaConfig) -> Iterator[tuple[str, str]]:
    for dashboard in DASHBOARDS:
        document = dashboard.document(config.page_url)
        yield f"grafana/{dashboard.name}.json", dashboard_text(document)
    yield (
        "grafana/provisioning/dashboards/calidrift.yaml",
        _fill("provider.yaml.j2", folder=config.folder, path=DASHBOARD_PATH),
    )
    yield "grafana/provisioning/alerting/calidrift.yaml", _alerting(config)
    yield "prometheus/calidrift-recording.yml", _recording()
    yield "prometheus/calidrift-alerts.yml", _alerts(config)


def _manifests(config: GrafanaConfig) -> Iterator[tuple[str, str]]:
    names = []
    for dashboard in DASHBOARDS:
        names.append(f"dashboard-{dashboard.name}.yaml")
        text = dashboard_text(dashboard.document(config.page_url))
        yield (
            f"kubernetes/{names[-1]}",
            _configmap(dashboard.uid, "grafana_dashboard", f"{dashboard.uid}.json", text),
        )
    names.append("grafana-alerting.yaml")
    yield (
        f"kubernetes/{names[-1]}",
        _configmap(
            "calidrift-alerting", "grafana_alert", "calidrift-alerting.yaml", _alerting(config)
        ),
    )
    names.append("prometheus-rule.yaml")
    texts = [text.split("groups:\n", 1)[1].strip() for text in (_recording(), _alerts(config))]
    yield f"kubernetes/{names[-1]}", _fill("prometheus-rule.yaml.j2", texts=texts)
    yield "kubernetes/kustomization.yaml", _fill("kustomization.yaml.j2", names=names)


def _configmap(name: str, label: str, file: str, text: str) -> str:
    return _fill("configmap.yaml.j2", name=name, label=label, file=file, text=text.rstrip("\n"))


def _alerting(config: GrafanaConfig) -> str:
    groups = [
        {"name": group.name, "rules": [file_rule(alert, config) for alert in group.alerts]}
        for group in GROUPS
    ]
    return _fill("alerting.yaml.j2", groups=groups)


def _recording() -> str:
    return _fill("recording.yml.j2", recordings=RECORDINGS)


def _alerts(config: GrafanaConfig) -> str:
    return _fill("alerts.yml.j2", groups=GROUPS, runbook_url=config.runbook_url)


def _fill(template: str, **values: object) -> str:
    """Fill a template; every value that is not a plain name goes through `quoted`."""
    common = {"interval": INTERVAL_SECONDS, "folder_title": FOLDER_TITLE}
    return _environment().get_template(template).render(common, **values)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("calidrift_analyzer.dashboards", "_templates"),
        autoescape=False,  # this is YAML for machines, not HTML
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    found.filters["quoted"] = _quoted
    return found


def _quoted(value: object) -> str:
    """Write a value as YAML: every JSON text is one, on one line.

    >>> _quoted("{{ $value }}: 1"), _quoted({"severity": "critical"})
    ('"{{ $value }}: 1"', '{"severity": "critical"}')
    """
    return json.dumps(value, ensure_ascii=False)
