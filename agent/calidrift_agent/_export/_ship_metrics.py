"""The part of the catalogue that a sidecar reports which pushes windows to an analyzer."""

from __future__ import annotations

from typing import Final

from calidrift_agent._export._metric import Emitter, Metric, MetricType

SHIP_METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "calidrift_agent_pushed_windows_total",
        "calidrift.agent.pushed_windows",
        MetricType.COUNTER,
        "{window}",
        (),
        Emitter.SIDECAR,
        "Windows that a sidecar pushed and that were new to the analyzer.",
    ),
    Metric(
        "calidrift_agent_push_failures_total",
        "calidrift.agent.push_failures",
        MetricType.COUNTER,
        "{push}",
        ("kind",),
        Emitter.SIDECAR,
        "Pushes to the analyzer that failed, by kind; all but `refused` are repeated.",
    ),
    Metric(
        "calidrift_agent_push_lost_windows_total",
        "calidrift.agent.push_lost_windows",
        MetricType.COUNTER,
        "{window}",
        (),
        Emitter.SIDECAR,
        "Windows that will not reach the analyzer: refused, or dropped for want of space.",
    ),
    Metric(
        "calidrift_agent_push_spool_bytes",
        "calidrift.agent.push_spool_size",
        MetricType.GAUGE,
        "By",
        (),
        Emitter.SIDECAR,
        "Size of what waits on the sidecar's disk for the analyzer.",
    ),
    Metric(
        "calidrift_agent_push_age_seconds",
        "calidrift.agent.push_age",
        MetricType.GAUGE,
        "s",
        (),
        Emitter.SIDECAR,
        "Time since the analyzer last answered a push with success.",
    ),
    Metric(
        "calidrift_agent_pushed_captures_total",
        "calidrift.agent.pushed_captures",
        MetricType.COUNTER,
        "{capture}",
        (),
        Emitter.SIDECAR,
        "Captures that a sidecar sent because the analyzer asked for them, and that it took.",
    ),
    Metric(
        "calidrift_agent_pushed_capture_bytes_total",
        "calidrift.agent.pushed_capture_size",
        MetricType.COUNTER,
        "By",
        (),
        Emitter.SIDECAR,
        "Bytes of the captures that were sent on request.",
    ),
)
