"""What the servers of the demo are told: as committed, with shorter times and nothing else."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from calidrift_analyzer.config import GrafanaConfig, Mode, load_config
from calidrift_analyzer.dashboards import ALERTS, Format, artefacts
from calidrift_analyzer.demo._workdir import Workdir
from calidrift_analyzer.demo.stack._files import Secrets, StackFiles, shortened, shortened_rules

ROOT = Path(__file__).resolve().parents[4]
COMPOSE = ROOT / "deploy" / "compose"


def committed_rules():
    files = artefacts(GrafanaConfig(), Format.FILES)
    return {Path(name).name: text for name, text in files.items() if name.startswith("prometheus/")}


@pytest.fixture
def files(tmp_path):
    found = StackFiles(
        Workdir.prepare(tmp_path / "run", 0), Secrets("r" * 64, "t" * 64, "d" * 64), 60.0
    )
    found.write_service()
    return found


def without_times(text):
    return [line for line in text.splitlines() if not re.match(r" *(interval|for): ", line)]


def test_rules_differ_from_the_committed_ones_in_their_times_alone():
    for name, text in committed_rules().items():
        assert text == (ROOT / "dashboards" / "prometheus" / name).read_text(encoding="utf-8")
        used, _ = shortened_rules(text, 60.0)
        assert used != text
        assert without_times(used) == without_times(text)


def test_every_alert_is_told_with_both_times():
    told = {}
    for text in committed_rules().values():
        used, holds = shortened_rules(text, 60.0)
        told |= {one.alert: one for one in holds}
        rules = [rule for group in yaml.safe_load(used)["groups"] for rule in group["rules"]]
        assert {rule["alert"]: rule["for"] for rule in rules if "alert" in rule} == {
            one.alert: one.used for one in holds
        }
        assert {group["interval"] for group in yaml.safe_load(used)["groups"]} == {"1s"}

    assert {name: one.committed for name, one in told.items()} == {
        alert.name: alert.hold for alert in ALERTS
    }
    assert told["CalidriftDriftAlarm"].used == "1s"
    assert told["CalidriftCoverageLow"].used == "10s"
    assert told["CalidriftRecalibrationFailed"].used == "0s"


@pytest.mark.parametrize(
    ("speed", "interval"), [(10.0, "6s"), (60.0, "1s"), (600.0, "500ms")], ids=str
)
def test_rules_are_never_looked_at_more_than_twice_a_second(speed, interval):
    used, _ = shortened_rules("groups:\n  - name: a\n    interval: 60s\n", speed)

    assert yaml.safe_load(used)["groups"][0]["interval"] == interval


def test_an_alert_may_be_given_time_but_never_more_than_it_has():
    text = "".join(f"      - alert: A{t}\n        for: {t}\n" for t in ("0s", "5s", "1m", "1h"))

    _, holds = shortened_rules(text, 60.0, 20.0)

    assert {one.committed: one.used for one in holds} == {
        "0s": "0s",
        "5s": "5s",
        "1m": "20s",
        "1h": "60s",
    }


def test_what_is_no_whole_second_is_said_in_milliseconds():
    assert shortened("1m", 600.0) == "100ms"
    assert shortened("4h", 60.0) == "240s"


def test_routes_are_those_of_the_compose_stack(files):
    written = json.loads(files.write_alertmanager("http://127.0.0.1:1").read_text(encoding="utf-8"))
    committed = yaml.safe_load((COMPOSE / "alertmanager" / "alertmanager.yml").read_text())

    route = committed["route"]
    for key in ("group_wait", "group_interval", "repeat_interval"):
        route[key] = shortened(route[key], 60.0)
    [hook] = committed["receivers"][1]["webhook_configs"]
    hook["url"] = hook["url"].replace("http://analyzer:9465", "http://127.0.0.1:1")
    hook["http_config"]["authorization"]["credentials_file"] = str(files.alertmanager / "token")
    assert written == committed


def test_targets_have_the_names_of_the_compose_stack(files):
    path = files.write_prometheus(
        {"a.yml": "groups: []\n"},
        service="http://127.0.0.1:1",
        analyzer="http://127.0.0.1:2",
        alertmanager="http://127.0.0.1:3",
    )
    written = json.loads(path.read_text(encoding="utf-8"))
    committed = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())

    names = [one["job_name"] for one in written["scrape_configs"]]
    assert names == [one["job_name"] for one in committed["scrape_configs"]]
    assert written["rule_files"] == [str(files.prometheus / "a.yml")]
    assert (files.prometheus / "a.yml").read_text() == "groups: []\n"


def test_the_servers_understand_their_files(files):
    amtool, promtool = (shutil.which(name) for name in ("amtool", "promtool"))
    if amtool is None or promtool is None:
        pytest.skip("amtool and promtool are not installed")
    rules = {name: shortened_rules(text, 60.0)[0] for name, text in committed_rules().items()}
    addresses = {
        name: f"http://127.0.0.1:{n}"
        for n, name in enumerate(("service", "analyzer", "alertmanager"), 1)
    }
    for words in (
        (promtool, "check", "config", files.write_prometheus(rules, **addresses)),
        (amtool, "check-config", files.write_alertmanager(addresses["analyzer"])),
    ):
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_secrets_are_for_this_user_alone_and_new_each_time(files):
    tokens = files.workdir.root / "tokens.toml"
    written = tomllib.loads(tokens.read_text(encoding="utf-8"))

    assert {name: one["scopes"] for name, one in written.items()} == {
        "demo": ["read"],
        "alertmanager": ["trigger"],
        "operator": ["promote"],
    }
    assert (files.alertmanager / "token").read_text() == written["alertmanager"]["secret"]
    assert (files.prometheus / "token").read_text() == written["demo"]["secret"]
    for path in (tokens, files.alertmanager / "token", files.prometheus / "token"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert Secrets.fresh() != Secrets.fresh()


def test_the_analyzer_repairs_by_itself_but_only_when_an_alert_asks(files):
    told = load_config(files.workdir.config, variables={}).service

    assert told.mode is Mode.AUTO
    assert told.own_alarms is False
    assert load_config(files.workdir.config, variables={}).model().coverage_target == 0.9
    assert told.port == 0
    assert told.tokens == files.workdir.root / "tokens.toml"


def test_the_folder_may_be_used_again(files):
    (files.logs / "analyzer.log").touch()

    again = StackFiles(Workdir.prepare(files.workdir.root, 1), Secrets.fresh(), 60.0)
    again.write_service()

    assert not (again.logs / "analyzer.log").exists()
