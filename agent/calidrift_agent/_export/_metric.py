"""What the catalogue says about one metric."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import final


class MetricType(StrEnum):
    """Kind of a metric, in the words of the Prometheus text format."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    EXPONENTIAL = "exponential_histogram"
    """Of OpenTelemetry; the text format has no word for it."""


class Emitter(StrEnum):
    """Which process reports a metric."""

    AGENT = "agent"
    """The serving process, or a sidecar that reads its state files."""
    ANALYZER = "analyzer"
    SIDECAR = "sidecar"
    """A sidecar that pushes, over OTLP or to an analyzer."""
    FOLLOWER = "follower"
    """A serving process that follows a registry."""


@final
@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Prometheus name; counters end in `_total`.
        otel: OpenTelemetry name.
        type: Its kind.
        unit: UCUM unit, as OpenTelemetry wants it ("1" for ratios).
        labels: Label names, in order. Never a request id: all values come from a closed set.
        emitter: Which process reports it.
        help: One sentence.
    """

    name: str
    otel: str
    type: MetricType
    unit: str
    labels: tuple[str, ...]
    emitter: Emitter
    help: str
