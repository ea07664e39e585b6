"""What a sidecar counts about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric as Family

from calidrift_agent._export import metric

_ACCEPTED: Final = "calidrift_agent_exports_total"
_FAILED: Final = "calidrift_agent_export_failures_total"


@final
@dataclass(slots=True)
class PushFigures:
    """Pushes so far. One thread counts, any number read.

    Attributes:
        accepted: Pushes that the receiver took whole.
        failed: Pushes that failed after all tries, or that the receiver took in part.
    """

    accepted: int = 0
    failed: int = 0

    def families(self) -> list[Family]:
        """The same for Prometheus."""
        counted = ((_ACCEPTED, self.accepted), (_FAILED, self.failed))
        return [CounterMetricFamily(name, metric(name).help, value) for name, value in counted]
