"""The committed files are what the code makes, and hold what Grafana and Kubernetes demand."""

import copy
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from calidrift_agent._export import CATALOGUE, MetricType
from calidrift_agent._vocabulary import AgentState
from calidrift_analyzer.config import GrafanaConfig
from calidrift_analyzer.dashboards import ALERTS, DASHBOARDS, GROUPS, RECORDINGS, Format, artefacts
from calidrift_analyzer.dashboards._series import ALL, MODEL, POINT, metrics_of
from calidrift_analyzer.records import JobState

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "dashboards"
BY_HAND = {"README.md", "RUNBOOK.md"}
SCHEMA = "grafana-dashboard-v1.schema.json"
CRD = "prometheusrules.yaml"
VARIABLE = re.compile(r"\$\{?(\w+)")


def everything(config=None):
    made = {}
    for form in Format:
        made |= artefacts(config or GrafanaConfig(), form)
    return made


def schema_file(name):
    """A file of the schemas, which are not part of the project; skips where they are absent."""
    named = os.environ.get("CALIDRIFT_SCHEMAS")
    places = [Path(named)] if named else [ROOT / "schemas", *sorted(ROOT.parent.glob("*/schemas"))]
    for place in places:
        if (place / name).is_file():
            return place / name
    pytest.skip(f"there is no {name}; name its folder in CALIDRIFT_SCHEMAS")


def queries():
    return [query for one in DASHBOARDS for panel in one.panels for query in panel.queries]


def expressions():
    return [
        *(query.expr for query in queries()),
        *(expr for one in DASHBOARDS for expr in one.annotations().values()),
        *(recording.expr for recording in RECORDINGS),
        *(alert.value for alert in ALERTS),
    ]


def test_the_committed_files_are_what_the_code_makes():
    made = everything()
    found = {
        path.relative_to(COMMITTED).as_posix(): path.read_text(encoding="utf-8")
        for path in COMMITTED.rglob("*")
        if path.is_file() and path.name not in BY_HAND
    }

    stale = [name for name in made if made[name] != found.get(name)]
    assert stale == [], "make them anew: calidrift dashboards export --to dashboards --force"
    assert sorted(found) == sorted(made)


def test_the_same_settings_make_the_same_files():
    assert everything() == everything()


# The schema knows annotations of Grafana's own data source only, and closes what is open in
# Grafana: annotations of Prometheus carry their query, and how it is shown.
OPENED = {
    "AnnotationQuery": ("titleFormat", "textFormat", "tagKeys"),
    "AnnotationTarget": ("refId", "expr", "legendFormat", "interval"),
}


@pytest.fixture(scope="module")
def validator():
    import jsonschema

    schema = json.loads(schema_file(SCHEMA).read_text(encoding="utf-8"))
    for name, keys in OPENED.items():
        schema["definitions"][name]["properties"] |= {key: {"type": "string"} for key in keys}
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_a_dashboard_is_valid(dashboard, validator):
    document = json.loads(json.dumps(dashboard.document("https://calidrift.example.org")))

    assert [error.message for error in validator.iter_errors(document)] == []


def wrong_position(document):
    document["panels"][1]["gridPos"]["w"] = "wide"


def unknown_key(document):
    document["panels"][1]["colour"] = "red"


def unknown_variable_type(document):
    document["templating"]["list"][0]["type"] = "database"


def unknown_field(document):
    document["annotations"]["list"][1]["query"] = "x"


@pytest.mark.parametrize(
    "spoil",
    [wrong_position, unknown_key, unknown_variable_type, unknown_field],
    ids=lambda spoil: spoil.__name__,
)
def test_the_schema_finds_a_mistake(spoil, validator):
    document = json.loads(json.dumps(DASHBOARDS[0].document("http://x")))
    spoil(document)

    assert list(validator.iter_errors(document))


def test_every_metric_is_shown_somewhere():
    shown = {entry.name for entry in metrics_of(query.expr for query in queries())}
    # An exponential histogram exists over OTLP only: Prometheus' text format has no word for it.
    expected = {entry.name for entry in CATALOGUE if entry.type is not MetricType.EXPONENTIAL}

    assert shown == expected


def test_expressions_use_the_catalogue_and_its_labels_only():
    for expr in expressions():
        entries = metrics_of([expr])  # a KeyError for a metric that does not exist
        known = {label for entry in entries for label in entry.labels} | {"le"}
        used = set()
        for inside in re.findall(r"\{([^}]*)\}", expr):
            used |= set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', inside))
        for inside in re.findall(r"\b(?:by|on|without|group_left) \(([^)]*)\)", expr):
            used |= set(re.findall(r"\w+", inside))
        assert entries, expr
        assert used <= known, expr


def test_legends_name_labels_that_are_there():
    for query in queries():
        labels = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query.expr))))
        assert labels <= kept, query


def test_words_in_matchers_are_words_that_are_exported():
    """A matcher for a word that nobody writes would be silent for ever."""
    states = {state.value for state in (*AgentState, *JobState)}
    service = ROOT / "analyzer/calidrift_analyzer/service"
    written = "".join(path.read_text(encoding="utf-8") for path in sorted(service.glob("*.py")))
    for expr in expressions():
        for label, words in re.findall(r'(\w+)(?:=~|!~|!=|=)"([\w|]+)"', expr):
            for word in words.split("|"):
                if label in {"state", "outcome"}:
                    assert word in states, expr
                else:
                    assert label == "task", expr
                    assert f'"{word}"' in written, expr


def test_a_selector_refuses_what_does_not_exist():
    with pytest.raises(KeyError):
        ALL.series("calidrift_surprise")
    with pytest.raises(ValueError, match="no label"):
        MODEL.series("calidrift_drift_alarm", point='="a"')
    with pytest.raises(ValueError, match="no part"):
        ALL.series("calidrift_drift_alarm", part="_bucket")
    with pytest.raises(ValueError, match="no part"):
        ALL.series("calidrift_activation_range_ratio")
    assert POINT.series("calidrift_drift_alarm") == 'calidrift_drift_alarm{model="$model"}'
    with pytest.raises(KeyError):
        metrics_of(["rate(calidrift_drift_alarm_count[5m])"])


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_a_dashboard_uses_only_variables_that_it_has(dashboard):
    document = dashboard.document("http://x")
    own = {variable["name"] for variable in document["templating"]["list"]}
    builtin = {"__rate_interval", "__field", "__value", "__all"}

    assert set(VARIABLE.findall(json.dumps(document))) <= own | builtin
    assert {"datasource", "page"} <= own


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_panels_lie_beside_each_other(dashboard):
    taken = set()
    panels = dashboard.document("http://x")["panels"]
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_units_and_thresholds_fit_the_figures():
    panels = {panel.title: panel.document(1, 0, 0) for one in DASHBOARDS for panel in one.panels}
    units = {title: one["fieldConfig"]["defaults"]["unit"] for title, one in panels.items()}
    assert units["Request coverage"] == "percentunit"
    assert units["Worst predicted SQNR change"] == "dB"
    assert units["Size of the store"] == "bytes"
    assert units["Age of state files"] == "s"
    assert units["Observed requests"] == "reqps"
    assert units["Agent's time"] == "percentunit"  # seconds per second
    for title, panel in panels.items():
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        values = [step["value"] for step in steps]
        assert values[0] is None, title
        assert values[1:] == sorted(values[1:]), title
    coverage = panels["Lowest request coverage"]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["color"] for step in coverage] == ["red", "orange", "green"]


def test_nothing_makes_a_zero_of_no_data():
    for expr in expressions():
        assert "vector(" not in expr
        assert "or on" not in expr
    for one in DASHBOARDS:
        for panel in one.document("http://x")["panels"]:
            if panel["type"] != "row":
                assert panel["fieldConfig"]["defaults"]["noValue"] == "no data"
                assert panel["fieldConfig"]["defaults"]["custom"].get("spanNulls") is not True


def test_the_settings_reach_every_file_that_they_are_about():
    config = GrafanaConfig(
        folder="ml",
        datasource="prom-eu",
        receiver="on-call",
        page_url="https://page.example.org",
        runbook_url="https://wiki.example.org/runbook",
    )
    made = everything(config)

    for dashboard in DASHBOARDS:
        assert "https://page.example.org" in made[f"grafana/{dashboard.name}.json"]
    assert "folderUid: ml" in made["grafana/provisioning/dashboards/calidrift.yaml"]
    rules = yaml.safe_load(made["grafana/provisioning/alerting/calidrift.yaml"])["groups"]
    for rule in (rule for group in rules for rule in group["rules"]):
        assert rule["notification_settings"] == {"receiver": "on-call"}
        assert rule["data"][0]["datasourceUid"] == "prom-eu"
        assert rule["annotations"]["runbook_url"].startswith("https://wiki.example.org/runbook#")
    assert "https://wiki.example.org/runbook#" in made["prometheus/calidrift-alerts.yml"]
    assert "https://wiki.example.org/runbook#" in made["kubernetes/prometheus-rule.yaml"]


def test_text_that_yaml_could_mistake_comes_through():
    awkward = 'on-call: "#1" \\ {{ x }} ü'
    made = everything(GrafanaConfig(receiver=awkward))

    groups = yaml.safe_load(made["grafana/provisioning/alerting/calidrift.yaml"])["groups"]
    assert groups[0]["rules"][0]["notification_settings"]["receiver"] == awkward
    manifest = yaml.safe_load(made["kubernetes/grafana-alerting.yaml"])
    assert yaml.safe_load(manifest["data"]["calidrift-alerting.yaml"])["groups"] == groups


def test_rules_of_grafana_and_prometheus_are_the_same_alerts():
    made = everything()
    grafana = yaml.safe_load(made["grafana/provisioning/alerting/calidrift.yaml"])["groups"]
    prometheus = yaml.safe_load(made["prometheus/calidrift-alerts.yml"])["groups"]

    assert [group["name"] for group in grafana] == [group.name for group in GROUPS]
    for theirs, ours in zip(grafana, prometheus, strict=True):
        assert theirs["name"] == ours["name"]
        for rule, alert in zip(theirs["rules"], ours["rules"], strict=True):
            assert rule["title"] == alert["alert"]
            assert rule["for"] == alert["for"]
            assert rule["labels"] == alert["labels"]
            assert set(rule["annotations"]) == set(alert["annotations"])


def test_no_dollar_is_lost_in_provisioning_files():
    """Grafana puts environment variables into everything but annotations (and dashboards)."""
    made = everything()
    document = yaml.safe_load(made["grafana/provisioning/alerting/calidrift.yaml"])
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        rule = copy.deepcopy(rule)
        told = rule.pop("annotations")
        assert "$" not in json.dumps(rule)
        assert "$value " not in " ".join(told.values())  # a text of all queries in Grafana
    assert "$" not in made["grafana/provisioning/dashboards/calidrift.yaml"]


def manifests():
    made = artefacts(GrafanaConfig(), Format.CONFIGMAP)
    return {name: yaml.safe_load(text) for name, text in made.items()}


def test_manifests_hold_the_same_dashboards():
    files = artefacts(GrafanaConfig(), Format.FILES)
    found = manifests()
    for dashboard in DASHBOARDS:
        manifest = found[f"kubernetes/dashboard-{dashboard.name}.yaml"]
        [text] = manifest["data"].values()
        assert text == files[f"grafana/{dashboard.name}.json"]
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert len(text.encode()) < 2**20
    names = set(found["kubernetes/kustomization.yaml"]["resources"])
    assert names == {Path(name).name for name in found} - {"kustomization.yaml"}


@pytest.mark.parametrize("version", ["1.29", "1.30", "1.31", "1.32", "1.33"])
def test_kubernetes_takes_the_config_maps(version):
    import kubernetes_validate

    for document in manifests().values():
        if document["kind"] == "ConfigMap":
            kubernetes_validate.validate(document, version, strict=True)
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate({**document, "dat": {}}, version, strict=True)


def closed(schema):
    """The schema of a CRD, refusing what it does not name, with patterns as Python writes them."""
    if isinstance(schema, str):
        return schema.replace("^(?i)", "(?i)^")
    if isinstance(schema, dict):
        found = {key: closed(value) for key, value in schema.items()}
        if "properties" in found and "additionalProperties" not in found:
            found["additionalProperties"] = False
        return found
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


def test_the_operator_takes_the_rules():
    import jsonschema

    crd = yaml.safe_load(schema_file(CRD).read_text(encoding="utf-8"))
    [version] = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
    spec = closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    document = manifests()["kubernetes/prometheus-rule.yaml"]["spec"]

    jsonschema.validate(document, spec)
    assert [group["name"] for group in document["groups"]][1:] == [group.name for group in GROUPS]
    document["groups"][1]["rules"][0]["severity"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, spec)
