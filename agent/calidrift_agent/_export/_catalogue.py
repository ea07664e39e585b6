"""Every metric of Calidrift, once: code, documentation, dashboards and rules read it from here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final


class MetricType(StrEnum):
    """Kind of a metric, in the words of the Prometheus text format."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Emitter(StrEnum):
    """Which process reports a metric."""

    AGENT = "agent"
    """The serving process, or a sidecar that reads its state files."""
    ANALYZER = "analyzer"


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
    Metric(
        "calidrift_coverage_ratio",
        "calidrift.coverage",
        MetricType.GAUGE,
        "1",
        _POINT,
        Emitter.ANALYZER,
        "Share of production units inside the observed bound of the point.",
    ),
    Metric(
        "calidrift_request_coverage_ratio",
        "calidrift.request_coverage",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.ANALYZER,
        "Share of production units inside the observed bounds of all points.",
    ),
    Metric(
        "calidrift_sqnr_db",
        "calidrift.sqnr",
        MetricType.GAUGE,
        "dB",
        _POINT,
        Emitter.ANALYZER,
        "Predicted signal-to-quantization-noise ratio of production at the frozen clip range.",
    ),
    Metric(
        "calidrift_sqnr_change_db",
        "calidrift.sqnr_change",
        MetricType.GAUGE,
        "dB",
        _POINT,
        Emitter.ANALYZER,
        "Predicted SQNR of production minus that of the calibration set, at the same clip range.",
    ),
    Metric(
        "calidrift_clipped_energy_ratio",
        "calidrift.clipped_energy",
        MetricType.GAUGE,
        "1",
        _POINT,
        Emitter.ANALYZER,
        "Squared distance to the clip range, divided by the energy of the tensor.",
    ),
    Metric(
        "calidrift_drift_evidence",
        "calidrift.drift_evidence",
        MetricType.GAUGE,
        "1",
        _POINT,
        Emitter.ANALYZER,
        "E-value against exceedances being as rare as in the reference; valid at every moment.",
    ),
    Metric(
        "calidrift_drift_alarm",
        "calidrift.drift_alarm",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.ANALYZER,
        "1 while a drift alarm stands, else 0.",
    ),
    Metric(
        "calidrift_detectable_exceedance_ratio",
        "calidrift.detectable_exceedance",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.ANALYZER,
        "Smallest exceedance rate that the traffic seen so far could have revealed.",
    ),
    Metric(
        "calidrift_recalibrations_total",
        "calidrift.recalibrations",
        MetricType.COUNTER,
        "{recalibration}",
        (*_MODEL, "outcome"),
        Emitter.ANALYZER,
        "Finished recalibrations, by outcome.",
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
        "calidrift_analyzer_ingest_lag_seconds",
        "calidrift.analyzer.ingest_lag",
        MetricType.GAUGE,
        "s",
        _MODEL,
        Emitter.ANALYZER,
        "Age of the newest window in the store.",
    ),
    Metric(
        "calidrift_analyzer_ingested_rows_total",
        "calidrift.analyzer.ingested_rows",
        MetricType.COUNTER,
        "{row}",
        _MODEL,
        Emitter.ANALYZER,
        "Rows of windows written to the store.",
    ),
    Metric(
        "calidrift_analyzer_job_duration_seconds",
        "calidrift.analyzer.job_duration",
        MetricType.HISTOGRAM,
        "s",
        ("job",),
        Emitter.ANALYZER,
        "How long analyzer jobs took.",
    ),
    Metric(
        "calidrift_analyzer_store_bytes",
        "calidrift.analyzer.store_size",
        MetricType.GAUGE,
        "By",
        (),
        Emitter.ANALYZER,
        "Size of the store on disk.",
    ),
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
