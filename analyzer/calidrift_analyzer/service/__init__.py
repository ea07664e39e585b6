"""The service: collector, store, scheduler, jobs and HTTP API in one process; see README.md."""

from calidrift_analyzer.service._application import create_application
from calidrift_analyzer.service._desk import (
    Desk,
    LocalDesk,
    RemoteDesk,
    open_desk,
)
from calidrift_analyzer.service._opening import open_store
from calidrift_analyzer.service._server import AnnouncedServer, serve
from calidrift_analyzer.service._service import Service

__all__ = [
    "AnnouncedServer",
    "Desk",
    "LocalDesk",
    "RemoteDesk",
    "Service",
    "create_application",
    "open_desk",
    "open_store",
    "serve",
]
