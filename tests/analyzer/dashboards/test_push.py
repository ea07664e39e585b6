"""`push`, `diff` and `pull` against the stand-in, through the command."""

import json

import pytest

from calidrift_analyzer.dashboards import DASHBOARDS, GROUPS


@pytest.fixture
def grafana(stand_in, address, editor, command, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA__URL", address)
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", editor)
    return stand_in


def test_the_first_push_brings_everything(grafana, command):
    status, document, err = command("push", "--json")

    assert (status, err) == (0, "")
    assert document["changed"] == 1 + len(DASHBOARDS) + len(GROUPS)
    assert set(grafana.dashboards) == {one.uid for one in DASHBOARDS}
    assert set(grafana.groups) == {("calidrift", group.name) for group in GROUPS}
    assert grafana.folders["calidrift"]["title"] == "Calidrift"
    assert {folder for _, folder, _ in grafana.dashboards.values()} == {"calidrift"}


def test_a_second_push_changes_nothing_and_says_so(grafana, command):
    command("push")
    grafana.calls.clear()

    status, out, _ = command("push")

    assert status == 0
    assert "nothing to change" in out
    assert grafana.writes == []


def test_people_read_what_was_done(grafana, command):
    _, out, _ = command("push")

    assert "dashboard calidrift-fleet: created" in out
    assert "alerts calidrift-agents: created" in out


def test_rules_stay_editable_and_go_to_their_contact_point(grafana, command, tmp_path):
    (tmp_path / "calidrift.toml").write_text(
        '[grafana]\nreceiver = "on-call"\ndatasource = "prom-eu"\nfolder = "ml"\n'
        'page_url = "https://calidrift.example.org"\n',
        encoding="utf-8",
    )

    assert command("push")[0] == 0

    rules = [rule for group, _ in grafana.groups.values() for rule in group["rules"]]
    assert {rule["notification_settings"]["receiver"] for rule in rules} == {"on-call"}
    assert {rule["data"][0]["datasourceUid"] for rule in rules} == {"prom-eu"}
    assert {provenance for _, provenance in grafana.groups.values()} == {""}
    assert {folder for folder, _ in grafana.groups} == {"ml"}
    assert "https://calidrift.example.org" in json.dumps(grafana.dashboards["calidrift-fleet"])
    assert command("push")[1].startswith("nothing to change")


def test_without_a_contact_point_the_policies_decide(grafana, command):
    command("push")

    rules = [rule for group, _ in grafana.groups.values() for rule in group["rules"]]
    assert not any("notification_settings" in rule for rule in rules)
    assert not any("polic" in call for call in grafana.calls)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ('receiver = "nobody"', "no contact point 'nobody'"),
        ('datasource = "loki"', "no data source with the uid 'loki'"),
    ],
    ids=["receiver", "datasource"],
)
def test_names_that_grafana_lacks_are_told_before_anything_changes(
    setting, told, grafana, command, tmp_path, admin, monkeypatch
):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", admin)
    (tmp_path / "calidrift.toml").write_text(f"[grafana]\n{setting}\n", encoding="utf-8")

    status, _, err = command("push")

    assert status == 2
    assert told in err
    assert "nothing was changed" in err
    assert grafana.writes == []


def test_an_editor_may_not_look_at_data_sources_and_is_told_by_the_rules(
    grafana, command, tmp_path
):
    (tmp_path / "calidrift.toml").write_text('[grafana]\ndatasource = "loki"\n', encoding="utf-8")

    status, _, err = command("push")

    assert status == 2
    assert "to save the rule group" in err
    assert "data source not found" in err


def test_an_administrator_pushes_as_well(grafana, command, admin, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_GRAFANA_TOKEN", admin)

    assert command("push")[0] == 0


def test_diff_of_an_empty_grafana(grafana, command):
    status, document, err = command("diff", "--json")

    assert status == 1
    assert {item["state"] for item in document["items"]} == {"missing"}
    assert "push" in err
    assert grafana.writes == []


def test_diff_after_a_push_is_none(grafana, command):
    command("push")

    status, out, err = command("diff")

    assert (status, out.strip(), err) == (0, "no difference", "")


def spoil_dashboard(grafana):
    document, folder, provisioned = grafana.dashboards["calidrift-point"]
    changed = json.loads(json.dumps(document))
    changed["panels"][1]["title"] = "Renamed"
    changed["panels"].append({"type": "text", "title": "A note of ours"})
    changed["version"] += 1
    grafana.dashboards["calidrift-point"] = (changed, folder, provisioned)


def spoil_folder(grafana):
    document, _, provisioned = grafana.dashboards["calidrift-model"]
    grafana.dashboards["calidrift-model"] = (document, "", provisioned)


def spoil_rule(grafana):
    grafana.groups["calidrift", "calidrift-agents"][0]["rules"][0]["for"] = "5h"


def spoil_receiver(grafana):
    rule = grafana.groups["calidrift", "calidrift-agents"][0]["rules"][0]
    rule["notification_settings"] = {"receiver": "on-call"}


def drop_rule(grafana):
    grafana.groups["calidrift", "calidrift-agents"][0]["rules"].pop()


@pytest.mark.parametrize(
    ("spoil", "item", "told"),
    [
        (spoil_dashboard, "dashboard calidrift-point", "found 'Renamed'"),
        (spoil_dashboard, "dashboard calidrift-point", "panels: 1 more in Grafana"),
        (spoil_folder, "dashboard calidrift-model", "folder: wanted 'calidrift', found ''"),
        (spoil_rule, "alerts calidrift-agents", "for: wanted '30m', found '5h'"),
        (spoil_receiver, "alerts calidrift-agents", "notification_settings: only in Grafana"),
        (drop_rule, "alerts calidrift-agents", "rules: 1 fewer in Grafana"),
    ],
    ids=["title", "panel", "folder", "duration", "receiver", "rule"],
)
def test_what_people_changed_is_told_and_a_push_mends_only_that(
    spoil, item, told, grafana, command
):
    command("push")
    spoil(grafana)

    status, out, _ = command("diff")

    assert status == 1
    assert f"{item}: different" in out
    assert told in out
    grafana.calls.clear()
    assert f"{item}: brought up to date" in command("push")[1]
    assert len(grafana.writes) == 1
    assert command("diff")[0] == 0


def test_what_grafana_adds_by_itself_is_no_difference(grafana, command):
    command("push")
    stored = grafana.dashboards["calidrift-fleet"][0]

    assert stored["schemaVersion"] == 42
    assert "preload" in stored
    assert command("diff")[0] == 0


def test_many_differences_are_cut_for_people(grafana, command):
    command("push")
    document, folder, provisioned = grafana.dashboards["calidrift-fleet"]
    changed = json.loads(json.dumps(document))
    for panel in changed["panels"]:
        panel["title"] += "!"
        panel["gridPos"]["h"] = 99
    grafana.dashboards["calidrift-fleet"] = (changed, folder, provisioned)

    _, out, _ = command("diff")
    _, whole, _ = command("diff", "--json")

    assert "more: see --json" in out
    assert max(len(item["differences"]) for item in whole["items"]) > 20


def test_a_change_between_reading_and_saving_is_refused(grafana, command):
    command("push")
    spoil_dashboard(grafana)

    def meanwhile():
        grafana.before_save = lambda: None
        spoil_dashboard(grafana)

    grafana.before_save = meanwhile
    status, _, err = command("push")

    assert status == 1
    assert "changed meanwhile (412" in err
    assert err.count("\n") == 1


def test_an_answer_that_was_lost_is_no_conflict(grafana, command):
    """The save was done, the answer was lost, and the retry meets our own version."""
    command("push")
    spoil_dashboard(grafana)
    save = grafana.save_dashboard

    def lose(body):
        grafana.save_dashboard = save
        save(body)
        raise grafana.refusal(502, "bad gateway")

    grafana.save_dashboard = lose
    grafana.calls.clear()

    status, out, _ = command("push")

    assert status == 0
    assert "dashboard calidrift-point: brought up to date" in out
    assert len(grafana.writes) == 2
    assert command("diff")[0] == 0


def test_bursts_of_errors_are_waited_out(grafana, command):
    grafana.stumble(503, 502, 429, 500)

    assert command("push")[0] == 0
    assert command("diff")[0] == 0


def test_pull_fetches_what_is_there(grafana, command, tmp_path):
    command("push")
    spoil_dashboard(grafana)

    status, document, _ = command("pull", "--to", "mine", "--json")

    assert status == 0
    assert len(document["files"]) == len(DASHBOARDS) + len(GROUPS)
    point = json.loads((tmp_path / "mine/point.json").read_text(encoding="utf-8"))
    assert point["panels"][1]["title"] == "Renamed"
    assert not {"id", "version"} & set(point)
    group = json.loads((tmp_path / "mine/calidrift-agents.json").read_text(encoding="utf-8"))
    assert not {"provenance", "updated", "orgID"} & set(group["rules"][0])


def test_pull_says_what_is_not_there(grafana, command, tmp_path):
    status, _, err = command("pull")

    assert status == 0
    assert "not in Grafana: calidrift-fleet, calidrift-model" in err


def test_pull_replaces_no_file_that_differs(grafana, command, tmp_path):
    command("push")
    folder = tmp_path / "grafana-pulled"
    folder.mkdir()
    (folder / "fleet.json").write_text("mine", encoding="utf-8")

    status, _, err = command("pull")

    assert status == 2
    assert "give --force" in err
    assert [path.name for path in folder.iterdir()] == ["fleet.json"]
    assert command("pull", "--force")[0] == 0
    assert (folder / "fleet.json").read_text(encoding="utf-8") != "mine"


def test_another_version_is_told(grafana, command):
    grafana.version = "14.0.0"
    assert "this is Grafana 14.0.0" in command("diff")[2]
    grafana.version = "11.6.1"
    assert "this is Grafana" not in command("diff")[2]
