"""Hooks of the service: after a job, after a rollback, after somebody else's move, told again."""

import dataclasses
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from calidrift_analyzer.config import DeployConfig
from calidrift_analyzer.deploy import _courier
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.promote import rollback
from calidrift_analyzer.records import DeployState
from calidrift_analyzer.service import Service, _service, create_application

DEADLINE = 30.0
JOBS = Path(__file__).parents[1] / "jobs" / "harness.py"
SPEC = importlib.util.spec_from_file_location("jobs_harness", JOBS)
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)
HOOK = """\
import json, os, sys
with open("notes.jsonl", "a") as file:
    file.write(json.dumps({k: v for k, v in os.environ.items() if k.startswith("CALIDRIFT_")}))
    file.write("\\n")
print("no room")
sys.exit(1 if os.path.exists("broken") else 0)
"""


class Site:
    def __init__(self, root):
        (root / "hook.py").write_text(HOOK, encoding="utf-8")
        self.root = root
        config = harness.configured(root)
        deploy = DeployConfig(command=(sys.executable, str(root / "hook.py")))
        contract = dataclasses.replace(config.models["net"], deploy=deploy)
        told = dataclasses.replace(
            config.service, cool_down_seconds=0.0, daily_cap=100, own_alarms=False
        )
        self.config = dataclasses.replace(config, models={"net": contract}, service=told)
        self.service = Service(self.config, stages=harness.Stages(root, "-"))
        application = create_application(self.service)
        self.http = TestClient(application, base_url="http://127.0.0.1")
        self.service.start()

    def close(self):
        self.http.close()
        self.service.stop()

    def get(self, path):
        return self.http.get(f"/api/v1{path}")

    def post(self, path, body=None):
        return self.http.post(f"/api/v1{path}", json=body or {})

    def promote(self):
        """Have a job promote, and wait until its hook has come to an end."""
        job = self.post("/jobs", {"model": "net"}).json()["job"]
        return self.wait(lambda: self.ended_hook(job))

    def ended_hook(self, job):
        told = self.get(f"/jobs/{job}").json().get("deployment")
        return told if told and DeployState(told["state"]).finished else None

    def wait(self, ask):
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            found = ask()
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError("it never came to that")

    def rows(self, states):
        """Wait until the moves stand so, the oldest first."""

        def ask():
            found = self.service.owner.run(lambda store: store.deployments.page())[::-1]
            return found if [row.state.value for row in found] == states else None

        return self.wait(ask)

    def notes(self):
        lines = (self.root / "notes.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def counted(self):
        self.service.tasks.refresh()
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        return {
            sample.labels["outcome"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "calidrift_analyzer_deploy_total"
        }


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.delenv("CALIDRIFT_TOKENS", raising=False)
    made = Site(tmp_path)
    yield made
    made.close()


def test_from_a_job_to_its_hook(site):
    told = site.promote()

    assert (told["action"], told["state"], told["attempts"]) == ("promote", "delivered", 1)
    assert told["output"] == "no room"
    [note] = site.notes()
    assert (note["CALIDRIFT_MODEL"], note["CALIDRIFT_VERSION"]) == ("net", told["version"])
    assert site.counted() == {"delivered": 1.0}
    row = site.service.schedule.run_now("deploy")
    assert row.succeeded
    assert f"net {told['version']} delivered" in row.sentence
    page = site.http.get("/jobs/1").text
    assert "Hook delivered" in page
    assert "ended with status 0" in page


def test_a_hook_that_fails_is_seen_everywhere_and_told_again_by_a_person(site):
    (site.root / "broken").touch()

    told = site.promote()

    assert told["state"] == "failed"
    assert "calidrift jobs deploy net" in told["sentence"]
    assert site.get("/jobs/1").json()["job"]["state"] == "promoted", "the promotion stands"
    assert site.get("/models/net").json()["version"] == told["version"]
    assert site.counted() == {"failed": 1.0}
    row = site.service.schedule.run_now("deploy")
    assert not row.succeeded
    assert "ended with status 1" in row.sentence
    [entry] = [one for one in site.get("/audit").json()["items"] if one["action"] == "deploy"]
    assert (entry["outcome"], entry["subject"]) == ("refused", told["version"])

    (site.root / "broken").unlink()
    answer = site.post("/models/net/deploy", {"note": "mended"})

    assert answer.status_code == 202
    assert answer.json()["sentence"] == f"the promote of {told['version']} is told again"
    site.rows(["failed", "delivered"])
    assert site.get("/jobs/1").json()["deployment"]["state"] == "delivered"
    assert site.service.schedule.run_now("deploy").succeeded


def test_a_rollback_by_the_api_reaches_it(site):
    first, second = site.promote(), site.promote()

    assert site.post("/models/net/rollback").status_code == 200

    row = site.rows(["delivered"] * 3)[-1]
    assert (row.action, row.version, row.previous) == (
        "rollback",
        first["version"],
        second["version"],
    )
    assert site.notes()[-1]["CALIDRIFT_ACTION"] == "rollback"


def test_a_move_by_a_command_beside_the_service_is_noticed(site):
    first = site.promote()
    site.promote()
    rollback(site.config.models["net"].registry, "net")
    pointer = site.config.models["net"].registry / "net"
    for path in pointer.iterdir():  # as if a minute had passed since
        if path.is_file():
            os.utime(path, (time.time() - 60, time.time() - 60))

    site.service.schedule.run_now("deploy")

    row = site.rows(["delivered"] * 3)[-1]
    assert (row.action, row.version) == ("rollback", first["version"])


def test_nothing_is_told_again_without_a_move(site):
    answer = site.post("/models/net/deploy")

    assert answer.status_code == 404
    assert "no move of net was kept yet" in answer.json()["detail"]


def test_a_hook_that_cannot_work_is_refused_at_the_start(tmp_path):
    config = harness.configured(tmp_path)
    contract = dataclasses.replace(
        config.models["net"], deploy=DeployConfig(command=("no-such-program-here",))
    )
    config = dataclasses.replace(config, models={"net": contract})

    with pytest.raises(ConfigurationError, match="'no-such-program-here' of"):
        Service(config)


def test_a_hook_that_will_not_end_ends_with_the_service(site, monkeypatch):
    monkeypatch.setattr(_service, "_HOOK_SECONDS", 0.0)
    monkeypatch.setattr(_courier, "_FORCED_SECONDS", DEADLINE)
    (site.root / "hook.py").write_text(STUBBORN, encoding="utf-8")
    site.post("/jobs", {"model": "net"})
    pid = int(site.wait(lambda: read(site.root / "hook.pid")))

    site.service.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


STUBBORN = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open("hook.new", "w") as file:
    file.write(str(os.getpid()))
os.rename("hook.new", "hook.pid")
time.sleep(600)
"""


def read(path):
    return path.read_text(encoding="utf-8") if path.exists() else ""
