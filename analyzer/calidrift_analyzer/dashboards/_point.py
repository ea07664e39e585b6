"""The dashboard `point`: one observation point, with its bounds and what left them."""

from __future__ import annotations

from typing import Final

from calidrift_analyzer.dashboards._dashboard import POINT_UID, Dashboard, Row, Variable
from calidrift_analyzer.dashboards._expressions import INTERVAL, exceedance_ratio, rate
from calidrift_analyzer.dashboards._fleet import COVERAGE_STEPS, SQNR_CHANGE_STEPS
from calidrift_analyzer.dashboards._panel import Panel, PanelKind, Query
from calidrift_analyzer.dashboards._series import POINT

__all__ = ["POINT_DASHBOARD"]


def _max(name: str) -> str:
    return f"max({POINT.series(name)})"


def _min(name: str) -> str:
    return f"min({POINT.series(name)})"


_BUCKETS: Final = POINT.series("calidrift_activation_range_ratio", part="_bucket")

_RANGES: Final = Row(
    "Ranges",
    (
        Panel(
            "Largest magnitude and bounds",
            PanelKind.TIME_SERIES,
            (
                Query(_max("calidrift_activation_absmax"), "largest magnitude"),
                Query(_max("calidrift_observed_bound"), "observed bound"),
                Query(_max("calidrift_clip_bound"), "clip bound"),
            ),
            note=(
                "Above the observed bound: the calibration set had nothing like it. Above the clip "
                "bound: cut off."
            ),
            lowest=0.0,
            height=9,
        ),
        Panel(
            "Largest magnitude of a unit, divided by the observed bound",
            PanelKind.HEATMAP,
            (Query(f"sum by (le) (increase({_BUCKETS}[{INTERVAL}]))", "{{le}}"),),
            height=9,
        ),
    ),
)
_HARM: Final = Row(
    "Harm",
    (
        Panel(
            "Predicted SQNR",
            PanelKind.TIME_SERIES,
            (Query(_min("calidrift_sqnr_db"), "SQNR"),),
            width=8,
        ),
        Panel(
            "Predicted SQNR change",
            PanelKind.TIME_SERIES,
            (Query(_min("calidrift_sqnr_change_db"), "change"),),
            steps=SQNR_CHANGE_STEPS,
            width=8,
        ),
        Panel(
            "Clipped energy",
            PanelKind.TIME_SERIES,
            (Query(_max("calidrift_clipped_energy_ratio"), "clipped energy"),),
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Saturated elements, by rail",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (rail) ({rate(POINT.series('calidrift_saturated_elements_total'))}) "
                    "/ on () group_left () "
                    f"sum({rate(POINT.series('calidrift_observed_elements_total'))})",
                    "{{rail}}",
                ),
            ),
            unit="percentunit",
            note="Share of the elements that the served model cuts off.",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Values that are not finite, by kind",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (kind) ({rate(POINT.series('calidrift_nonfinite_elements_total'))})",
                    "{{kind}}",
                ),
            ),
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Observed elements",
            PanelKind.TIME_SERIES,
            (Query(f"sum({rate(POINT.series('calidrift_observed_elements_total'))})", "elements"),),
            lowest=0.0,
            width=8,
        ),
    ),
)
_DRIFT: Final = Row(
    "Drift",
    (
        Panel(
            "Coverage",
            PanelKind.TIME_SERIES,
            (Query(_min("calidrift_coverage_ratio"), "coverage"),),
            steps=COVERAGE_STEPS,
            highest=1.0,
            width=8,
        ),
        Panel(
            "Exceedance rate",
            PanelKind.TIME_SERIES,
            (Query(exceedance_ratio(POINT), "exceedances"),),
            unit="percentunit",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Evidence of drift",
            PanelKind.TIME_SERIES,
            (Query(_max("calidrift_drift_evidence"), "e-value"),),
            logarithmic=True,
            width=8,
        ),
    ),
)

POINT_DASHBOARD: Final = Dashboard(
    uid=POINT_UID,
    name="point",
    title="Calidrift: point",
    description="What happens to the ranges of one observation point?",
    scope=POINT,
    variables=(
        Variable("model", "calidrift_agent_build_info", "model"),
        Variable("point", 'calidrift_observed_elements_total{model="$model"}', "point"),
    ),
    rows=(_RANGES, _HARM, _DRIFT),
    page="/models/${model:percentencode}/points/${point:percentencode}",
)
