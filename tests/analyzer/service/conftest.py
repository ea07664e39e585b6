"""A whole service without its port: real store, worker and API, stages that take an instant."""

import time
from pathlib import Path
from types import MappingProxyType

import pytest
from starlette.testclient import TestClient

from calidrift_analyzer.config import AnalyzerConfig, ModelContract, RetentionConfig, ServiceConfig
from calidrift_analyzer.jobs import StageResult, StageWork
from calidrift_analyzer.records import JobState
from calidrift_analyzer.service import Service, create_application

DEADLINE = 30.0
SECRET = "0123456789abcdef0123456789abcdef"
WAY = {
    JobState.SELECTING: JobState.RECALIBRATING,
    JobState.RECALIBRATING: JobState.VALIDATING,
    JobState.VALIDATING: JobState.AWAITING_APPROVAL,
    JobState.AWAITING_APPROVAL: JobState.PROMOTED,
}


class Stages:
    """Go the straight way; where `hold` is set, wait in that state until it is cleared."""

    def __init__(self) -> None:
        self.hold: JobState | None = None

    def run(self, work: StageWork) -> StageResult:
        until = time.monotonic() + DEADLINE
        work.progress("at work", 1, 3)
        while self.hold is work.job.state and time.monotonic() < until:
            work.progress("at work", 2, 3)
            time.sleep(0.005)
        state = WAY[work.job.state]
        document = {"report": {"model": "net"}} if state is JobState.AWAITING_APPROVAL else {}
        return StageResult(state=state, sentence=f"then {state}", document=document)


class Site:
    """A service and somebody who asks it."""

    def __init__(self, root: Path, retention=None, **told) -> None:
        self.root = root
        settings = {
            "cool_down_seconds": 0.0,
            "daily_cap": 100,
            "ingest_seconds": 3_600.0,
            "assess_seconds": 3_600.0,
            **told,
        }
        self.config = AnalyzerConfig(
            database=root / "calidrift.duckdb",
            state_dirs=(root / "state",),
            models=MappingProxyType({name: contract(root, name) for name in ("net", "other")}),
            service=ServiceConfig(**settings),
            retention=retention or RetentionConfig(),
        )
        self.stages = Stages()
        self.service = Service(self.config, stages=self.stages)
        self.http = TestClient(
            create_application(self.service),
            base_url="http://127.0.0.1",
            raise_server_exceptions=False,
        )

    def run(self, work):
        return self.service.owner.run(work)

    def get(self, path: str, **more):
        return self.http.get(f"/api/v1{path}", **more)

    def post(self, path: str, body=None, **more):
        return self.http.post(f"/api/v1{path}", json={} if body is None else body, **more)

    def wait(self, state: str, job: int = 1) -> dict:
        """Wait until a job is in a state."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            found = self.get(f"/jobs/{job}").json()
            if found.get("job", {}).get("state") == state:
                return found
            time.sleep(0.01)
        raise AssertionError(f"job {job} never came to {state}: {found}")

    def record(self, traffic, *, drift=4.0, windows=6):
        """Let one process of `net` report calm traffic, then drifted."""
        rng = traffic.rng
        calm = {name: rng.uniform(-1, 1, (200, 16)) for name in ("a:input", "b:input")}
        profile = traffic.profile(calm)
        meta = traffic.meta(profile=profile.digest)
        bounds = [profile.points[name].observed_bound.value for name in calm]
        found = []
        start_ns = (time.time_ns() // 10**9 - windows - 60) * 10**9
        for number in range(windows):
            scale = drift if number >= windows // 2 else 0.9
            values = [rng.uniform(-scale, scale, (40, 16)) for _ in calm]
            found.append(traffic.unit_window(number, values, bounds, start_ns=start_ns))

        def work(store):
            store.put_profile(profile)
            store.ingest(meta, found, batch=store.next_batch())

        self.run(work)
        return meta, profile, found


def contract(root: Path, name: str) -> ModelContract:
    return ModelContract(
        name=name,
        root=root,
        factory="user:factory",
        example_inputs="user:example_inputs",
        calibration="user:calibration",
        evaluate="user:evaluate",
        registry=root / "registry",
    )


@pytest.fixture
def make_site(tmp_path):
    """Make a service; it is stopped at the end."""
    made = []

    def make(**told) -> Site:
        site = Site(tmp_path, **told)
        made.append(site)
        site.service.worker.start()
        return site

    yield make
    for site in made:
        site.http.close()
        site.service.stop()


@pytest.fixture
def site(make_site):
    return make_site()


@pytest.fixture
def tokens_file(tmp_path):
    """Write a tokens file that only its owner may read."""

    def write(text: str, mode: int = 0o600) -> Path:
        path = tmp_path / "tokens.toml"
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    return write
