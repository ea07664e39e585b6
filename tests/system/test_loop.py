"""The whole loop, once, with the real Prometheus and Alertmanager: `calidrift demo-stack`.

Every step is seen from outside. While everything still runs, every expression of dashboards and
rules is put to that Prometheus.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest

from calidrift_agent import CalibrationProfile, open_version
from calidrift_analyzer.dashboards import ALERTS, DASHBOARDS, RECORDINGS

COMMAND = Path(sys.executable).with_name("calidrift")
MODEL = "digits"
LIMIT = 360.0
SECOND = 1.0
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
STEPS = [
    "metrics show the drift",
    "the rule fires",
    "Alertmanager calls the webhook",
    "captured requests are selected",
    "candidates are made",
    "candidates are validated against FP32",
    "a version is promoted",
    "the serving process swaps",
    "coverage is restored",
    "the alert resolves",
    "Alertmanager tells it",
    "somebody rolls back",
    "the serving process swaps back",
    "metrics name the version",
    "the promoted version serves again",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Stack:
    """The command at work, with its document and its children."""

    def __init__(self, process, folder):
        self.process, self.folder = process, folder
        self.document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        self.steps = {step["name"]: step for step in self.document["steps"]}
        self.children = psutil.Process(process.pid).children(recursive=True)

    def get(self, server, path, token=None, **query):
        address = self.document["addresses"][server]
        request = urllib.request.Request(f"{address}{path}?{urlencode(query)}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with OPENER.open(request, timeout=30) as answer:
            return json.loads(answer.read())

    def token(self):
        return (self.folder / "prometheus" / "token").read_text(encoding="utf-8")

    def ask(self, expression, at=None):
        """Samples of an expression, now or at a moment."""
        moment = {} if at is None else {"time": f"{at:.3f}"}
        try:
            answer = self.get("prometheus", "/api/v1/query", query=expression, **moment)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        return answer["data"]["result"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory, needed):
    """One run; it stays when the loop has gone round, and is ended with Ctrl-C."""
    needed("prometheus", "prometheus")
    needed("prometheus-alertmanager", "prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("stack")
    words = ("demo-stack", "--stay", "--json", "--workdir", "run", "--seed", "1")
    with (
        (folder / "out").open("w") as out,
        (folder / "told").open("w") as told,
        subprocess.Popen([str(COMMAND), *words], cwd=folder, stdout=out, stderr=told) as process,
    ):
        try:
            until = time.monotonic() + LIMIT
            while not (folder / "told").read_text().rstrip().endswith("until Ctrl-C"):
                assert process.poll() is None, (folder / "told").read_text()
                assert time.monotonic() < until, (folder / "told").read_text()
                time.sleep(0.1)
            yield Stack(process, folder / "run")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()


def test_every_step_was_seen_in_its_order_and_in_time(stack):
    assert list(stack.steps) == STEPS
    moments = [step["at_seconds"] for step in stack.document["steps"]]
    assert moments[0] > 0
    # What a server tells by its own clock may be a moment before it is seen in another one.
    assert all(later >= before - SECOND for before, later in pairwise(moments))
    assert stack.document["wall_seconds"] < LIMIT


def test_no_request_was_lost(stack):
    found = stack.document
    assert found["loss"] == []
    assert found["lost"] == 0
    assert set(found["answers"]) == {found["first"], found["version"]}
    assert min(found["answers"].values()) >= 20
    assert sum(found["answers"].values()) == found["requests"]


def test_the_alert_and_nothing_else_led_to_one_job(stack):
    assert "CalidriftDriftAlarm" in stack.document["alerts"]
    [job] = stack.get("analyzer", "/api/v1/jobs", stack.token())["items"]
    assert (job["job"], job["trigger"], job["actor"]) == (1, "alertmanager", "alertmanager")
    assert job["state"] == "promoted"
    detail = stack.get("analyzer", "/api/v1/jobs/1", stack.token())
    assert [step["state"] for step in detail["steps"] if step["event"] == "entered"] == [
        "queued",
        "selecting",
        "recalibrating",
        "validating",
        "awaiting_approval",
        "promoted",
    ]
    assert len(detail["selection"]["ids"]) > 0
    layers = detail["report"]["kernels"]["layers"]
    assert [one["found"] for one in layers] == [one["planned"] for one in layers]
    assert len(layers) > 1


def test_what_was_promoted_serves_with_its_own_profile(stack):
    version = open_version(stack.folder / "registry", MODEL)
    assert version.id == stack.document["version"]
    health = stack.get("service", "/healthz")
    assert (health["version"], health["problem"]) == (version.id, None)
    model = stack.get("analyzer", f"/api/v1/models/{MODEL}", stack.token())
    assert model["profile"] == CalibrationProfile.load(version.profile_path).digest
    served = stack.ask(f'calidrift_agent_version_info{{model="{MODEL}"}}')
    assert [one["metric"]["version"] for one in served] == [version.id]


def test_coverage_was_lost_and_is_restored(stack):
    assert stack.document["coverage_before"] < 0.95
    assert stack.document["coverage_after"] >= 0.95
    assert stack.ask('ALERTS{alertstate="firing",action="recalibrate"}') == []


def test_a_rollback_and_the_way_forward_reach_the_service_and_are_kept(stack):
    first, version = stack.document["first"], stack.document["version"]
    told = {name: step["told"] for name, step in stack.steps.items()}
    assert told["somebody rolls back"] == f"{first} serves again"
    assert told["the serving process swaps back"] == f"answers come from {first}"
    # Kernels are counted whenever a version is loaded: promoted, and rolled back to.
    assert told["metrics name the version"] == (
        f"{first}; loads that ran every planned INT8 kernel: 2, that did not: 0"
    )
    report = open_version(stack.folder / "registry", MODEL, first).report_path
    planned = json.loads(report.read_text(encoding="utf-8"))["kernels"]["layers"]
    assert sum(one["planned"] for one in planned) > 1
    [loads] = stack.ask(f'calidrift_agent_version_attempts_total{{model="{MODEL}"}}')
    assert (loads["metric"]["outcome"], loads["value"][1]) == ("served", "3")
    audit = stack.get("analyzer", "/api/v1/audit", stack.token())["items"]
    moves = [(row["actor"], row["subject"]) for row in audit if row["action"] == "rollback"]
    assert moves == [("operator", version), ("operator", first)]
    for named in (first, version):
        assert stack.ask(
            f'max_over_time(calidrift_agent_version_info{{version="{named}"}}[10m]) == 1'
        )


def test_rules_differ_in_their_times_alone(stack):
    committed = Path(__file__).resolve().parents[2] / "dashboards" / "prometheus"
    for path in committed.glob("*.yml"):
        used = (stack.folder / "prometheus" / path.name).read_text(encoding="utf-8").splitlines()
        for one, other in zip(path.read_text(encoding="utf-8").splitlines(), used, strict=True):
            assert one == other or one.split(":")[0] == other.split(":")[0]
            assert one == other or one.split(":")[0].strip() in {"interval", "for"}
    told = {one["alert"]: one["committed"] for one in stack.document["rules"]}
    assert told == {alert.name: alert.hold for alert in ALERTS}


WITHOUT_DATA = {
    "calidrift_reference_": "no FP32 reference is watched beside the service",
    "calidrift_harm_alarm": "no FP32 reference is watched beside the service",
    "calidrift_analyzer_revalidation_": "nothing was re-validated within these minutes",
    'task="revalidation"': "nothing was re-validated within these minutes",
    'outcome="failed"': "no recalibration failed",
    "calidrift_nonfinite_elements_total": "no value was NaN or infinite, and only those are shown",
    'state!="active"': "no process stopped observing, and only those are shown",
    'state=~"killed|errors|budget"': "no process stopped observing",
    "calidrift_agent_exports_total": "nothing is sent over OTLP",
    "calidrift_agent_export_failures_total": "nothing is sent over OTLP",
    "calidrift_analyzer_deploy_total": "no model has a hook in this stack",
    "calidrift_analyzer_dated_back_windows_total": "all processes share one clock",
    "calidrift_agent_push": "no sidecar pushes: analyzer and service share a folder",
    "absent(": "the analyzer was never away",
}
"""What may be without data in this stack: a part of the expression, and why."""


def expressions(point):
    """Every expression of dashboards and rules, by where it stands; alerts without their limit."""
    found = {}
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for number, query in enumerate(panel.queries):
                found[f"{dashboard.name}: {panel.title} [{number}]"] = query.expr
        for name, expr in dashboard.annotations().items():
            found[f"{dashboard.name}: annotation {name}"] = expr
    for recording in RECORDINGS:
        found[f"recording {recording.name}"] = recording.expr
        found[f"recorded {recording.name}"] = recording.name
    for alert in ALERTS:
        found[f"alert {alert.name}"] = alert.value
    variables = {"$__rate_interval": "1m", "$model": MODEL, "$point": point}
    for variable, value in variables.items():
        found = {where: expr.replace(variable, value) for where, expr in found.items()}
    return found


def test_every_expression_is_understood_and_gives_data(stack):
    point = stack.get("analyzer", f"/api/v1/models/{MODEL}/points", stack.token())[0]["point"]
    asked = expressions(point)
    for expr in asked.values():
        stack.ask(expr)
    # Not all at once: an annotation marks a moment, and the evidence of a drift ends with it.
    empty = {
        where: expr
        for where, expr in asked.items()
        if not stack.ask(f"last_over_time(({expr})[10m:1s])")
    }

    unexplained = {
        where: expr
        for where, expr in empty.items()
        if not any(part in expr for part in WITHOUT_DATA)
    }
    assert unexplained == {}
    assert len(asked) - len(empty) > 80


def test_a_wrong_expression_is_no_silence(stack):
    with pytest.raises(AssertionError, match="parse error"):
        stack.ask("sum by (model (calidrift_drift_alarm)")
    assert stack.ask("calidrift_drift_alarms") == []


def test_the_limits_of_the_alerts_were_passed_when_they_fired_and_are_kept_now(stack):
    for alert in ALERTS:
        stack.ask(alert.expr)
        if alert.name in stack.document["alerts"]:
            assert stack.ask(f"max_over_time(({alert.expr})[10m:1s])")
            assert not stack.ask(alert.expr)


def test_ctrl_c_ends_everything_that_was_started(stack):
    names = {child.name() for child in stack.children}
    assert {"prometheus", "prometheus-aler"} <= {name[:15] for name in names}
    assert len(stack.children) >= 4

    stack.process.send_signal(signal.SIGINT)

    assert stack.process.wait(90) == 0
    _, alive = psutil.wait_procs(stack.children, timeout=30)
    assert alive == []
    out = json.loads((stack.folder.parent / "out").read_text(encoding="utf-8"))
    assert out == stack.document
