"""The dashboard `agent health`: does the agent see enough, and what does it cost?"""

from __future__ import annotations

from typing import Final

from calidrift_analyzer.dashboards._dashboard import AGENTS_UID, Dashboard, Row, Variable
from calidrift_analyzer.dashboards._expressions import blind_points, overhead_ratio, rate
from calidrift_analyzer.dashboards._panel import BAD_ABOVE, Panel, PanelKind, Query, Step
from calidrift_analyzer.dashboards._series import ALL, MODELS

__all__ = ["AGENTS"]

OVERHEAD_STEPS: Final = (Step("green"), Step("orange", 0.01), Step("red", 0.02))
"""Orange from the default budget on, red from twice as much."""


def _total_rate(name: str) -> str:
    return f"sum by (model) ({rate(MODELS.series(name))})"


def _rate_by(label: str, name: str) -> str:
    return f"sum by (model, {label}) ({rate(MODELS.series(name))})"


_COST: Final = Row(
    "Cost",
    (
        Panel(
            "Agent's time, divided by forward time",
            PanelKind.TIME_SERIES,
            (Query(overhead_ratio(MODELS), "{{model}}"),),
            unit="percentunit",
            note="A service's default budget is 1 %.",
            steps=OVERHEAD_STEPS,
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Agent's time",
            PanelKind.TIME_SERIES,
            (Query(_total_rate("calidrift_agent_overhead_seconds_total"), "{{model}}"),),
            note="Share of one core, over all processes.",
            lowest=0.0,
            width=8,
        ),
        Panel(
            "Sampling ratio",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"min by (model) ({MODELS.series('calidrift_agent_sampling_ratio')})",
                    "{{model}}",
                ),
            ),
            note="The budget lowers it. The lowest one among the processes.",
            lowest=0.0,
            width=8,
        ),
    ),
)
_TRAFFIC: Final = Row(
    "Traffic",
    (
        Panel(
            "Requests",
            PanelKind.TIME_SERIES,
            (
                Query(_total_rate("calidrift_agent_seen_requests_total"), "{{model}} seen"),
                Query(_total_rate("calidrift_agent_sampled_requests_total"), "{{model}} sampled"),
                Query(_total_rate("calidrift_observed_requests_total"), "{{model}} observed"),
            ),
            note="Sampled but not observed: see what was dropped, and errors.",
            lowest=0.0,
        ),
        Panel(
            "Points",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"max by (model) ({MODELS.series('calidrift_agent_points_expected')})",
                    "{{model}} expected",
                ),
                Query(
                    f"min by (model) ({MODELS.series('calidrift_agent_points_observed')})",
                    "{{model}} observed",
                ),
                Query(
                    f"max by (model) ({MODELS.series('calidrift_agent_points_omitted')})",
                    "{{model}} omitted",
                ),
            ),
            note="Expected but not observed: blind. Omitted: over the limit of points exported.",
            lowest=0.0,
        ),
    ),
)
_STOPPED: Final = MODELS.series("calidrift_agent_state", state='!="active"')
_TROUBLE: Final = Row(
    "Trouble",
    (
        Panel(
            "Processes that stopped observing",
            PanelKind.STATES,
            (
                Query(
                    f"sum by (model, state) ({_STOPPED}) > 0",
                    "{{model}} {{state}}",
                ),
            ),
            unit="short",
            note="Nothing here: every process observes.",
            steps=BAD_ABOVE,
        ),
        Panel(
            "Blind points",
            PanelKind.TIME_SERIES,
            (Query(blind_points(MODELS), "{{model}}"),),
            unit="short",
            steps=BAD_ABOVE,
            lowest=0.0,
        ),
        Panel(
            "Errors, by stage",
            PanelKind.TIME_SERIES,
            (Query(_rate_by("stage", "calidrift_agent_errors_total"), "{{model}} {{stage}}"),),
            note="None of them reached a request.",
            lowest=0.0,
        ),
        Panel(
            "Dropped, by reason",
            PanelKind.TIME_SERIES,
            (Query(_rate_by("reason", "calidrift_agent_dropped_total"), "{{model}} {{reason}}"),),
            note="`capture_limit` and `rate_limit` are limits at work.",
            lowest=0.0,
        ),
        Panel(
            "Age of state files",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"max by (model) ({MODELS.series('calidrift_agent_state_age_seconds')})",
                    "{{model}}",
                ),
            ),
            lowest=0.0,
        ),
        Panel(
            "Scrapes with errors",
            PanelKind.TIME_SERIES,
            (Query(f"sum({rate(ALL.series('calidrift_agent_scrape_errors_total'))})", "errors"),),
            lowest=0.0,
        ),
    ),
)
_FOLLOWING: Final = Row(
    "Following the registry",
    (
        Panel(
            "Processes that serve another version than the registry names",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (model) ({MODELS.series('calidrift_agent_version_behind')})",
                    "{{model}}",
                ),
            ),
            unit="short",
            note="Right after a promotion as it should be; later a process that kept the old one.",
            steps=BAD_ABOVE,
            lowest=0.0,
        ),
        Panel(
            "Processes that serve a version on trial",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (model) ({MODELS.series('calidrift_agent_version_canary')})",
                    "{{model}}",
                ),
            ),
            unit="short",
            note="Replicas marked as canaries, while the job of a model is `canary`.",
            lowest=0.0,
        ),
        Panel(
            "Attempts to take a version over, by outcome",
            PanelKind.TIME_SERIES,
            (
                Query(
                    _rate_by("outcome", "calidrift_agent_version_attempts_total"),
                    "{{model}} {{outcome}}",
                ),
            ),
            lowest=0.0,
        ),
    ),
)
_BUILDS: Final = Row(
    "Builds and exports",
    (
        Panel(
            "Processes, by version, instrument and strategy",
            PanelKind.TABLE,
            (
                Query(
                    "count by (model, version, instrument, strategy) "
                    f"({MODELS.series('calidrift_agent_build_info')})",
                    "targets",
                ),
            ),
            unit="short",
        ),
        Panel(
            "Pushes over OTLP",
            PanelKind.TIME_SERIES,
            (
                Query(f"sum({rate(ALL.series('calidrift_agent_exports_total'))})", "taken"),
                Query(
                    f"sum({rate(ALL.series('calidrift_agent_export_failures_total'))})", "failed"
                ),
            ),
            lowest=0.0,
        ),
    ),
)
_PUSHED: Final = Row(
    "Pushed to the analyzer",
    (
        Panel(
            "Windows",
            PanelKind.TIME_SERIES,
            (
                Query(f"sum({rate(ALL.series('calidrift_agent_pushed_windows_total'))})", "new"),
                Query(
                    f"sum({rate(ALL.series('calidrift_agent_push_lost_windows_total'))})", "lost"
                ),
            ),
            note="Lost: refused by the analyzer, or dropped because spool and state files had no "
            "room.",
            lowest=0.0,
            width=6,
        ),
        Panel(
            "Failed pushes, by kind",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum by (kind) ({rate(ALL.series('calidrift_agent_push_failures_total'))})",
                    "{{kind}}",
                ),
            ),
            note="All but `refused` are tried again, and lose nothing meanwhile.",
            lowest=0.0,
            width=6,
        ),
        Panel(
            "Time since a push was taken",
            PanelKind.TIME_SERIES,
            (Query(f"max({ALL.series('calidrift_agent_push_age_seconds')})", "longest"),),
            lowest=0.0,
            width=6,
        ),
        Panel(
            "Waiting on sidecars' disks",
            PanelKind.TIME_SERIES,
            (Query(f"sum({ALL.series('calidrift_agent_push_spool_bytes')})", "spool"),),
            lowest=0.0,
            width=6,
        ),
        Panel(
            "Captures sent on request",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum({rate(ALL.series('calidrift_agent_pushed_captures_total'))})",
                    "captures",
                ),
            ),
            note="Inputs of requests that left their machine, because the analyzer had selected "
            "them; none without `--push-captures`.",
            lowest=0.0,
        ),
        Panel(
            "Bytes of captures sent on request",
            PanelKind.TIME_SERIES,
            (
                Query(
                    f"sum({rate(ALL.series('calidrift_agent_pushed_capture_bytes_total'))})",
                    "bytes",
                ),
            ),
            lowest=0.0,
        ),
    ),
)

AGENTS: Final = Dashboard(
    uid=AGENTS_UID,
    name="agent-health",
    title="Calidrift: agent health",
    description="Does the agent see enough of the traffic, and what does it cost?",
    scope=MODELS,
    variables=(Variable("model", "calidrift_agent_build_info", "model", several=True),),
    rows=(_COST, _TRAFFIC, _TROUBLE, _FOLLOWING, _BUILDS, _PUSHED),
    page="/",
)
