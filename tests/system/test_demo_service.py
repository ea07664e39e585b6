"""The demo service in one process: its answers, its health and its metrics."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from calidrift_agent._state import StateDirectory

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "demo"
IMAGE = [[0.5] * 8] * 8


@pytest.fixture
def service(monkeypatch, tmp_path):
    """The modules of the demo, loaded anew."""
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setenv("CALIDRIFT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("DEMO_SAMPLE_RATE", "1.0")
    before, threads = set(sys.modules), torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if name.startswith("demo_service"):
            del sys.modules[name]


@pytest.fixture
def client(service):
    from fastapi.testclient import TestClient

    with TestClient(service("demo_service.app").app) as client:
        yield client


def test_answers_are_those_of_the_models_unwatched(service, client):
    models = service("demo_service.models")
    with torch.inference_mode():
        embedding = models.build_text_encoder()(models.tokens_of("hello"))[0]
        scores = models.build_image_model()(torch.full((1, 1, 8, 8), 0.5))[0].softmax(0)

    for _ in range(3):
        answer = client.post("/encode", json={"text": "hello"}, headers={"X-Segment": "night"})
        assert answer.json()["embedding"] == embedding.tolist()
        answer = client.post("/classify", json={"pixels": IMAGE})
        assert answer.json()["probabilities"] == scores.tolist()
        assert int(answer.headers["X-Worker"]) > 0

    assert client.post("/classify", json={"pixels": []}).status_code == 422


def test_health_and_metrics(client, tmp_path):
    client.post("/encode", json={"text": "hello"}, headers={"X-Segment": "night"})
    health = client.get("/healthz").json()
    assert health["status"] == "ok"
    assert health["watched"] == {"text": True, "image": True}

    (tmp_path / "DISABLED").touch()  # the service is as healthy with the agent switched off
    for watch in client.app.state.models.watches:
        watch._active.engine.tick()
    health = client.get("/healthz").json()
    assert (health["status"], health["watched"]) == ("ok", {"text": False, "image": False})

    text = client.get("/metrics").text
    assert 'calidrift_agent_seen_requests_total{model="text"} 1.0' in text
    assert 'calidrift_agent_state{model="text",state="killed"} 1.0' in text
    assert 'calidrift_activation_absmax{model="text",point="embed:output"}' in text


def test_a_worker_writes_what_it_counted_when_it_ends(service, tmp_path):
    from fastapi.testclient import TestClient

    with TestClient(service("demo_service.app").app) as client:
        client.post("/encode", json={"text": "x"}, headers={"X-Segment": "night"})
    models = {one.meta.model: one for one in StateDirectory(tmp_path).read()}
    assert [models[name].alive for name in ("image", "text")] == [0, 0]
    assert models["text"].total.requests[0] == 1
    assert {one.name: one.units for one in models["text"].total.segments} == {"night": 1}


def test_without_a_state_directory_a_worker_reports_itself(service, monkeypatch):
    from fastapi.testclient import TestClient

    monkeypatch.delenv("CALIDRIFT_STATE_DIR")
    with TestClient(service("demo_service.preloaded").app) as client:
        client.post("/encode", json={"text": "x"})
        text = client.get("/metrics").text
    assert 'calidrift_agent_seen_requests_total{model="text"} 1.0' in text
    assert 'calidrift_agent_seen_requests_total{model="image"} 0.0' in text
