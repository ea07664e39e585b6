"""The part of the catalogue that a process reports which follows a registry."""

from __future__ import annotations

from typing import Final

from calidrift_agent._export._metric import Emitter, Metric, MetricType

FOLLOW_METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "calidrift_agent_version_info",
        "calidrift.agent.version_info",
        MetricType.GAUGE,
        "1",
        ("model", "version"),
        Emitter.FOLLOWER,
        "Always 1; the version of the model that this process serves.",
    ),
    Metric(
        "calidrift_agent_version_behind",
        "calidrift.agent.version_behind",
        MetricType.GAUGE,
        "1",
        ("model",),
        Emitter.FOLLOWER,
        "1 while the registry names another version than this process serves, else 0.",
    ),
    Metric(
        "calidrift_agent_version_canary",
        "calidrift.agent.version_canary",
        MetricType.GAUGE,
        "1",
        ("model",),
        Emitter.FOLLOWER,
        "1 while this process, marked as a canary, serves a version on trial, else 0.",
    ),
    Metric(
        "calidrift_agent_version_attempts_total",
        "calidrift.agent.version_attempts",
        MetricType.COUNTER,
        "{attempt}",
        ("model", "outcome"),
        Emitter.FOLLOWER,
        "Attempts to serve a version that the registry names, by outcome.",
    ),
)
