"""Every expression of dashboards, annotations and rules, evaluated by Prometheus' own `promtool`.

The series are synthetic, made from the metric catalogue: what returns data here names metrics,
labels and parts that exist, and what returns nothing without series invents no zeros.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from calidrift_agent._export import CATALOGUE, MetricType
from calidrift_agent._vocabulary import RATIO_BOUNDS
from calidrift_analyzer.config import GrafanaConfig
from calidrift_analyzer.dashboards import ALERTS, DASHBOARDS, RECORDINGS, Format, artefacts

MODEL, POINT = "resnet", "layer4.1.conv2:input"
WORDS = {
    "model": MODEL,
    "point": POINT,
    "rail": "high",
    "kind": "nan",
    "outcome": "promoted",
    "stage": "tap",
    "reason": "queue_full",
    "task": "revalidation",
    "version": "0.1.0",
    "instrument": "range",
    "strategy": "instead",
    "state": "errors",
    "segment": "night",
}
GRAFANA = {"$__rate_interval": "5m", "$model": MODEL, "$point": POINT}
VALUES = {"calidrift_agent_points_observed": "0x120"}
MINUTES = 90


@pytest.fixture(scope="session")
def promtool(needed):
    """Path of promtool."""
    return needed("promtool", "prometheus")


def test_without_the_program_the_tests_are_skipped_unless_they_must_run(monkeypatch, needed):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CALIDRIFT_REQUIRE_SYSTEM", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install prometheus"):
        needed("promtool", "prometheus")
    monkeypatch.setenv("CALIDRIFT_REQUIRE_SYSTEM", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install prometheus"):
        needed("promtool", "prometheus")


@pytest.fixture(scope="session")
def rule_files(tmp_path_factory):
    """The generated rules as files."""
    root = tmp_path_factory.mktemp("rules")
    files = artefacts(GrafanaConfig(runbook_url="https://example.org/RUNBOOK.md"), Format.FILES)
    paths = [name for name in files if name.startswith("prometheus/")]
    for name in paths:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(files[name], encoding="utf-8")
    return [str(root / name) for name in paths]


@pytest.fixture
def evaluate(promtool, tmp_path):
    """Run `promtool test rules` over a document; give its status and what it said."""

    def run(document):
        path = tmp_path / "cases.yml"
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        ended = subprocess.run(
            [promtool, "test", "rules", str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    return run


def catalogue_series():
    """One series of everything in the catalogue; counters grow by 60 a minute."""
    found = []
    for entry in CATALOGUE:
        if entry.type is MetricType.EXPONENTIAL:
            continue  # OTLP only
        labels = ",".join(f'{label}="{WORDS[label]}"' for label in entry.labels)
        if entry.type is MetricType.HISTOGRAM:
            sets = [f'{labels},le="{le}"' for le in (*RATIO_BOUNDS, "+Inf")]
            found += [(f"{entry.name}_bucket{{{one}}}", f"0+60x{MINUTES}") for one in sets]
            found += [
                (f"{entry.name}_{part}{{{labels}}}", f"0+60x{MINUTES}") for part in ("count", "sum")
            ]
        else:
            growing = f"0+60x{MINUTES}" if entry.type is MetricType.COUNTER else f"1x{MINUTES}"
            found.append((f"{entry.name}{{{labels}}}", VALUES.get(entry.name, growing)))
    return [{"series": name, "values": values} for name, values in found]


def expressions():
    """Every expression that a person or a rule asks, by where it stands."""
    found = {}
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for number, query in enumerate(panel.queries):
                found[f"{dashboard.name}: {panel.title} [{number}]"] = query.expr
        for name, expr in dashboard.annotations().items():
            found[f"{dashboard.name}: annotation {name}"] = expr
    for recording in RECORDINGS:
        found[f"recording {recording.name}"] = recording.expr
    for alert in ALERTS:
        if not alert.value.startswith("absent("):
            found[f"alert {alert.name}"] = alert.value
    return {where: filled(expr) for where, expr in found.items()}


def filled(expr):
    for variable, value in GRAFANA.items():
        expr = expr.replace(variable, value)
    return expr


def looked_at(cases, series, expected):
    """A document that asks whether each expression gives anything."""
    return {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f"clamp_max(count({expr}), 1)",
                        "eval_time": f"{MINUTES - 1}m",
                        "exp_samples": expected,
                    }
                    for expr in cases
                ],
            }
        ],
    }


SOMETHING = [{"labels": "{}", "value": 1}]


def test_every_expression_gives_data(evaluate):
    cases = expressions()
    # `failed` is no outcome of the synthetic series: alerts on it have cases of their own.
    cases = {where: expr for where, expr in cases.items() if '"failed' not in expr}

    status, told = evaluate(looked_at(cases.values(), catalogue_series(), SOMETHING))

    assert status == 0, told
    assert len(cases) > 80


def test_without_series_no_expression_gives_data(evaluate):
    """No data is absence: an expression that made a zero of it would look healthy."""
    nothing = [{"series": "up", "values": f"1x{MINUTES}"}]

    status, told = evaluate(looked_at(expressions().values(), nothing, []))

    assert status == 0, told


@pytest.mark.parametrize(
    "mutant",
    [
        "max by (model) (calidrift_drift_alarms)",
        'calidrift_agent_state{stat="errors"}',
        "rate(calidrift_activation_range_ratio[5m])",
        "sum by (model (calidrift_drift_alarm)",
    ],
    ids=["metric", "label", "part", "syntax"],
)
def test_a_wrong_expression_is_found(mutant, evaluate):
    status, _ = evaluate(looked_at([mutant], catalogue_series(), SOMETHING))

    assert status != 0


def test_the_rules_are_well_formed(promtool, rule_files):
    ended = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", *rule_files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(ALERTS)} rules found" in ended.stdout
    assert f"{len(RECORDINGS)} rules found" in ended.stdout


@dataclass(frozen=True)
class Case:
    """What makes an alert fire, and what nearly does.

    Attributes:
        bad: Series by which it fires after `minutes`.
        good: Series by which it never does.
        labels: Labels of the alert beside its own.
        told: What its templates are filled with.
        minutes: When it is looked at.
        step: Time between two samples.
    """

    bad: dict[str, str]
    good: dict[str, str]
    labels: dict[str, str] = field(default_factory=lambda: {"model": MODEL})
    told: dict[str, str] = field(default_factory=dict)
    minutes: int = 60
    step: str = "1m"


FAILED = f'calidrift_recalibrations_total{{model="{MODEL}",outcome="failed"}}'
CASES = {
    name: Case(**case)
    for name, case in yaml.safe_load(
        Path(__file__).with_name("alert_cases.yml").read_text(encoding="utf-8")
    ).items()
}


def alert_of(name):
    """The alert of a case: what stands before the slash, where there are several."""
    return name.partition("/")[0]


@pytest.fixture(params=CASES)
def case(request):
    """An alert with each of its cases."""
    [alert] = [one for one in ALERTS if one.name == alert_of(request.param)]
    return alert, CASES[request.param]


def test_every_alert_has_cases():
    for case in CASES.values():
        assert all(isinstance(values, str) for values in (*case.bad.values(), *case.good.values()))
    assert {alert_of(name) for name in CASES} == {alert.name for alert in ALERTS}
    assert set(CASES) >= {alert.name for alert in ALERTS}


def alert_test(alert, case, series, fires, rule_files):
    """A document that expects an alert to fire, or not to, and nothing else of its labels."""
    labels = {**case.labels, **alert.labels}
    annotations = alert.annotations("https://example.org/RUNBOOK.md")
    words = {"$labels.model": MODEL, **case.told}
    for template, text in words.items():
        annotations = {
            key: said.replace("{{ " + template + " }}", text) for key, said in annotations.items()
        }
    assert not fires or "{{" not in "".join(annotations.values())
    expected = [{"exp_labels": labels, "exp_annotations": annotations}] if fires else []
    return {
        "rule_files": rule_files,
        "evaluation_interval": case.step,
        "tests": [
            {
                "interval": case.step,
                "input_series": [
                    {"series": one, "values": values} for one, values in series.items()
                ],
                "alert_rule_test": [
                    {
                        "alertname": alert.name,
                        "eval_time": f"{case.minutes}m",
                        "exp_alerts": expected,
                    }
                ],
            }
        ],
    }


def test_an_alert_fires_with_words_for_people(case, evaluate, rule_files):
    alert, case = case

    status, told = evaluate(alert_test(alert, case, case.bad, True, rule_files))

    assert status == 0, told


def test_an_alert_stays_silent_when_all_is_well(case, evaluate, rule_files):
    alert, case = case

    status, told = evaluate(alert_test(alert, case, case.good, False, rule_files))

    assert status == 0, told


@pytest.mark.parametrize(
    "alert",
    [alert for alert in ALERTS if alert.name != "CalidriftAnalyzerDown"],
    ids=lambda alert: alert.name,
)
def test_an_alert_stays_silent_without_data(alert, evaluate, rule_files):
    nothing = {"up": "1x70"}

    status, told = evaluate(alert_test(alert, CASES[alert.name], nothing, False, rule_files))

    assert status == 0, told


def test_a_failure_counts_beside_earlier_ones(evaluate, rule_files):
    """Not only the first one, and not for ever."""
    alert = next(alert for alert in ALERTS if alert.name == "CalidriftRecalibrationFailed")
    case = Case(bad={FAILED: "2x30 3x40"}, good={FAILED: "2x5 3x65 3x10"}, minutes=80)

    fired, told = evaluate(alert_test(alert, case, case.bad, True, rule_files))
    silent, told_then = evaluate(alert_test(alert, case, case.good, False, rule_files))

    assert (fired, silent) == (0, 0), told + told_then


def test_a_restart_of_the_analyzer_is_no_failure(evaluate, rule_files):
    """Another instance brings the old totals with it."""
    alert = next(alert for alert in ALERTS if alert.name == "CalidriftRecalibrationFailed")
    first, second = (FAILED.replace("{", f'{{instance="{one}",') for one in ("a", "b"))
    series = {first: "3x50 stale", second: "_x50 3x30"}

    status, told = evaluate(alert_test(alert, CASES[alert.name], series, False, rule_files))

    assert status == 0, told


def test_an_idle_process_beside_a_busy_one_is_not_blind(evaluate, rule_files):
    alert = next(alert for alert in ALERTS if alert.name == "CalidriftPointsBlind")
    series = {}
    for instance, points, requests in (("busy", "12x70", "0+10x70"), ("idle", "0x70", "0x70")):
        one = f'{{model="{MODEL}",instance="{instance}"}}'
        series[f"calidrift_agent_points_expected{one}"] = "12x70"
        series[f"calidrift_agent_points_observed{one}"] = points
        series[f"calidrift_observed_requests_total{one}"] = requests

    status, told = evaluate(alert_test(alert, CASES[alert.name], series, False, rule_files))

    assert status == 0, told


def test_grafana_asks_the_same_question(case, evaluate):
    """Its value and threshold give something exactly where Prometheus' expression does."""
    alert, case = case
    prometheus = alert.expr
    for one in RECORDINGS:
        prometheus = prometheus.replace(one.name, f"({one.expr})")
    grafana = f"({alert.value}) {alert.comparison} {alert.limit:g}"
    differing = [f"({prometheus}) unless ({grafana})", f"({grafana}) unless ({prometheus})"]
    for series, asked, expected in (
        (case.bad, [prometheus, grafana], SOMETHING),
        (case.bad, differing, []),
        (case.good, differing, []),
    ):
        written = [{"series": one, "values": values} for one, values in series.items()]
        document = looked_at(asked, written, expected)
        document["tests"][0]["interval"] = case.step
        for test in document["tests"][0]["promql_expr_test"]:
            test["eval_time"] = f"{case.minutes}m"

        status, told = evaluate(document)

        assert status == 0, told


@pytest.mark.parametrize("totals", ["_x20 1x70", "4x20 5x70"], ids=["first", "fifth"])
def test_every_promotion_is_marked_once(totals, evaluate):
    promoted = f'calidrift_recalibrations_total{{model="{MODEL}",outcome="promoted"}}'
    [dashboard] = [one for one in DASHBOARDS if one.name == "model"]
    expr = filled(dashboard.annotations()["Promotion"])
    document = looked_at([expr], [{"series": promoted, "values": totals}], SOMETHING)
    [asked] = document["tests"][0]["promql_expr_test"]
    document["tests"][0]["promql_expr_test"] = [
        {**asked, "eval_time": "22m"},
        {**asked, "eval_time": "60m", "exp_samples": []},
    ]

    status, told = evaluate(document)

    assert status == 0, told


def test_no_rule_asks_for_a_recorded_series_that_nobody_records():
    recorded = {one.name for one in RECORDINGS}
    used = {
        name for alert in ALERTS for name in re.findall(r"\bmodel(?:_point)?:[\w:]+", alert.expr)
    }

    assert used <= recorded
    assert used
