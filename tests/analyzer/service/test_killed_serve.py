"""`calidrift serve` killed with a job in each state: the next one ends it, and promotes once.

Killed with SIGKILL is the whole process that people start, not only the worker in it. What it had
started ends with it.
"""

import json
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from calidrift_agent._registry import list_versions, number_of, open_version
from calidrift_analyzer.store import Store

HARNESS = Path(__file__).parent / "serve_harness.py"
DEADLINE = 120.0
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CONFIG = """
[service]
port = 0
ingest_seconds = 3600
assess_seconds = 3600
own_alarms = false

[models.net]
factory = "held_user:factory"
example_inputs = "held_user:example_inputs"
calibration = "held_user:calibration"
evaluate = "held_user:evaluate"
registry = "registry"
"""
USER = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, {tests!r})
from serve_harness import hold

HERE = Path(__file__).parent


def factory():
    return torch.nn.Sequential(torch.nn.Linear(8, 4)).eval()


def example_inputs():
    return (torch.zeros(4, 8),)


def calibration():
    hold(HERE, "recalibrating")
    yield torch.zeros(4, 8)


def evaluate(model, split):
    hold(HERE, "validating")
    raise RuntimeError("it never comes to that")
"""
ALERT = {
    "version": "4",
    "groupKey": "{}:{}",
    "status": "firing",
    "alerts": [
        {
            "labels": {
                "alertname": "CalidriftDriftAlarm",
                "model": "net",
                "action": "recalibrate",
            },
            "annotations": {"summary": "drifted"},
            "status": "firing",
            "startsAt": "2030-01-01T00:00:00Z",
            "fingerprint": "f1",
        }
    ],
}
IN_A_CHILD = ("recalibrating", "validating")
IN_PROMOTION = ("publish", "switch", "not yet recorded", "recorded")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def until(ready, what):
    end = time.monotonic() + DEADLINE
    while not (found := ready()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


class Life:
    """One process of the service, from its start to its kill."""

    def __init__(self, root, process, address):
        self.root, self.process, self.address = root, process, address

    def ask(self, path, body=None):
        request = urllib.request.Request(f"{self.address}/api/v1{path}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with OPENER.open(request, timeout=DEADLINE) as answer:
            return json.loads(answer.read())

    def state(self):
        return self.ask("/jobs/1")["job"]["state"]

    def come_to(self, place):
        """Wait until the job has come to a place, and give who waits there."""

        def there():
            assert self.process.poll() is None, self.process.stderr.read()
            job = self.ask("/jobs/1")["job"]
            assert job["state"] not in ("failed", "refused"), job["sentence"]
            return (self.root / "at-work").exists()

        until(there, f"the job never came to {place}")
        told = json.loads((self.root / "at-work").read_text())
        assert told["place"] == place
        return told["pid"]

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE)


def come_to(life, place):
    """Let the job come to a place, and give who waits there."""
    if place == "awaiting_approval":
        until(lambda: life.state() == place, "nothing waits for an approval")
        return life.process.pid
    if place == "-":
        until(lambda: life.state() == "promoted", "it was never promoted")
        return life.process.pid
    if place == "publish":
        life.ask("/jobs/1/approve", {"note": "looks good"})
    waiting = life.come_to(place)
    shown = {**dict.fromkeys(IN_PROMOTION, "awaiting_approval"), "recorded": "promoted"}
    assert life.state() == shown.get(place, place)
    return waiting


def wait_for_the_end_of(pid):
    until(lambda: not alive(pid), "the child lives on without its service")


@pytest.fixture
def live(tmp_path, answering, unmeasured):
    """Gives one life of the service after another, each with a place to wait at."""
    tmp_path.joinpath("calidrift.toml").write_text(CONFIG, encoding="utf-8")
    user = USER.format(tests=str(HARNESS.parent))
    tmp_path.joinpath("held_user.py").write_text(user, encoding="utf-8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    own = {name: value for name, value in unmeasured().items() if name[:9] != "CALIDRIFT"}
    environment = {**own, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    words = ("serve", "--json", "--config", str(tmp_path / "calidrift.toml"))

    def start(place):
        (tmp_path / "hold").write_text(place)
        (tmp_path / "at-work").unlink(missing_ok=True)
        return answering(
            [sys.executable, str(HARNESS), *words], limit=2 * DEADLINE, env=environment
        )

    return start


@pytest.fixture
def observed(tmp_path, traffic):
    """Windows of a process that served the model, in the database."""
    rows = traffic.rng.uniform(-1, 1, (200, 16))
    profile = traffic.profile({"a:input": rows})
    bound = profile.points["a:input"].observed_bound.value
    window = traffic.unit_window(0, [0.9 * rows], [bound], start_ns=time.time_ns() - 60 * 10**9)
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        store.put_profile(profile)
        meta = traffic.meta(profile=profile.digest, points=("a:input",))
        store.ingest(meta, [window], batch=store.next_batch())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("observed")
def test_a_service_killed_in_each_state_ends_the_job_and_promotes_once(live, tmp_path):
    answers = []
    for place in ("queued", "selecting", *IN_A_CHILD, "awaiting_approval", *IN_PROMOTION, "-"):
        with live(place) as (process, address):
            life = Life(tmp_path, process, address)
            # Alertmanager tells it again each time: nobody told it that it had been heard.
            [told] = life.ask("/webhooks/alertmanager", ALERT)["alerts"]
            assert told["job"] == 1, told
            answers.append((told["job"], told["new"]))
            waiting = come_to(life, place)
            life.kill()
        if place in IN_A_CHILD:
            assert waiting != process.pid
            wait_for_the_end_of(waiting)
            assert not list((tmp_path / "scratch").glob("calidrift-*")), "it left its files"

    assert answers == [(1, True), *[(1, False)] * 9]
    with Store.open(tmp_path / "calidrift.duckdb") as store:
        [job] = store.jobs.page()
        [move] = store.outcomes.versions("net")
        steps = [(step.state.value, step.event.value) for step in store.jobs.steps(1)]
        audit = [row.action for row in store.jobs.audit()]
    assert job.state.value == "promoted"
    assert [state for state, event in steps if event == "entered"] == [
        *("queued", "selecting", *IN_A_CHILD, "awaiting_approval", "promoted")
    ]
    assert [state for state, event in steps if event == "resumed"] == ["selecting", *IN_A_CHILD]
    assert audit.count("approve") == audit.count("promoted") == audit.count("recalibration") == 1
    assert move.action == "promoted"
    [version] = list_versions(tmp_path / "registry", "net")
    assert version.current
    assert number_of(version.id) == 1, "it was written once"
    assert version.problem is None
    assert open_version(tmp_path / "registry", "net").id == move.version
    assert not any((tmp_path / "registry" / "net" / "jobs").iterdir()), "nothing is left behind"
