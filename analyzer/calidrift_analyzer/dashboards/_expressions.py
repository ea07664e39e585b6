"""Expressions that several panels and alerts share, over a scope and a window."""

from __future__ import annotations

from typing import Final

from calidrift_analyzer.dashboards._series import Scope

__all__ = [
    "INTERVAL",
    "appeared",
    "blind_points",
    "drift_alarm",
    "exceedance_ratio",
    "overhead_ratio",
    "quantile",
    "rate",
    "saturated_ratio",
    "worst",
]

INTERVAL: Final = "$__rate_interval"
"""Grafana's window for rates: four scrapes at least."""


def rate(selector: str, window: str = INTERVAL) -> str:
    """Give the rate of a counter per second.

    >>> rate("calidrift_exceedances_total", "5m")
    'rate(calidrift_exceedances_total[5m])'
    """
    return f"rate({selector}[{window}])"


def appeared(selector: str, window: str = INTERVAL) -> str:
    """Give something for the models of which a counter grew within a window, or began to exist.

    A counter that is first seen at 1 has not grown for `increase`, and a first failure or promotion
    is just that. Instances are folded, so that a restarted analyzer begins nothing.
    """
    now, before = f"max by (model) ({selector})", f"max by (model) ({selector} offset {window})"
    return f"(max by (model) (increase({selector}[{window}])) > 0) or ({now} unless {before})"


def drift_alarm(scope: Scope) -> str:
    """Give 1 for models of which something alarms, else 0: points, service levels, harm.

    What alarms comes first: `or` keeps the left side where both have a model.
    """
    others = ("service_level", "segment", "harm")
    standing = (
        f"(max by (model) ({scope.series(f'calidrift_{kind}_alarm')}) > 0) or " for kind in others
    )
    return f"{''.join(standing)}max by (model) ({scope.series('calidrift_drift_alarm')})"


def exceedance_ratio(scope: Scope, window: str = INTERVAL) -> str:
    """Give the share of units that left the observed bound of a point, by model and point."""
    above = rate(scope.series("calidrift_exceedances_total"), window)
    units = rate(scope.series("calidrift_activation_range_ratio", part="_count"), window)
    return f"sum by (model, point) ({above}) / sum by (model, point) ({units})"


def saturated_ratio(scope: Scope, window: str = INTERVAL) -> str:
    """Give the share of elements that the clip range cuts off, by model and point."""
    cut = rate(scope.series("calidrift_saturated_elements_total"), window)
    elements = rate(scope.series("calidrift_observed_elements_total"), window)
    return f"sum by (model, point) ({cut}) / sum by (model, point) ({elements})"


def overhead_ratio(scope: Scope, window: str = INTERVAL) -> str:
    """Give the agent's own time, divided by the forward time of the model, by model."""
    own = rate(scope.series("calidrift_agent_overhead_seconds_total"), window)
    forward = rate(scope.series("calidrift_agent_forward_seconds_total"), window)
    return f"sum by (model) ({own}) / sum by (model) ({forward})"


def blind_points(scope: Scope, least_requests: int = 0) -> str:
    """Give how many points a process attached to that never fired there: the worst process's.

    Args:
        scope: Models.
        least_requests: Observed requests within half an hour that a process must have had; in an
            idle one no point fires, and none of them is blind.
    """
    expected = scope.series("calidrift_agent_points_expected")
    observed = scope.series("calidrift_agent_points_observed")
    blind = f"{expected} - {observed}"
    if least_requests:
        requests = scope.series("calidrift_observed_requests_total")
        blind = f"({blind}) and increase({requests}[30m]) > {least_requests}"
    return f"max by (model) ({blind})"


def worst(scope: Scope, name: str) -> str:
    """Give the lowest figure among the points of each model.

    >>> from calidrift_analyzer.dashboards._series import ALL
    >>> worst(ALL, "calidrift_sqnr_change_db")
    'min by (model) (calidrift_sqnr_change_db)'
    """
    return f"min by (model) ({scope.series(name)})"


def quantile(share: float, name: str, scope: Scope, by: str) -> str:
    """Give a quantile of a histogram of the catalogue, by a label."""
    buckets = rate(scope.series(name, part="_bucket"))
    return f"histogram_quantile({share}, sum by (le, {by}) ({buckets}))"
