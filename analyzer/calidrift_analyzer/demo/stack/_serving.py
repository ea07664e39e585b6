"""The demo's serving process: INT8 digits under `watch`, following the registry of its analyzer.

`python -m calidrift_analyzer.demo.stack._serving FOLDER` serves what the registry in FOLDER names,
on a free port of this machine, until SIGTERM. Versions that are promoted, or rolled back to, are
loaded beside the requests and put into service between two of them: a request holds on to what
served when it began.
"""

import argparse
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, final

import torch
import uvicorn
from anyio import to_thread
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from torch import Tensor

from calidrift_agent import (
    CalibrationProfile,
    CaptureOptions,
    Follower,
    FollowOptions,
    StateDirectoryCollector,
    Version,
    Watch,
    WatchOptions,
    follow,
    open_version,
    request_context,
    watch,
)
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.backend import load_graph
from calidrift_analyzer.demo._contract import REQUEST_ROWS, DigitsContract
from calidrift_analyzer.demo._network import SIDE
from calidrift_analyzer.demo._service import Deployed, deploy
from calidrift_analyzer.demo._workdir import MODEL, Workdir
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.service import AnnouncedServer

__all__ = ["BASELINE", "DigitsService", "create_app", "main"]

BASELINE: Final = "baseline"
"""Name of what serves where nothing is in the registry, and of its folder."""

_PICTURE_BYTES: Final = SIDE * SIDE * 4
_MOST_BYTES: Final = REQUEST_ROWS * _PICTURE_BYTES
_REQUEST_THREADS: Final = 2
_WINDOW_SECONDS: Final = 2.0
_DRAIN_SECONDS: Final = 0.25
_POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 5.0
_KEEP_ALIVE_SECONDS: Final = 120
_GRACE_SECONDS: Final = 20
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Serving:
    """One version in service, with its watch."""

    version: str
    deployed: Deployed
    watch: Watch


@final
class DigitsService:
    """Reads digits with whatever version serves.

    Args:
        workdir: Folder of the demo.
        seed: The demo's seed.
        sample_rate: Share of the requests that is observed.
    """

    def __init__(self, workdir: Workdir, seed: int, sample_rate: float) -> None:
        self._workdir = workdir
        self._seed = seed
        self._sample_rate = sample_rate
        self._inputs = DigitsContract(seed).example_inputs()
        self._first = _promoted(workdir)
        name, folder = BASELINE, workdir.root / BASELINE
        if self._first is not None:
            name, folder = self._first.id, self._first.path
        self._serving = self._watched(name, self._load_from(folder))
        self._follower: Follower | None = None

    @property
    def state_dir(self) -> Path:
        """Where the agent writes."""
        return self._workdir.state

    @property
    def version(self) -> str:
        """The version that serves."""
        return self._serving.version

    @property
    def follower(self) -> Follower:
        """What brings promoted versions; first called in the process that serves."""
        if self._follower is None:
            self._follower = follow(
                self._workdir.registry,
                MODEL,
                load=self._load,
                run=self._run,
                swap=self._swap,
                serving=self._first,
                options=FollowOptions(poll_seconds=_POLL_SECONDS, retry_seconds=_RETRY_SECONDS),
            )
        return self._follower

    def classify(self, pictures: Tensor, segment: str | None) -> tuple[str, list[int]]:
        """Read digits.

        Args:
            pictures: (rows, 1, 8, 8) float32, rows up to `REQUEST_ROWS`.
            segment: What the requests are counted under.

        Returns:
            The version that answered, and one digit per row.
        """
        serving = self._serving  # one version answers a whole request
        with request_context(segment=segment):
            scores: Tensor = serving.deployed.any_rows(pictures)
        return serving.version, scores.argmax(dim=1).tolist()

    def close(self) -> None:
        """Stop following, write what was counted, let go of the model."""
        if self._follower is not None:
            self._follower.close()
        self._serving.watch.close()

    def _load(self, version: Version) -> Deployed:
        return self._load_from(version.path)

    def _load_from(self, folder: Path) -> Deployed:
        """Compile what is in a folder, and count its kernels."""
        profile = CalibrationProfile.load(folder / "profile.json")
        return deploy(load_graph(folder / "model.pt2"), profile, self._inputs)

    def _run(self, deployed: Deployed) -> None:
        deployed.module(*self._inputs)

    def _swap(self, version: Version, deployed: Deployed) -> None:
        before, self._serving = self._serving, self._watched(version.id, deployed)
        before.watch.close()  # a request that is under way ends as it began

    def _watched(self, version: str, deployed: Deployed) -> _Serving:
        """Put a version under watch; without a budget, as a day of traffic takes a minute here."""
        watching = watch(
            deployed.module,
            name=MODEL,
            profile=deployed.profile,
            state_dir=self._workdir.state,
            sample_rate=self._sample_rate,
            capture=CaptureOptions(seed=self._seed),
            options=WatchOptions(
                budget=None,
                window_seconds=_WINDOW_SECONDS,
                drain_seconds=_DRAIN_SECONDS,
                seed=self._seed,
            ),
        )
        report = watching.report()
        if not report.active:
            raise ConfigurationError(
                f"the demo shows what the agent sees, but here it is {'; '.join(report.notes)}"
            )
        return _Serving(version, deployed, watching)


def _promoted(workdir: Workdir) -> Version | None:
    """What the registry names; None where nothing was put there yet."""
    try:
        return open_version(workdir.registry, MODEL)
    except RegistryError:
        return None


def create_app(service: DigitsService) -> FastAPI:
    """Make the application of a service.

    Args:
        service: Begins to follow when the application starts, and is closed when it ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _REQUEST_THREADS
        registry = CollectorRegistry(auto_describe=True)
        # All versions of this process in one: counters go on when versions are swapped.
        registry.register(StateDirectoryCollector(service.state_dir))
        registry.register(service.follower.collector())
        app.state.registry = registry
        yield
        service.close()

    app = FastAPI(title="Calidrift demo: digits", lifespan=lifespan)

    @app.post("/classify")
    async def classify(
        request: Request, x_segment: Annotated[str | None, Header()] = None
    ) -> Response:
        body = await request.body()
        if not body or len(body) % _PICTURE_BYTES or len(body) > _MOST_BYTES:
            told = (
                f"{len(body)} bytes are no pictures; send 1 to {REQUEST_ROWS} of {SIDE} x {SIDE} "
                "float32, little-endian"
            )
            return JSONResponse({"detail": told}, status_code=422)
        pictures = torch.frombuffer(bytearray(body), dtype=torch.float32).reshape(-1, 1, SIDE, SIDE)
        version, digits = await to_thread.run_sync(service.classify, pictures, x_segment)
        return JSONResponse({"version": version, "digits": digits})

    @app.get("/healthz")
    def healthz() -> dict[str, object]:
        """Health of the service, what serves, and what it follows."""
        status = service.follower.status
        return {
            "status": "ok",
            "version": service.version,
            "follows": status.active,
            "problem": status.problem,
        }

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(app.state.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM.

    Args:
        arguments: The folder, and `--seed`, `--sample-rate`.
    """
    parser = argparse.ArgumentParser(prog="calidrift-demo-service", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample-rate", type=float, default=0.01)
    told = parser.parse_args(arguments)
    torch.set_num_threads(1)
    service = DigitsService(Workdir(told.folder.absolute()), told.seed, told.sample_rate)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def ready() -> None:
            sys.stdout.write(f"serving {MODEL} at http://127.0.0.1:{port}\n")
            sys.stdout.flush()

        options = uvicorn.Config(
            create_app(service),
            log_level="warning",
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        AnnouncedServer(options, ready).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1:])
