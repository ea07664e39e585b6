"""The dashboard `fleet`: which model needs somebody's attention?"""

from __future__ import annotations

from typing import Final

from calidrift_analyzer.dashboards._dashboard import FLEET_UID, MODEL_UID, Dashboard, Row
from calidrift_analyzer.dashboards._expressions import (
    INTERVAL,
    blind_points,
    drift_alarm,
    quantile,
    rate,
    worst,
)
from calidrift_analyzer.dashboards._panel import (
    BAD_ABOVE,
    Column,
    Panel,
    PanelKind,
    Query,
    bad_below,
)
from calidrift_analyzer.dashboards._series import ALL

__all__ = ["COVERAGE_STEPS", "FLEET", "SQNR_CHANGE_STEPS"]

COVERAGE_STEPS: Final = bad_below(0.9, 0.95)
"""Green from the default coverage target on."""
SQNR_CHANGE_STEPS: Final = bad_below(-6.0, -1.0)
"""6 dB are one bit of the quantizer."""

_ALARM: Final = drift_alarm(ALL)
_COVERAGE: Final = worst(ALL, "calidrift_request_coverage_ratio")
_CHANGE: Final = worst(ALL, "calidrift_sqnr_change_db")
_BUILDS: Final = ALL.series("calidrift_agent_build_info")
_TO_MODEL: Final = f"/d/{MODEL_UID}?var-datasource=${{datasource}}&var-model=${{__value.text}}"
_TO_SERIES: Final = (
    f"/d/{MODEL_UID}?var-datasource=${{datasource}}&var-model=${{__field.labels.model}}"
)

_NOW: Final = Row(
    "Now",
    (
        Panel(
            "Models watched",
            PanelKind.STAT,
            (Query(f"count(count by (model) ({_BUILDS}))"),),
            width=6,
            height=4,
        ),
        Panel(
            "Models with a drift alarm",
            PanelKind.STAT,
            (Query(f"sum({_ALARM})"),),
            note=(
                "Of points, all traffic, a segment, or measured harm. No data: no analyzer "
                "reports, which is not the same as no alarm."
            ),
            steps=BAD_ABOVE,
            width=6,
            height=4,
        ),
        Panel(
            "Lowest request coverage",
            PanelKind.STAT,
            (Query(f"min({_COVERAGE})"),),
            unit="percentunit",
            steps=COVERAGE_STEPS,
            width=6,
            height=4,
        ),
        Panel(
            "Worst predicted SQNR change",
            PanelKind.STAT,
            (Query(f"min({_CHANGE})"),),
            note="6 dB are one bit of the quantizer.",
            steps=SQNR_CHANGE_STEPS,
            width=6,
            height=4,
        ),
        Panel(
            "Models",
            PanelKind.TABLE,
            (
                Query(_ALARM, "alarm"),
                Query(_COVERAGE, "request coverage"),
                Query(_CHANGE, "worst SQNR change"),
                Query(worst(ALL, "calidrift_detectable_exceedance_ratio"), "detectable exceedance"),
                Query(worst(ALL, "calidrift_reference_agreement_ratio"), "agreement with FP32"),
                Query(worst(ALL, "calidrift_agent_sampling_ratio"), "sampled"),
                Query(blind_points(ALL), "blind points"),
            ),
            unit="short",
            note="A click on a model opens its dashboard. An empty cell is no data, not zero.",
            width=24,
            height=9,
            columns=(
                Column("model", link=_TO_MODEL),
                Column("alarm", steps=BAD_ABOVE, words={0: "none", 1: "drift"}),
                Column("request coverage", "percentunit", COVERAGE_STEPS),
                Column("worst SQNR change", "dB", SQNR_CHANGE_STEPS),
                Column("detectable exceedance", "percentunit"),
                Column("agreement with FP32", "percentunit"),
                Column("sampled", "percentunit"),
                Column("blind points", steps=BAD_ABOVE),
            ),
        ),
    ),
)
_COURSE: Final = Row(
    "Over time",
    (
        Panel(
            "Drift alarm",
            PanelKind.STATES,
            (Query(_ALARM, "{{model}}"),),
            steps=BAD_ABOVE,
            words={0: "none", 1: "drift"},
            link=_TO_SERIES,
        ),
        Panel(
            "Request coverage",
            PanelKind.TIME_SERIES,
            (Query(_COVERAGE, "{{model}}"),),
            steps=COVERAGE_STEPS,
            highest=1.0,
            link=_TO_SERIES,
        ),
        Panel(
            "Worst predicted SQNR change",
            PanelKind.TIME_SERIES,
            (Query(_CHANGE, "{{model}}"),),
            steps=SQNR_CHANGE_STEPS,
            link=_TO_SERIES,
        ),
        Panel(
            "Observed requests",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (model) ({rate(ALL.series('calidrift_observed_requests_total'))})",
                    "{{model}}",
                ),
            ),
            lowest=0.0,
            link=_TO_SERIES,
        ),
    ),
)
_LAST_SUCCESS: Final = ALL.series("calidrift_analyzer_task_last_success_timestamp_seconds")
_REVALIDATED: Final = ALL.series("calidrift_analyzer_revalidation_timestamp_seconds")
_RUNS: Final = ALL.series("calidrift_analyzer_task_runs_total")
_ANALYZER: Final = Row(
    "Analyzer",
    (
        Panel(
            "Age of the newest window",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"max by (model) ({ALL.series('calidrift_analyzer_ingest_lag_seconds')})",
                    "{{model}}",
                ),
            ),
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Ingested rows",
            PanelKind.TIME_SERIES,
            (
                Query(
                    "sum by (model) "
                    f"({rate(ALL.series('calidrift_analyzer_ingested_rows_total'))})",
                    "{{model}}",
                ),
            ),
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Size of the store",
            PanelKind.TIME_SERIES,
            (Query(f"max({ALL.series('calidrift_analyzer_store_bytes')})", "store"),),
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Time since the last success",
            PanelKind.TIME_SERIES,
            (Query(f"time() - max by (task) ({_LAST_SUCCESS})", "{{task}}"),),
            unit="s",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Duration of tasks, 95 % of runs",
            PanelKind.TIME_SERIES,
            (
                Query(
                    quantile(0.95, "calidrift_analyzer_job_duration_seconds", ALL, "task"),
                    "{{task}}",
                ),
            ),
            unit="s",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Runs of tasks, by outcome",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (task, outcome) (increase({_RUNS}[{INTERVAL}]))",
                    "{{task}} {{outcome}}",
                ),
            ),
            unit="short",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Finished recalibrations so far, by outcome",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"max by (model, outcome) ({ALL.series('calidrift_recalibrations_total')})",
                    "{{model}} {{outcome}}",
                ),
            ),
            unit="short",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Time since the last re-validation, by outcome",
            PanelKind.TIME_SERIES,
            (Query(f"time() - max by (model, outcome) ({_REVALIDATED})", "{{model}} {{outcome}}"),),
            unit="s",
            note="`confirmed` held; `refused` fails its gate now; `failed` was not measured.",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Open jobs, by state",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (model, state) ({ALL.series('calidrift_analyzer_open_jobs')})",
                    "{{model}} {{state}}",
                ),
            ),
            note="`awaiting_approval` waits for a person: see the Calidrift page.",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Moves told by hooks so far, by outcome",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"max by (model, outcome) ({ALL.series('calidrift_analyzer_deploy_total')})",
                    "{{model}} {{outcome}}",
                ),
            ),
            unit="short",
            note="Promotions and rollbacks. `failed` was given up, and the version serves all the "
            "same; `superseded` was overtaken by a newer move. No data: no model has a hook.",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Windows dated back so far",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"max by (model) ({ALL.series('calidrift_analyzer_dated_back_windows_total')})",
                    "{{model}}",
                ),
            ),
            unit="short",
            note="They ended minutes ahead of the analyzer's clock: set the clock of the pods that "
            "push them, or of the analyzer. No data: none did.",
            lowest=0.0,
            width=8,
        ),
    ),
)

FLEET: Final = Dashboard(
    uid=FLEET_UID,
    name="fleet",
    title="Calidrift: fleet",
    description="Which model needs attention, and does the analyzer do its work?",
    scope=ALL,
    variables=(),
    rows=(_NOW, _COURSE, _ANALYZER),
    page="/",
)
