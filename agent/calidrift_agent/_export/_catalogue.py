"""Every metric of Calidrift, once: code, documentation, dashboards and rules read it from here."""

from __future__ import annotations

from typing import Final

from calidrift_agent._export._analyzer_metrics import ANALYZER_METRICS
from calidrift_agent._export._follow_metrics import FOLLOW_METRICS
from calidrift_agent._export._metric import Emitter, Metric, MetricType
from calidrift_agent._export._ship_metrics import SHIP_METRICS
from calidrift_agent._export._verdict_metrics import VERDICT_METRICS

_MODEL: Final = ("model",)
_POINT: Final = ("model", "point")


CATALOGUE: Final[tuple[Metric, ...]] = (
    Metric(
        "calidrift_activation_absmax",
        "calidrift.activation.absmax",
        MetricType.GAUGE,
        "1",
        _POINT,
        Emitter.AGENT,
        "Largest activation magnitude of sampled requests in the last two minutes.",
    ),
    Metric(
        "calidrift_observed_bound",
        "calidrift.observed_bound",
        MetricType.GAUGE,
        "1",
        _POINT,
        Emitter.AGENT,
        "Magnitude that reference requests did not exceed; exceedances count against it.",
    ),
    Metric(
        "calidrift_clip_bound",
        "calidrift.clip_bound",
        MetricType.GAUGE,
        "1",
        _POINT,
        Emitter.AGENT,
        "Largest magnitude that the quantizer of the point represents.",
    ),
    Metric(
        "calidrift_activation_range_ratio",
        "calidrift.activation.range_ratio",
        MetricType.HISTOGRAM,
        "1",
        _POINT,
        Emitter.AGENT,
        "Largest magnitude of one unit of inference, divided by the observed bound.",
    ),
    Metric(
        "calidrift_activation_magnitude",
        "calidrift.activation.magnitude",
        MetricType.EXPONENTIAL,
        "1",
        _POINT,
        Emitter.SIDECAR,
        "Activation values of observed requests, negative ones apart, at 16 buckets per octave.",
    ),
    Metric(
        "calidrift_exceedances_total",
        "calidrift.exceedances",
        MetricType.COUNTER,
        "{unit}",
        _POINT,
        Emitter.AGENT,
        "Units of inference whose largest magnitude exceeded the observed bound.",
    ),
    Metric(
        "calidrift_observed_requests_total",
        "calidrift.observed_requests",
        MetricType.COUNTER,
        "{request}",
        _MODEL,
        Emitter.AGENT,
        "Requests whose activations were observed.",
    ),
    Metric(
        "calidrift_saturated_elements_total",
        "calidrift.saturated_elements",
        MetricType.COUNTER,
        "{element}",
        (*_POINT, "rail"),
        Emitter.AGENT,
        "Activation elements that the clip range cuts off, by rail.",
    ),
    Metric(
        "calidrift_observed_elements_total",
        "calidrift.observed_elements",
        MetricType.COUNTER,
        "{element}",
        _POINT,
        Emitter.AGENT,
        "Activation elements of observed requests.",
    ),
    Metric(
        "calidrift_nonfinite_elements_total",
        "calidrift.nonfinite_elements",
        MetricType.COUNTER,
        "{element}",
        (*_POINT, "kind"),
        Emitter.AGENT,
        "Activation elements that are not finite, by kind.",
    ),
    *VERDICT_METRICS,
    Metric(
        "calidrift_reference_compared_total",
        "calidrift.reference.compared",
        MetricType.COUNTER,
        "{unit}",
        _MODEL,
        Emitter.AGENT,
        "Units whose served output was compared with that of the FP32 reference.",
    ),
    Metric(
        "calidrift_reference_sqnr_db",
        "calidrift.reference.sqnr",
        MetricType.GAUGE,
        "dB",
        _MODEL,
        Emitter.AGENT,
        "Mean output SQNR against the FP32 reference; from 0 dB, where noise dominates, to 93 dB.",
    ),
    Metric(
        "calidrift_reference_agreement_ratio",
        "calidrift.reference.agreement",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.AGENT,
        "Share of compared units with classes in which the served and the reference's top-1 agree.",
    ),
    Metric(
        "calidrift_reference_cosine",
        "calidrift.reference.cosine",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.AGENT,
        "Mean cosine of the angle between compared outputs.",
    ),
    Metric(
        "calidrift_agent_overhead_seconds_total",
        "calidrift.agent.overhead",
        MetricType.COUNTER,
        "s",
        _MODEL,
        Emitter.AGENT,
        "The agent's own time inside and beside requests.",
    ),
    Metric(
        "calidrift_agent_forward_seconds_total",
        "calidrift.agent.forward",
        MetricType.COUNTER,
        "s",
        _MODEL,
        Emitter.AGENT,
        "Forward time of all requests, estimated from the sampled ones.",
    ),
    Metric(
        "calidrift_agent_seen_requests_total",
        "calidrift.agent.seen_requests",
        MetricType.COUNTER,
        "{request}",
        _MODEL,
        Emitter.AGENT,
        "Requests that passed the watched model.",
    ),
    Metric(
        "calidrift_agent_sampled_requests_total",
        "calidrift.agent.sampled_requests",
        MetricType.COUNTER,
        "{request}",
        _MODEL,
        Emitter.AGENT,
        "Requests chosen for observation.",
    ),
    Metric(
        "calidrift_agent_sampling_ratio",
        "calidrift.agent.sampling",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.AGENT,
        "Share of requests that is being sampled now.",
    ),
    Metric(
        "calidrift_agent_errors_total",
        "calidrift.agent.errors",
        MetricType.COUNTER,
        "{error}",
        (*_MODEL, "stage"),
        Emitter.AGENT,
        "Failures inside the agent, by stage; none of them reached a request.",
    ),
    Metric(
        "calidrift_agent_dropped_total",
        "calidrift.agent.dropped",
        MetricType.COUNTER,
        "{item}",
        (*_MODEL, "reason"),
        Emitter.AGENT,
        "What the agent wanted to keep and could not, by reason.",
    ),
    Metric(
        "calidrift_agent_points_expected",
        "calidrift.agent.points_expected",
        MetricType.GAUGE,
        "{point}",
        _MODEL,
        Emitter.AGENT,
        "Observation points that the watch attached to.",
    ),
    Metric(
        "calidrift_agent_points_observed",
        "calidrift.agent.points_observed",
        MetricType.GAUGE,
        "{point}",
        _MODEL,
        Emitter.AGENT,
        "Observation points that have fired at least once.",
    ),
    Metric(
        "calidrift_agent_points_omitted",
        "calidrift.agent.points_omitted",
        MetricType.GAUGE,
        "{point}",
        _MODEL,
        Emitter.AGENT,
        "Observation points left out of this exposition by its limit.",
    ),
    Metric(
        "calidrift_agent_state",
        "calidrift.agent.state",
        MetricType.GAUGE,
        "{process}",
        (*_MODEL, "state"),
        Emitter.AGENT,
        "Processes whose watch is in this state; all but `active` say why it stopped observing.",
    ),
    Metric(
        "calidrift_agent_state_age_seconds",
        "calidrift.agent.state_age",
        MetricType.GAUGE,
        "s",
        _MODEL,
        Emitter.AGENT,
        "Time since the state file was last written.",
    ),
    Metric(
        "calidrift_agent_build_info",
        "calidrift.agent.build_info",
        MetricType.GAUGE,
        "1",
        (*_MODEL, "version", "instrument", "strategy"),
        Emitter.AGENT,
        "Always 1; version of the agent and how it observes.",
    ),
    Metric(
        "calidrift_agent_scrape_errors_total",
        "calidrift.agent.scrape_errors",
        MetricType.COUNTER,
        "{error}",
        (),
        Emitter.AGENT,
        "Scrapes in which figures of a watch could not be collected.",
    ),
    Metric(
        "calidrift_agent_exports_total",
        "calidrift.agent.exports",
        MetricType.COUNTER,
        "{export}",
        (),
        Emitter.SIDECAR,
        "Pushes over OTLP that the receiver took whole.",
    ),
    Metric(
        "calidrift_agent_export_failures_total",
        "calidrift.agent.export_failures",
        MetricType.COUNTER,
        "{export}",
        (),
        Emitter.SIDECAR,
        "Pushes over OTLP that failed after all tries, or that the receiver took in part.",
    ),
    *SHIP_METRICS,
    *FOLLOW_METRICS,
    *ANALYZER_METRICS,
)
"""All metrics, in the order in which documentation shows them."""

_BY_NAME: Final = {metric.name: metric for metric in CATALOGUE}


def metric(name: str) -> Metric:
    """The catalogue entry of a metric.

    Raises:
        KeyError: There is no such metric; a metric is exported only if it is in the catalogue.

    Example:
        >>> metric("calidrift_exceedances_total").otel
        'calidrift.exceedances'
    """
    return _BY_NAME[name]
