"""Errors of the analyzer, each one also a built-in so that existing handlers work.

    CalidriftError (of the agent)
    ├── ConfigurationError (of the agent)      calidrift.toml, flags, variables
    ├── ContractError (ValueError)             code of the model contract is missing or fails
    ├── StoreError (OSError)                   the database cannot be used
    │   ├── StoreBusyError                     another process holds it
    │   ├── StoreUnavailableError              it is being opened again, or has too much to do
    │   └── StoreVersionError                  written by a newer version
    ├── NoDataError (LookupError)              nothing recorded yet for what was asked
    ├── GrafanaError (OSError)                 Grafana is not there, or will not
    │   └── GrafanaConflictError               somebody else changed the same thing meanwhile
    ├── ToolchainError (RuntimeError)          no C++ compiler, or torchao cannot run here
    ├── ChildError (RuntimeError)              the child process that ran user code died
    └── RefusedError (RuntimeError)            a gate said no; nothing was changed

Messages say what was given, what is allowed, and what to do.
"""

from typing import ClassVar

from calidrift_agent._vocabulary import ExitCode
from calidrift_agent.errors import CalidriftError, ConfigurationError

__all__ = [
    "CalidriftError",
    "ChildError",
    "ConfigurationError",
    "ContractError",
    "GrafanaConflictError",
    "GrafanaError",
    "NoDataError",
    "RefusedError",
    "StoreBusyError",
    "StoreError",
    "StoreUnavailableError",
    "StoreVersionError",
    "ToolchainError",
]


class ContractError(CalidriftError, ValueError):
    """Code or a file named by the model contract is missing, has another type, or raised."""


class StoreError(CalidriftError, OSError):
    """The database cannot be used."""


class StoreBusyError(StoreError):
    """Another process holds the database."""


class StoreUnavailableError(StoreError):
    """The database is being opened again, or has too much to do; a retry helps."""


class StoreVersionError(StoreError):
    """The database was written by a newer version."""


class NoDataError(CalidriftError, LookupError):
    """Nothing has been recorded yet for what was asked."""


class GrafanaError(CalidriftError, OSError):
    """Grafana cannot be reached, is something else, or does not do what it is asked."""


class GrafanaConflictError(GrafanaError):
    """Somebody else changed the same thing meanwhile (status 409 or 412)."""


class ToolchainError(CalidriftError, RuntimeError):
    """The machine lacks something that INT8 kernels need."""


class ChildError(CalidriftError, RuntimeError):
    """The child process that runs user code died or answered nonsense."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL


class RefusedError(CalidriftError, RuntimeError):
    """A gate said no; nothing was changed."""

    exit_code: ClassVar[ExitCode] = ExitCode.REFUSED
