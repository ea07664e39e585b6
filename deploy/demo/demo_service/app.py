"""The service: a text encoder and an image model behind FastAPI, both watched.

`app` attaches the watches when a worker starts (`uvicorn --workers 4 demo_service.app:app`).
`demo_service.preloaded:app` attaches them where the module is imported: in the master of
pre-forked workers (`gunicorn -c gunicorn.conf.py`).
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import prometheus_client
import torch
from anyio import to_thread
from fastapi import FastAPI, Header, Response
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel, Field

import calidrift_agent as calidrift
from demo_service.models import (
    SIDE,
    TOKENS,
    build_image_model,
    build_text_encoder,
    image_profile,
    text_profile,
    tokens_of,
)

SAMPLE_RATE = "DEMO_SAMPLE_RATE"
"""Environment variable: largest share of requests that is observed, 0.01 where not set."""
RETENTION = "DEMO_RETENTION_SECONDS"
"""Environment variable: how long state files of dead workers stay, an hour where not set."""


REQUEST_THREADS = 2
"""Requests that one worker computes at a time; more only wait for each other on few cores."""


class Text(BaseModel):
    """Body of `/encode`."""

    text: str = Field(max_length=10 * TOKENS)


class Image(BaseModel):
    """Body of `/classify`: 8 rows of 8 grey values."""

    pixels: list[list[float]] = Field(min_length=SIDE, max_length=SIDE)


class Models:
    """Both models, and their watches once they are attached."""

    def __init__(self) -> None:
        torch.set_num_threads(1)  # many workers, few cores
        self.encoder = build_text_encoder()
        self.classifier = build_image_model()
        self.watches: list[calidrift.Watch] = []

    def attach(self) -> None:
        """Watch both models; where the files go says `CALIDRIFT_STATE_DIR`."""
        rate = float(os.environ.get(SAMPLE_RATE, "0.01"))
        retention = float(os.environ.get(RETENTION, "3600"))
        options = calidrift.WatchOptions(retention_seconds=retention)
        for name, model, calibrated in (
            ("text", self.encoder, text_profile),
            ("image", self.classifier, image_profile),
        ):
            watch = calidrift.watch(
                model, name=name, profile=calibrated(model), sample_rate=rate, options=options
            )
            self.watches.append(watch)

    def detach(self) -> None:
        """Write what was counted and let go of the models; what a worker does at its end."""
        for watch in self.watches:
            watch.close()

    @torch.inference_mode()
    def encode(self, text: str) -> list[float]:
        """Embedding of one text."""
        embedding: list[float] = self.encoder(tokens_of(text))[0].tolist()
        return embedding

    @torch.inference_mode()
    def classify(self, pixels: list[list[float]]) -> list[float]:
        """Class probabilities of one image."""
        image = torch.tensor(pixels).reshape(1, 1, SIDE, SIDE)
        probabilities: list[float] = self.classifier(image)[0].softmax(0).tolist()
        return probabilities


def registry(watches: list[calidrift.Watch]) -> CollectorRegistry:
    """What `/metrics` shows: all workers where they share a state directory, else this one."""
    found = CollectorRegistry(auto_describe=True)
    folder = os.environ.get("CALIDRIFT_STATE_DIR")
    if folder:
        found.register(calidrift.StateDirectoryCollector(folder))
    elif watches:
        first, *others = (watch.collector() for watch in watches)
        found.register(first.joined_with(*others))
    return found


def create_app(models: Models, *, attach: Callable[[], None] | None) -> FastAPI:
    """The application.

    Args:
        models: Both models.
        attach: Called when a worker starts; None where the models are watched already.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = REQUEST_THREADS
        if attach is not None:
            attach()
        app.state.models, app.state.registry = models, registry(models.watches)
        yield
        # uvicorn ends a worker with the signal that it was sent, past `atexit`.
        models.detach()

    app = FastAPI(title="Calidrift demo", lifespan=lifespan)

    @app.middleware("http")
    async def name_worker(request, call_next):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        response = await call_next(request)
        response.headers["X-Worker"] = str(os.getpid())
        return response

    @app.post("/encode")
    def encode(
        body: Text, x_segment: Annotated[str | None, Header()] = None
    ) -> dict[str, list[float]]:
        with calidrift.request_context(segment=x_segment):
            return {"embedding": models.encode(body.text)}

    @app.post("/classify")
    def classify(
        body: Image, x_segment: Annotated[str | None, Header()] = None
    ) -> dict[str, list[float]]:
        with calidrift.request_context(segment=x_segment):
            return {"probabilities": models.classify(body.pixels)}

    @app.get("/healthz")
    def healthz() -> dict[str, object]:
        """Health of the service. Whether the agent observes is said, but decides nothing."""
        watched = {watch.report().model: watch.report().active for watch in models.watches}
        return {"status": "ok", "worker": os.getpid(), "watched": watched}

    @app.get("/metrics")
    def metrics() -> Response:
        text = generate_latest(app.state.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    return app


_models = Models()
app = create_app(_models, attach=_models.attach)
