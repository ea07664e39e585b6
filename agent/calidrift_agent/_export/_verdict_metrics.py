"""What the analyzer finds out about models; a part of the catalogue."""

from __future__ import annotations

from typing import Final

from calidrift_agent._export._metric import Emitter, Metric, MetricType

_MODEL: Final = ("model",)
_POINT: Final = ("model", "point")

VERDICT_METRICS: Final[tuple[Metric, ...]] = (
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
        "1 while the drift alarm of some point stands that nobody has muted, else 0.",
    ),
    Metric(
        "calidrift_service_level_alarm",
        "calidrift.service_level_alarm",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.ANALYZER,
        "1 while more of all traffic has left the ranges than is tolerated, else 0.",
    ),
    Metric(
        "calidrift_segment_alarm",
        "calidrift.segment_alarm",
        MetricType.GAUGE,
        "1",
        (*_MODEL, "segment"),
        Emitter.ANALYZER,
        "1 while more of this segment has left the ranges than is tolerated, else 0.",
    ),
    Metric(
        "calidrift_harm_alarm",
        "calidrift.harm_alarm",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.ANALYZER,
        "1 while served outputs differ from FP32 by more than is tolerated, else 0.",
    ),
    Metric(
        "calidrift_detectable_exceedance_ratio",
        "calidrift.detectable_exceedance",
        MetricType.GAUGE,
        "1",
        _MODEL,
        Emitter.ANALYZER,
        "Smallest exceedance rate that could ever raise the drift alarm at every point.",
    ),
    Metric(
        "calidrift_detection_seconds",
        "calidrift.detection_time",
        MetricType.GAUGE,
        "s",
        _MODEL,
        Emitter.ANALYZER,
        "Time to the alarm at twice the detectable exceedance, at this traffic and sampling.",
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
)
