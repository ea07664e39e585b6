"""Series of the metric catalogue in the words of PromQL; nothing else gets into an expression."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from calidrift_agent._export import CATALOGUE, Metric, MetricType, metric

__all__ = ["ALL", "MODEL", "MODELS", "POINT", "Scope", "metrics_of", "unit_of"]

_PARTS: Final = ("", "_bucket", "_count", "_sum")
_NAME: Final = re.compile(r"\bcalidrift_[a-z_]+")
_RATE_UNITS: Final = {"{request}": "reqps", "s": "percentunit", "By": "Bps"}
_UNITS: Final = {"s": "s", "By": "bytes", "dB": "dB"}


@final
@dataclass(frozen=True, slots=True)
class Scope:
    """Which models and points a dashboard is about.

    Attributes:
        model: Matcher of the label `model` (`="$model"`); empty for all of them.
        point: Matcher of the label `point`; empty for all of them.
    """

    model: str = ""
    point: str = ""

    def series(self, name: str, *, part: str = "", **labels: str) -> str:
        """Write a selector; a matcher is left out where the metric lacks its label.

        Args:
            name: Name of a metric of the catalogue.
            part: For a histogram, `_bucket`, `_count` or `_sum`.
            **labels: More matchers, with their operators.

        Returns:
            The selector.

        Raises:
            KeyError: The catalogue has no such metric.
            ValueError: The metric lacks a label or a part.

        >>> Scope(model='="$model"').series("calidrift_exceedances_total")
        'calidrift_exceedances_total{model="$model"}'
        >>> Scope().series("calidrift_recalibrations_total", outcome='="failed"')
        'calidrift_recalibrations_total{outcome="failed"}'
        """
        entry = metric(name)
        if part not in _PARTS or (bool(part) != (entry.type is MetricType.HISTOGRAM)):
            raise ValueError(f"{name} is a {entry.type} and has no part {part!r}")
        if strange := set(labels) - set(entry.labels):
            raise ValueError(f"{name} has no label {sorted(strange)}; it has {entry.labels}")
        own = {"model": self.model, "point": self.point}
        matchers = {key: one for key, one in own.items() if one and key in entry.labels} | labels
        inside = ",".join(f"{key}{one}" for key, one in matchers.items())
        return f"{name}{part}" + (f"{{{inside}}}" if inside else "")


ALL: Final = Scope()
MODEL: Final = Scope(model='="$model"')
MODELS: Final = Scope(model='=~"$model"')
POINT: Final = Scope(model='="$model"', point='="$point"')


def metrics_of(expressions: Iterable[str]) -> tuple[Metric, ...]:
    """Give the catalogue entries that expressions use, each once, in order.

    Raises:
        KeyError: An expression names a metric that is not in the catalogue.

    >>> [entry.name for entry in metrics_of(["rate(calidrift_activation_range_ratio_count[5m])"])]
    ['calidrift_activation_range_ratio']
    """
    found: dict[str, Metric] = {}
    for name in (name for expression in expressions for name in _NAME.findall(expression)):
        bare = name
        for part in _PARTS[1:]:
            whole = name.removesuffix(part)
            if whole != name and whole in _HISTOGRAMS:
                bare = whole
        found[bare] = metric(bare)
    return tuple(found.values())


_HISTOGRAMS: Final = {entry.name for entry in CATALOGUE if entry.type is MetricType.HISTOGRAM}


def unit_of(entry: Metric) -> str:
    """Give Grafana's word for the unit in which a panel shows a metric.

    Counters are shown as rates: seconds per second are a ratio, and so on.

    >>> unit_of(metric("calidrift_coverage_ratio")), unit_of(metric("calidrift_sqnr_db"))
    ('percentunit', 'dB')
    >>> unit_of(metric("calidrift_agent_seen_requests_total"))
    'reqps'
    """
    if entry.type is MetricType.COUNTER:
        return _RATE_UNITS.get(entry.unit, "cps")
    if entry.name.endswith("_ratio") and entry.type is MetricType.GAUGE:
        return "percentunit"
    return _UNITS.get(entry.unit, "short")
