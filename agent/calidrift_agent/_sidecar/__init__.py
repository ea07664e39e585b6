"""The sidecar: reports state directories from a process of its own (no torch).

It serves `/metrics`, pushes figures over OTLP and windows to an analyzer, and sweeps files of dead
processes, so that rendering never holds the interpreter lock of a serving process.
"""

from calidrift_agent._sidecar._exposition import Exposition
from calidrift_agent._sidecar._folders import tell_missing
from calidrift_agent._sidecar._options import (
    DEFAULT_HOST,
    DEFAULT_INTERVAL_SECONDS,
    DEFAULT_PORT,
    DEFAULT_SPOOL_BYTES,
    ListenOptions,
    PushOptions,
    ShipOptions,
    SidecarOptions,
)
from calidrift_agent._sidecar._sidecar import Sidecar, serve

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_INTERVAL_SECONDS",
    "DEFAULT_PORT",
    "DEFAULT_SPOOL_BYTES",
    "Exposition",
    "ListenOptions",
    "PushOptions",
    "ShipOptions",
    "Sidecar",
    "SidecarOptions",
    "serve",
    "tell_missing",
]
