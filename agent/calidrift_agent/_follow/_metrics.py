"""What a follower exports to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from calidrift_agent._export import metric
from calidrift_agent._follow._status import FollowStatus

_INFO = metric("calidrift_agent_version_info")
_BEHIND = metric("calidrift_agent_version_behind")
_ATTEMPTS = metric("calidrift_agent_version_attempts_total")
_CANARY = metric("calidrift_agent_version_canary")


@final
class FollowerCollector(Collector):
    """Reports a follower to a `prometheus_client` registry.

    Args:
        status: Where the follower stands.
    """

    def __init__(self, status: Callable[[], FollowStatus]) -> None:
        self._status = status

    def describe(self) -> Iterable[Family]:
        """Names of everything that may be reported."""
        return self._families()

    def collect(self) -> Iterable[Family]:
        """The version that serves, whether it is another one than wanted or tried, and attempts."""
        status = self._status()
        info, behind, canary, attempts = self._families()
        if status.serving is not None:
            info.add_metric([status.model, status.serving], 1.0)
        if status.wanted is not None:
            behind.add_metric([status.model], float(status.wanted != status.serving))
        canary.add_metric([status.model], float(status.trial))
        for outcome, number in status.attempts.items():
            attempts.add_metric([status.model, outcome], float(number))
        return [one for one in (info, behind, canary, attempts) if one.samples]

    def _families(
        self,
    ) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily]:
        return (
            GaugeMetricFamily(_INFO.name, _INFO.help, labels=_INFO.labels),
            GaugeMetricFamily(_BEHIND.name, _BEHIND.help, labels=_BEHIND.labels),
            GaugeMetricFamily(_CANARY.name, _CANARY.help, labels=_CANARY.labels),
            CounterMetricFamily(_ATTEMPTS.name, _ATTEMPTS.help, labels=_ATTEMPTS.labels),
        )
