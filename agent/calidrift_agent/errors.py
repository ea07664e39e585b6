"""Errors of the agent, each one also a built-in so that existing handlers work.

    CalidriftError
    ├── ConfigurationError (ValueError)        an argument, file or variable that cannot be used
    ├── ProfileError (ValueError)              a calibration profile that cannot be used
    │   ├── ProfileFormatError                 damaged, foreign or newer file
    │   └── ProfileMismatchError               profile of another model, or another instrument
    ├── SketchError (ValueError)               sketches that cannot be combined or read
    ├── StateError (OSError)                   a state file that cannot be used
    │   ├── StateFormatError                   damaged, foreign or newer file
    │   └── StateSpaceError                    no room to create one
    ├── CaptureError (ValueError)              a capture file that cannot be used
    ├── RegistryError (OSError)                a damaged or unfinished model version
    │   └── RegistryUnreachableError           the store of a registry does not answer
    ├── StrictModeError (RuntimeError)         a failure of the agent, in staging only
    └── AttachError (TypeError)                a model that cannot be watched

Messages say what was given, what is allowed, and what to do. None of these is ever raised into a
request: they belong to `watch(...)`, `calibrate(...)`, and to readers of files. The one exception
is `StrictModeError`, where `CALIDRIFT_STRICT=1` asks for it.
"""

from typing import ClassVar

from calidrift_agent._vocabulary import ExitCode

__all__ = [
    "AttachError",
    "CalidriftError",
    "CaptureError",
    "ConfigurationError",
    "ProfileError",
    "ProfileFormatError",
    "ProfileMismatchError",
    "RegistryError",
    "RegistryUnreachableError",
    "SketchError",
    "StateError",
    "StateFormatError",
    "StateSpaceError",
    "StrictModeError",
]


class CalidriftError(Exception):
    """Root of every error that Calidrift raises on purpose.

    Attributes:
        exit_code: How a command ends that this error stops.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


class ConfigurationError(CalidriftError, ValueError):
    """An argument, a configuration key or an environment variable has an unusable value."""


class ProfileError(CalidriftError, ValueError):
    """A calibration profile cannot be used."""


class ProfileFormatError(ProfileError):
    """The profile file is damaged, not a profile, or written by a newer version."""


class ProfileMismatchError(ProfileError):
    """The profile does not belong to this model, or was measured with another instrument."""


class SketchError(CalidriftError, ValueError):
    """Sketches that cannot be merged, or cells that are not a sketch."""


class StateError(CalidriftError, OSError):
    """A state file cannot be used."""


class StateFormatError(StateError):
    """The state file is damaged, foreign, or written by a newer version."""


class StateSpaceError(StateError):
    """There is no room for the state file; the agent goes on in memory and counts it."""


class CaptureError(CalidriftError, ValueError):
    """A capture file is damaged or foreign."""


class AttachError(CalidriftError, TypeError):
    """The object given to `watch` or `calibrate` is not a model that can be observed."""


class RegistryError(CalidriftError, OSError):
    """A model version is damaged, unfinished or missing; it is never served."""


class RegistryUnreachableError(RegistryError):
    """The store behind a registry's URL does not answer; nothing is known to be damaged."""


class StrictModeError(CalidriftError, RuntimeError):
    """The agent failed; raised into a request, but only where `CALIDRIFT_STRICT=1` asks for it."""
