"""Dashboards and alerts, made from the metric catalogue, and their way into Grafana.

`artefacts` gives every file: Grafana's dashboards, its alerts as provisioning files, Prometheus'
rules, and all of them as Kubernetes manifests. `push`, `pull` and `compare` do the same through
Grafana's API. Nothing here names a metric, a label or a unit that the catalogue lacks.
"""

from calidrift_analyzer.dashboards._alerts import RECORDINGS
from calidrift_analyzer.dashboards._artefacts import DASHBOARDS, Format, artefacts
from calidrift_analyzer.dashboards._client import Grafana, Patience
from calidrift_analyzer.dashboards._groups import ALERTS, GROUPS
from calidrift_analyzer.dashboards._sync import Item, State, compare, pull, push

__all__ = [
    "ALERTS",
    "DASHBOARDS",
    "GROUPS",
    "RECORDINGS",
    "Format",
    "Grafana",
    "Item",
    "Patience",
    "State",
    "artefacts",
    "compare",
    "pull",
    "push",
]
