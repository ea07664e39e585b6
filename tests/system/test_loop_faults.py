"""What goes wrong between Alertmanager and the analyzer: the real one, over real sockets."""

import http.client
import json
import socket
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from calidrift_analyzer.config import AnalyzerConfig, Mode, ModelContract, ServiceConfig
from calidrift_analyzer.demo._workdir import Workdir
from calidrift_analyzer.demo.stack._files import Secrets, StackFiles
from calidrift_analyzer.demo.stack._programs import ALERTMANAGER, Programs, program
from calidrift_analyzer.jobs import StageResult
from calidrift_analyzer.records import JobState
from calidrift_analyzer.service import Service, create_application

DEADLINE = 60.0
LISTENING = r'msg="Listening on" (?:component=\S+ )?address=(\S+)'
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
WAY = {
    JobState.SELECTING: JobState.RECALIBRATING,
    JobState.RECALIBRATING: JobState.VALIDATING,
    JobState.VALIDATING: JobState.AWAITING_APPROVAL,
}
TOKENS = """
[alertmanager]
secret = "{secret}"
scopes = ["trigger"]
expires = {expires}
"""
ALERT = {
    "labels": {"alertname": "CalidriftDriftAlarm", "model": "digits", "action": "recalibrate"},
    "annotations": {"summary": "drifted"},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Stages:
    """Goes the straight way in an instant, but waits in the state `hold`."""

    def __init__(self):
        self.hold = None

    def run(self, work):
        while self.hold is work.job.state:
            work.progress("at work", 1, 2)
            time.sleep(0.01)
        state = WAY[work.job.state]
        document = {"report": {"model": "digits"}} if state is JobState.AWAITING_APPROVAL else {}
        return StageResult(state=state, sentence=f"then {state}", document=document)


class Site:
    """An analyzer on a port of its own."""

    def __init__(self, files, expires):
        root = files.workdir.root
        tokens = root / "tokens.toml"
        expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        secret = files.secrets.trigger
        tokens.write_text(TOKENS.format(secret=secret, expires=expires), encoding="utf-8")
        contract = ModelContract(
            name="digits",
            root=root,
            factory="user:factory",
            example_inputs="user:example_inputs",
            calibration="user:calibration",
            evaluate="user:evaluate",
            registry=root / "registry",
        )
        service = ServiceConfig(
            mode=Mode.PROPOSE, tokens=tokens, ingest_seconds=3_600.0, assess_seconds=3_600.0
        )
        config = AnalyzerConfig(
            database=root / "calidrift.duckdb",
            state_dirs=(),
            models=MappingProxyType({"digits": contract}),
            service=service,
        )
        self.stages = Stages()
        self.service = Service(config, stages=self.stages)
        self.secret = secret
        self.address = ""

    @contextmanager
    def listening(self):
        self.service.start()
        options = uvicorn.Config(
            create_application(self.service), log_config=None, access_log=False, lifespan="off"
        )
        server = uvicorn.Server(options)
        with socket.create_server(("127.0.0.1", 0)) as port:
            self.address = f"http://127.0.0.1:{port.getsockname()[1]}"
            thread = threading.Thread(target=server.run, kwargs={"sockets": [port]}, daemon=True)
            thread.start()
            try:
                until(lambda: server.started)
                yield self
            finally:
                server.should_exit = True
                thread.join(DEADLINE)
                self.service.stop()

    def jobs(self):
        return self.service.owner.run(lambda store: store.jobs.page())

    def triggers(self):
        """Status and job of every alert that came."""
        sql = "SELECT status, job FROM triggers"
        return self.service.owner.run(lambda store: store._connection.rows(sql))

    def post(self, body, headers=()):
        """Send an alert as Alertmanager does; gives status and answer."""
        host = self.address.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=DEADLINE)
        try:
            connection.request(
                "POST",
                "/api/v1/webhooks/alertmanager",
                body,
                {
                    "Authorization": f"Bearer {self.secret}",
                    "Content-Type": "application/json",
                    **dict(headers),
                },
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def until(ready):
    deadline = time.monotonic() + DEADLINE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Alertmanager:
    """The real one."""

    def __init__(self, address):
        self.address = address

    def alert(self, began, ended=None):
        """Say what Prometheus says: this alert fires, or is over."""
        moments = {"startsAt": began.isoformat()}
        moments["endsAt"] = (ended or began + timedelta(hours=1)).isoformat()
        request = urllib.request.Request(
            f"{self.address}/api/v2/alerts",
            json.dumps([{**ALERT, **moments}]).encode(),
            {"Content-Type": "application/json"},
        )
        with OPENER.open(request, timeout=DEADLINE) as answer:
            assert answer.status == 200

    def figure(self, name):
        with OPENER.open(f"{self.address}/metrics", timeout=DEADLINE) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels.get("integration") == "webhook"
        )


@pytest.fixture
def files(tmp_path):
    found = StackFiles(Workdir.prepare(tmp_path / "run", 0), Secrets.fresh(), 600.0)
    found.write_service()
    return found


@contextmanager
def alertmanager(files, site):
    with Programs(files.logs, 200.0) as programs:
        programs.start(
            ALERTMANAGER,
            program(ALERTMANAGER),
            f"--config.file={files.write_alertmanager(site.address)}",
            f"--storage.path={files.alertmanager}",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        )
        yield Alertmanager(programs.address(ALERTMANAGER, LISTENING, DEADLINE))


@pytest.fixture
def site(files):
    later = datetime.now(UTC) + timedelta(hours=1)
    with Site(files, later).listening() as found:
        yield found


def test_alertmanager_tries_again_until_the_database_is_back_and_one_job_comes_of_it(
    files, site, needed
):
    """Then it tells the same again, and the end while the job runs."""
    needed(ALERTMANAGER, "prometheus-alertmanager")
    site.stages.hold = JobState.VALIDATING
    began = datetime.now(UTC)
    with alertmanager(files, site) as real:
        site.service.owner._available = False
        real.alert(began)
        until(lambda: real.figure("alertmanager_notification_requests_failed_total") >= 2)
        assert real.figure("alertmanager_notifications_failed_total") == 0, "it still tries"
        site.service.owner._available = True
        until(site.jobs)
        until(lambda: site.jobs()[0].state is JobState.VALIDATING)
        assert site.triggers() == [("firing", 1)]

        real.alert(began, ended=datetime.now(UTC))
        until(lambda: site.triggers() == [("resolved", 1)])

        assert site.jobs()[0].state is JobState.VALIDATING, "what runs goes on"
        site.stages.hold = None
        until(lambda: site.jobs()[0].state is JobState.AWAITING_APPROVAL)
        assert len(site.jobs()) == 1


def test_alertmanager_does_not_insist_where_its_token_has_expired(files, needed):
    needed(ALERTMANAGER, "prometheus-alertmanager")
    soon = datetime.now(UTC) - timedelta(seconds=1)
    with Site(files, soon).listening() as site, alertmanager(files, site) as real:
        real.alert(datetime.now(UTC))
        until(lambda: real.figure("alertmanager_notifications_failed_total") >= 1)

        assert real.figure("alertmanager_notification_requests_total") == 1
        assert not site.jobs()
        assert site.post(b"{}")[0] == 401


def group(status="firing", began="2030-01-01T00:00:00Z", **more):
    alert = {**ALERT, "status": status, "startsAt": began, "fingerprint": "f1"}
    return json.dumps(
        {"version": "4", "groupKey": "{}:{}", "status": status, "alerts": [alert], **more}
    ).encode()


def chunks(count):
    """A body of `count` MiB that nobody announced."""
    return (b" " * 2**20 for _ in range(count))


def test_bodies_that_are_too_large_or_no_alerts_harm_nothing(site):
    large = b" " * (10 * 2**20)
    for body in (large, chunks(10)):
        try:
            status, answer = site.post(body)
        except (BrokenPipeError, ConnectionResetError):
            continue  # it did not wait for the rest, and the socket was closed meanwhile
        assert status == 413, answer
    for body in (
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"version": "4", "alerts": 7}',
        b'{"version": "4", "alerts": [' + b"[" * 50_000,
        group(version="9"),
        group(status="broken"),
        group(began="the day before"),
    ):
        status, answer = site.post(body)
        assert status in (400, 422), (body[:80], answer)
    host, port = site.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as cut:
        cut.sendall(
            b"POST /api/v1/webhooks/alertmanager HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Authorization: Bearer " + site.secret.encode() + b"\r\n"
            b"Content-Type: application/json\r\nContent-Length: 900\r\n\r\n" + group()[:90]
        )
    assert not site.jobs()

    status, answer = site.post(group())

    assert status == 202, answer
    assert len(site.jobs()) == 1


def test_duplicates_and_an_end_that_comes_first_lead_to_one_job(site):
    late, early = "2030-01-02T00:00:00Z", "2030-01-01T00:00:00Z"
    order = [("resolved", early), ("firing", early), ("firing", late), ("firing", late)]
    answers = [json.loads(site.post(group(*one))[1])["alerts"][0] for one in order]

    assert [one["new"] for one in answers] == [False, False, True, False]
    assert [one["job"] for one in answers] == [None, None, 1, 1]
    assert len(site.jobs()) == 1
