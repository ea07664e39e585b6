"""Calidrift agent: watches activation ranges inside a serving process.

Importing this package opens no file, socket or thread and imports no torch: what needs torch
(`watch`, `calibrate`) is loaded at first use, so that a sidecar can read state files without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calidrift_agent._calibrate import CalibrateOptions, calibrate
    from calidrift_agent._capture import CaptureOptions
    from calidrift_agent._export import StateDirectoryCollector
    from calidrift_agent._follow import Follower, FollowOptions, FollowStatus, follow
    from calidrift_agent._observe import request_context
    from calidrift_agent._profile import CalibrationProfile, PointProfile
    from calidrift_agent._registry import Version, open_version
    from calidrift_agent._sketch import MagnitudeSketch
    from calidrift_agent._state import StateReader
    from calidrift_agent._watch import AttachReport, Watch, WatchOptions, watch

__version__ = "0.1.0"

__all__ = [
    "AttachReport",
    "CalibrateOptions",
    "CalibrationProfile",
    "CaptureOptions",
    "FollowOptions",
    "FollowStatus",
    "Follower",
    "MagnitudeSketch",
    "PointProfile",
    "StateDirectoryCollector",
    "StateReader",
    "Version",
    "Watch",
    "WatchOptions",
    "calibrate",
    "follow",
    "open_version",
    "request_context",
    "watch",
]

_HOMES = {
    "AttachReport": "_watch",
    "CalibrateOptions": "_calibrate",
    "CalibrationProfile": "_profile",
    "CaptureOptions": "_capture",
    "FollowOptions": "_follow",
    "FollowStatus": "_follow",
    "Follower": "_follow",
    "MagnitudeSketch": "_sketch",
    "PointProfile": "_profile",
    "StateDirectoryCollector": "_export",
    "StateReader": "_state",
    "Version": "_registry",
    "Watch": "_watch",
    "WatchOptions": "_watch",
    "calibrate": "_calibrate",
    "follow": "_follow",
    "open_version": "_registry",
    "request_context": "_observe",
    "watch": "_watch",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'calidrift_agent' has no attribute {name!r}")
    value = getattr(import_module(f"calidrift_agent.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
