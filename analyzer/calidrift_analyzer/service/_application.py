"""The HTTP application: routes, limits, and every error as a problem."""

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder

import calidrift_agent
from calidrift_analyzer.service._api_change import change_router
from calidrift_analyzer.service._api_hooks import hook_router
from calidrift_analyzer.service._api_ingest import ingest_router
from calidrift_analyzer.service._api_read import read_router, service_of
from calidrift_analyzer.service._api_remarks import remark_router
from calidrift_analyzer.service._gate import Credentials, gate_of
from calidrift_analyzer.service._limits import BodyLimit
from calidrift_analyzer.service._names import NamePaths
from calidrift_analyzer.service._problems import RETRY_SECONDS, install, problem
from calidrift_analyzer.service._service import Service
from calidrift_analyzer.service._tokens import Scope
from calidrift_analyzer.service.page import page_router

__all__ = ["create_application"]

_ops = APIRouter(include_in_schema=False)


def create_application(service: Service) -> FastAPI:
    """Make the application of a service.

    Args:
        service: The service; started and stopped by whoever made it.

    Returns:
        An ASGI application. `application.state.service` is the service.
    """
    application = FastAPI(
        title="Calidrift",
        version=calidrift_agent.__version__,
        summary="Watches the activation ranges of quantized models and repairs them.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # it would load scripts of another site
        redoc_url=None,
    )
    application.state.service = service
    application.state.gate = service.gate
    install(application)
    for router in (read_router, change_router, remark_router, hook_router, ingest_router):
        application.include_router(router)
    for router in (page_router, _ops):
        application.include_router(router)
    application.add_middleware(NamePaths)
    application.add_middleware(BodyLimit, most_bytes=service.config.service.max_body_bytes)
    return application


@_ops.get("/healthz")
async def healthz() -> PlainTextResponse:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


@_ops.get("/readyz")
async def readyz(request: Request) -> Response:
    """Say whether the database can be used."""
    if service_of(request).owner.available:
        return PlainTextResponse("ok\n")
    return problem(503, "the database is being opened again", {"Retry-After": str(RETRY_SECONDS)})


@_ops.get("/metrics")
async def metrics(request: Request, credentials: Credentials) -> Response:
    """Give the figures of the analyzer to Prometheus."""
    sent = None if credentials is None else credentials.credentials
    gate_of(request).admit(request, sent, Scope.READ)
    encoder, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(service_of(request).registry), media_type=content_type)
