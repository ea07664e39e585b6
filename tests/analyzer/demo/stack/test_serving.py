"""The serving process of the demo: what it answers, and how versions change between requests."""

import threading
import time

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from calidrift_agent import Version, calibrate
from calidrift_analyzer.demo._service import Deployed
from calidrift_analyzer.demo._workdir import Workdir
from calidrift_analyzer.demo.stack._serving import BASELINE, DigitsService, create_app
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.records import KernelReport

PICTURES = np.zeros((3, 8, 8), np.float32)


class Told(torch.nn.Module):
    """A network that says the same digit, whatever it sees."""

    def __init__(self, digit):
        super().__init__()
        self.digit = digit
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, pictures):
        scores = self.layer(pictures.flatten(1)) * 0
        scores[:, self.digit] = 1.0
        return scores


@pytest.fixture
def workdir(tmp_path):
    return Workdir.prepare(tmp_path / "run", 0)


class AnyRows(torch.nn.Module):
    """Calls the network, once a test lets it."""

    def __init__(self, network):
        super().__init__()
        self._network = (network,)
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def forward(self, pictures):
        self.entered.set()
        assert self.go_on.wait(60)
        return self._network[0](pictures)


@pytest.fixture
def service(workdir, monkeypatch):
    """A service whose versions are loaded in an instant: version `N` says the digit N."""

    def load_from(self, folder):
        network = Told(int(folder.name) if folder.name.isdigit() else 0).eval()
        profile = calibrate(network, [torch.rand(8, 1, 8, 8)])
        report = KernelReport((), in_code=0)
        return Deployed(network, network, AnyRows(network), profile, report)

    monkeypatch.setattr(DigitsService, "_load_from", load_from)
    found = DigitsService(workdir, 0, 0.5)
    yield found
    found.close()


def version(workdir, number):
    return Version(model="digits", id=str(number), path=workdir.root / str(number), manifest={})


def send(client, pictures, **headers):
    return client.post("/classify", content=pictures.tobytes(), headers=headers)


def test_it_reads_digits_and_says_which_version_did(service):
    with TestClient(create_app(service)) as client:
        answer = send(client, PICTURES, **{"X-Segment": "noisy"})
        health = client.get("/healthz").json()

    assert answer.json() == {"version": BASELINE, "digits": [0, 0, 0]}
    assert health == {"status": "ok", "version": BASELINE, "follows": True, "problem": None}


@pytest.mark.parametrize(
    "body", [b"", b"1234", bytes(33 * 256)], ids=["nothing", "no picture", "too many"]
)
def test_what_is_no_picture_is_refused(body, service):
    with TestClient(create_app(service)) as client:
        answer = client.post("/classify", content=body)

    assert answer.status_code == 422
    assert f"{len(body)} bytes are no pictures; send 1 to 32" in answer.json()["detail"]


def test_metrics_are_those_of_watch_and_follower(service):
    wanted = "calidrift_observed_requests_total", "calidrift_agent_version_info"
    with TestClient(create_app(service)) as client:
        service.follower.close()
        service.follower._serving = "1"  # as if it had swapped
        deadline = time.monotonic() + 60
        while any(name not in (text := client.get("/metrics").text) for name in wanted):
            assert time.monotonic() < deadline, text
            send(client, PICTURES)


def test_a_request_that_is_under_way_ends_as_it_began(service, workdir):
    old = service._serving.deployed.any_rows
    old.go_on.clear()
    answers = []
    pictures = torch.zeros(2, 1, 8, 8)
    asking = threading.Thread(target=lambda: answers.append(service.classify(pictures, None)))
    asking.start()
    assert old.entered.wait(60)

    service._swap(version(workdir, 7), service._load_from(workdir.root / "7"))
    assert service.classify(pictures, None) == ("7", [7, 7])
    old.go_on.set()
    asking.join(60)

    assert answers == [(BASELINE, [0, 0])]
    assert service.version == "7"


def test_a_machine_that_switches_the_agent_off_is_told_so(workdir, service, monkeypatch):
    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")

    with pytest.raises(ConfigurationError, match="the demo shows what the agent sees, but here"):
        DigitsService(workdir, 0, 1.0)
