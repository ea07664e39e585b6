"""The alerts and recorded series of Calidrift."""

from __future__ import annotations

from typing import Final

from calidrift_analyzer.dashboards._expressions import (
    appeared,
    blind_points,
    drift_alarm,
    exceedance_ratio,
    overhead_ratio,
    worst,
)
from calidrift_analyzer.dashboards._rules import Alert, Comparison, Recording, Severity
from calidrift_analyzer.dashboards._series import ALL

__all__ = ["AGENT_ALERTS", "ANALYZER_ALERTS", "RECORDINGS", "TRAFFIC_ALERTS"]

OVERHEAD: Final = Recording(
    "model:calidrift_agent_overhead:ratio_rate5m", overhead_ratio(ALL, "5m")
)
BLIND: Final = Recording(
    "model:calidrift_agent_points_blind:max", blind_points(ALL, least_requests=20)
)
COVERAGE: Final = Recording(
    "model:calidrift_request_coverage_ratio:min", worst(ALL, "calidrift_request_coverage_ratio")
)
SQNR_CHANGE: Final = Recording(
    "model:calidrift_sqnr_change_db:min", worst(ALL, "calidrift_sqnr_change_db")
)
EXCEEDANCE: Final = Recording(
    "model_point:calidrift_exceedances:ratio_rate1h", exceedance_ratio(ALL, "1h")
)
RECORDINGS: Final = (COVERAGE, SQNR_CHANGE, EXCEEDANCE, BLIND, OVERHEAD)
"""Series of one value per model (or model and point), cheap to keep for years."""

_MODEL: Final = "{{ $labels.model }}"
_NUMBER: Final = "{{ $value }}"
_SHARE: Final = "{{ $value | humanizePercentage }}"
_ERRORS: Final = ALL.series("calidrift_agent_errors_total")
_FAILED: Final = ALL.series("calidrift_recalibrations_total", outcome='="failed"')
_REVALIDATED: Final = ALL.series(
    "calidrift_analyzer_task_last_success_timestamp_seconds", task='="revalidation"'
)
_ENDED: Final = ALL.series("calidrift_analyzer_revalidation_timestamp_seconds")
_REFUSED: Final = ALL.series(
    "calidrift_analyzer_revalidation_timestamp_seconds", outcome='=~"failed|refused"'
)
_STOPPED: Final = ALL.series("calidrift_agent_state", state='=~"killed|errors|budget"')

TRAFFIC_ALERTS: Final = (
    Alert(
        name="CalidriftDriftAlarm",
        value=drift_alarm(ALL),
        comparison=Comparison.ABOVE,
        limit=0,
        hold="1m",
        severity=Severity.CRITICAL,
        repairs=True,
        summary=f"The traffic of {_MODEL} has left its calibrated ranges.",
        description=(
            f"Points, all traffic or a segment of {_MODEL} leave the calibrated ranges more often "
            "than is tolerated, or its answers differ from FP32 by more than that; 'Alarms, by "
            "kind' on the dashboard 'Calidrift: model' says which. It is not chance: the false "
            "alarm probability holds for the whole life of the watch. Latency and error rate may "
            "look healthy. 'Predicted SQNR change' near 0 dB is harmless; below -6 dB the model "
            "has lost a bit, so recalibrate."
        ),
    ),
    Alert(
        name="CalidriftCoverageLow",
        value=COVERAGE.expr,
        recording=COVERAGE,
        comparison=Comparison.BELOW,
        limit=0.95,
        hold="10m",
        severity=Severity.WARNING,
        repairs=True,
        summary=f"Only {_SHARE} of the requests to {_MODEL} are covered.",
        description=(
            f"The calibration set of {_MODEL} covers less than 95 % of its requests: the others "
            "have activations that it never showed. They are kept as captures, and the analyzer "
            "can choose the ones that close the gap: its page names the points and segments, and "
            "'calidrift jobs start MODEL', or the button there, orders the repair."
        ),
    ),
)
_AGENT_ALERTS: Final = (
    Alert(
        name="CalidriftPointsBlind",
        value=BLIND.expr,
        recording=BLIND,
        comparison=Comparison.ABOVE,
        limit=0,
        hold="30m",
        severity=Severity.WARNING,
        summary=f"{_NUMBER} points of {_MODEL} have never been observed.",
        description=(
            f"The agent attached to points of {_MODEL} that no observed request ever reached, "
            "though requests are observed. Drift there stays unseen. Usually a branch that this "
            "traffic does not take, or a model that was replaced behind the agent's back."
        ),
    ),
    Alert(
        name="CalidriftAgentErrors",
        value=f"sum by (model, stage) (increase({_ERRORS}[15m]))",
        comparison=Comparison.ABOVE,
        limit=5,
        hold="5m",
        severity=Severity.WARNING,
        summary=f"The agent in {_MODEL} fails in the stage '{{{{ $labels.stage }}}}'.",
        description=(
            "The agent failed more than 5 times within 15 minutes. No request was harmed: failures "
            "are counted, logged once per kind, and never reach a caller. But what failed was not "
            "observed, and after repeated failures the agent detaches itself. Search the log of "
            "the serving process for 'calidrift'."
        ),
    ),
    Alert(
        name="CalidriftAgentStopped",
        value=f"sum by (model, state) ({_STOPPED})",
        comparison=Comparison.ABOVE,
        limit=0,
        hold="5m",
        severity=Severity.WARNING,
        summary=f"{_NUMBER} processes of {_MODEL} stopped observing ({{{{ $labels.state }}}}).",
        description=(
            "The agent let go of the model in some processes: 'killed' by its kill file, after too "
            "many 'errors', or because it could not keep its 'budget'. Requests are served as "
            "before, but nobody watches their ranges. It does not come back by itself: restart the "
            "processes once the cause is gone."
        ),
    ),
    Alert(
        name="CalidriftAgentOverhead",
        value=OVERHEAD.expr,
        recording=OVERHEAD,
        comparison=Comparison.ABOVE,
        limit=0.02,
        hold="15m",
        severity=Severity.WARNING,
        summary=(f"The agent costs {_SHARE} of the forward time of {_MODEL}."),
        description=(
            "The agent takes more than 2 % of the forward time, twice its default budget, though "
            "it lowers its sampling ratio to stay within it. Requests are a little slower than "
            "they need be; answers are the same. A service whose budget was set higher on purpose "
            "needs another limit in this rule."
        ),
    ),
    Alert(
        name="CalidriftStateStale",
        value=f"max by (model) ({ALL.series('calidrift_agent_state_age_seconds')})",
        comparison=Comparison.ABOVE,
        limit=120,
        hold="5m",
        severity=Severity.WARNING,
        summary=f"The state file of {_MODEL} is {{{{ $value | humanizeDuration }}}} old.",
        description=(
            f"The agent in {_MODEL} writes its state every few seconds, but has not for two "
            "minutes. The analyzer sees no new windows, so drift stays unseen. Usual causes: a "
            "full or read-only volume, or a process that hangs."
        ),
    ),
)
_FOLLOWER_ALERTS: Final = (
    Alert(
        name="CalidriftVersionBehind",
        value=f"sum by (model) ({ALL.series('calidrift_agent_version_behind')})",
        comparison=Comparison.ABOVE,
        limit=0,
        hold="15m",
        severity=Severity.WARNING,
        summary=f"{_NUMBER} processes of {_MODEL} do not serve the promoted version.",
        description=(
            f"A version of {_MODEL} was promoted or rolled back, but some processes still serve "
            "another one after 15 minutes. A process keeps the version that it has where the new "
            "one cannot be read, is damaged, or does not run with the INT8 kernels that were "
            "planned. Requests are answered, by the old version."
        ),
    ),
)
AGENT_ALERTS: Final = (*_AGENT_ALERTS, *_FOLLOWER_ALERTS)
ANALYZER_ALERTS: Final = (
    Alert(
        name="CalidriftAnalyzerDown",
        value=f"absent({ALL.series('calidrift_analyzer_store_bytes')})",
        comparison=Comparison.ABOVE,
        limit=0,
        hold="5m",
        severity=Severity.CRITICAL,
        summary="The Calidrift analyzer reports nothing.",
        description=(
            "Prometheus has had no figures from 'calidrift serve' for five minutes: it is down, it "
            "cannot be scraped, or its store is closed. Until it is back there is no alarm, no "
            "coverage and no recalibration; agents keep windows for it for a while. All other "
            "alerts on drift are silent meanwhile, which does not mean that all is well."
        ),
    ),
    Alert(
        name="CalidriftRecalibrationFailed",
        value=appeared(_FAILED, "1h"),
        comparison=Comparison.ABOVE,
        limit=0,
        hold="0s",
        severity=Severity.WARNING,
        summary=f"A recalibration of {_MODEL} failed.",
        description=(
            f"A recalibration of {_MODEL} ended with an error within the last hour; that is not a "
            "refusal by a gate, which would be a good end. Nothing was promoted and the served "
            "version is unchanged, but the drift that asked for it is still there. The job's page "
            "shows the error."
        ),
    ),
    Alert(
        name="CalidriftRevalidationOverdue",
        value=(
            f"(time() - max by (task) ({_REVALIDATED})) or (time() - max by (model) ({_ENDED}))"
        ),
        comparison=Comparison.ABOVE,
        limit=8 * 86_400,
        hold="15m",
        severity=Severity.WARNING,
        summary="The last re-validation of what serves was {{ $value | humanizeDuration }} ago.",
        description=(
            "The analyzer should re-validate the served versions against FP32 every week at least. "
            "For more than eight days it has not ordered any (label task), or none of this model "
            "has ended (label model), as while it is frozen. Harm that no range shows (other "
            "labels, other preprocessing) would stay unseen. Look at the runs of the task "
            "'revalidation', at the jobs, and at the analyzer's log."
        ),
    ),
    Alert(
        name="CalidriftRevalidationFailed",
        value=f"max by (model, outcome) ({_REFUSED})",
        comparison=Comparison.ABOVE,
        limit=0,
        hold="0s",
        severity=Severity.WARNING,
        summary=f"The last re-validation of {_MODEL} ended: {{{{ $labels.outcome }}}}.",
        description=(
            f"What serves as {_MODEL} was measured against FP32 again. 'refused': it no longer "
            "passes the gate that it was promoted by, so answers may be worse than they were. "
            "'failed': it could not be measured, so nobody knows. Nothing was changed. The alert "
            "ends with the next re-validation that holds. The job's page shows the report, or "
            "the error."
        ),
    ),
)
