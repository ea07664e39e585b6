"""The dashboard `model`: where has one model drifted, and what does it cost?"""

from __future__ import annotations

from typing import Final

from calidrift_analyzer.dashboards._dashboard import (
    MODEL_UID,
    POINT_UID,
    Dashboard,
    Row,
    Variable,
)
from calidrift_analyzer.dashboards._expressions import (
    blind_points,
    drift_alarm,
    exceedance_ratio,
    rate,
    saturated_ratio,
    worst,
)
from calidrift_analyzer.dashboards._fleet import COVERAGE_STEPS, SQNR_CHANGE_STEPS
from calidrift_analyzer.dashboards._panel import BAD_ABOVE, Panel, PanelKind, Query, bad_below
from calidrift_analyzer.dashboards._series import MODEL

__all__ = ["MODEL_DASHBOARD", "TO_POINT"]

TO_POINT: Final = (
    f"/d/{POINT_UID}?var-datasource=${{datasource}}&var-model=$model"
    "&var-point=${__field.labels.point}"
)
_SHOWN: Final = 10
"""Points in a panel: the worst ones; all of them are on the Calidrift page."""


def _lowest(name: str) -> str:
    return f"bottomk({_SHOWN}, min by (point) ({MODEL.series(name)}))"


def _highest(name: str) -> str:
    return f"topk({_SHOWN}, max by (point) ({MODEL.series(name)}))"


_NOW: Final = Row(
    "Now",
    (
        Panel(
            "Drift alarm",
            PanelKind.STAT,
            (Query(f"max({drift_alarm(MODEL)})"),),
            steps=BAD_ABOVE,
            words={0: "none", 1: "drift"},
            width=4,
            height=4,
        ),
        Panel(
            "Request coverage",
            PanelKind.STAT,
            (Query(f"min({MODEL.series('calidrift_request_coverage_ratio')})"),),
            steps=COVERAGE_STEPS,
            width=3,
            height=4,
        ),
        Panel(
            "Worst predicted SQNR change",
            PanelKind.STAT,
            (Query(worst(MODEL, "calidrift_sqnr_change_db")),),
            note="6 dB are one bit of the quantizer.",
            steps=SQNR_CHANGE_STEPS,
            width=4,
            height=4,
        ),
        Panel(
            "Detectable exceedance",
            PanelKind.STAT,
            (Query(f"max({MODEL.series('calidrift_detectable_exceedance_ratio')})"),),
            note="Drift below this rate stays unseen for ever: the reference is too small.",
            width=3,
            height=4,
        ),
        Panel(
            "Time to detection",
            PanelKind.STAT,
            (Query(f"max({MODEL.series('calidrift_detection_seconds')})"),),
            note=(
                "Until the alarm at twice the detectable exceedance, at the traffic and sampling "
                "of the last hour."
            ),
            width=4,
            height=4,
        ),
        Panel(
            "Blind points",
            PanelKind.STAT,
            (Query(blind_points(MODEL)),),
            steps=BAD_ABOVE,
            width=3,
            height=4,
        ),
        Panel(
            "Sampled requests",
            PanelKind.STAT,
            (Query(worst(MODEL, "calidrift_agent_sampling_ratio")),),
            width=3,
            height=4,
        ),
    ),
)
_HARM: Final = Row(
    "Harm",
    (
        Panel(
            "Predicted SQNR change, worst points",
            PanelKind.TIME_SERIES,
            (Query(_lowest("calidrift_sqnr_change_db"), "{{point}}"),),
            steps=SQNR_CHANGE_STEPS,
            link=TO_POINT,
        ),
        Panel(
            "Clipped energy, worst points",
            PanelKind.TIME_SERIES,
            (Query(_highest("calidrift_clipped_energy_ratio"), "{{point}}"),),
            lowest=0.0,
            link=TO_POINT,
        ),
        Panel(
            "Saturated elements, worst points",
            PanelKind.TIME_SERIES,
            (Query(f"topk({_SHOWN}, {saturated_ratio(MODEL)})", "{{point}}"),),
            unit="percentunit",
            note="What the served model really cuts off.",
            lowest=0.0,
            link=TO_POINT,
        ),
        Panel(
            "Values that are not finite",
            PanelKind.TIME_SERIES,
            (
                Query(
                    "sum by (point, kind) "
                    f"({rate(MODEL.series('calidrift_nonfinite_elements_total'))}) > 0",
                    "{{point}} {{kind}}",
                ),
            ),
            note="Only points that have any are shown.",
            lowest=0.0,
            link=TO_POINT,
        ),
    ),
)
_KINDS: Final = (
    ("points", "calidrift_drift_alarm"),
    ("all traffic", "calidrift_service_level_alarm"),
    ("measured harm", "calidrift_harm_alarm"),
)
_DRIFT: Final = Row(
    "Drift",
    (
        Panel(
            "Alarms, by kind",
            PanelKind.STATES,
            tuple(Query(f"max by (model) ({MODEL.series(name)})", kind) for kind, name in _KINDS),
            note="Any of these, or a segment beside, raises the drift alarm.",
            steps=BAD_ABOVE,
            words={0: "none", 1: "alarm"},
        ),
        Panel(
            "Alarms of segments",
            PanelKind.STATES,
            (
                Query(
                    f"max by (segment) ({MODEL.series('calidrift_segment_alarm')})", "{{segment}}"
                ),
            ),
            note="Where more of a segment leaves the ranges than is tolerated.",
            steps=BAD_ABOVE,
            words={0: "none", 1: "alarm"},
        ),
        Panel(
            "Coverage, worst points",
            PanelKind.TIME_SERIES,
            (Query(_lowest("calidrift_coverage_ratio"), "{{point}}"),),
            steps=COVERAGE_STEPS,
            highest=1.0,
            link=TO_POINT,
        ),
        Panel(
            "Exceedance rate, worst points",
            PanelKind.TIME_SERIES,
            (Query(f"topk({_SHOWN}, {exceedance_ratio(MODEL)})", "{{point}}"),),
            unit="percentunit",
            lowest=0.0,
            link=TO_POINT,
        ),
        Panel(
            "Evidence of drift, strongest points",
            PanelKind.TIME_SERIES,
            (Query(_highest("calidrift_drift_evidence"), "{{point}}"),),
            note=(
                "An e-value: 20 for one point alone means 5 % false alarm probability, for ever; "
                "the alarm asks more of a model with many points."
            ),
            logarithmic=True,
            link=TO_POINT,
        ),
        Panel(
            "Request coverage",
            PanelKind.TIME_SERIES,
            (Query(worst(MODEL, "calidrift_request_coverage_ratio"), "{{model}}"),),
            steps=COVERAGE_STEPS,
            highest=1.0,
        ),
    ),
)
_REFERENCE: Final = Row(
    "Served output against the FP32 reference (where `reference=` is given)",
    (
        Panel(
            "Output SQNR",
            PanelKind.TIME_SERIES,
            (Query(worst(MODEL, "calidrift_reference_sqnr_db"), "{{model}}"),),
            width=6,
        ),
        Panel(
            "Top-1 agreement",
            PanelKind.TIME_SERIES,
            (Query(worst(MODEL, "calidrift_reference_agreement_ratio"), "{{model}}"),),
            steps=bad_below(0.95, 0.99),
            highest=1.0,
            width=6,
        ),
        Panel(
            "Cosine",
            PanelKind.TIME_SERIES,
            (Query(worst(MODEL, "calidrift_reference_cosine"), "{{model}}"),),
            highest=1.0,
            width=6,
        ),
        Panel(
            "Compared units",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (model) ({rate(MODEL.series('calidrift_reference_compared_total'))})",
                    "{{model}}",
                ),
            ),
            lowest=0.0,
            width=6,
        ),
    ),
)
_REPAIR: Final = Row(
    "Repair",
    (
        Panel(
            "Finished recalibrations so far, by outcome",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"max by (outcome) ({MODEL.series('calidrift_recalibrations_total')})",
                    "{{outcome}}",
                ),
            ),
            unit="short",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Open jobs, by state",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (state) ({MODEL.series('calidrift_analyzer_open_jobs')})",
                    "{{state}}",
                ),
            ),
            note="`awaiting_approval` waits for a person: see the Calidrift page.",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Served versions, by number of processes",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"count by (version) ({MODEL.series('calidrift_agent_version_info')})",
                    "{{version}}",
                ),
            ),
            note="Two at a time: a canary, or a process that did not follow.",
            lowest=0.0,
            width=8,
        ),
    ),
)

MODEL_DASHBOARD: Final = Dashboard(
    uid=MODEL_UID,
    name="model",
    title="Calidrift: model",
    description="Where has this model drifted, what does it cost, and is it being repaired?",
    scope=MODEL,
    variables=(Variable("model", "calidrift_agent_build_info", "model"),),
    rows=(_NOW, _HARM, _DRIFT, _REFERENCE, _REPAIR),
    page="/models/${model:percentencode}",
)
