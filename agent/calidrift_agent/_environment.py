"""The one module of the agent that reads environment variables.

Each variable is documented beside its name. A value outside its closed set is an error that lists
what is allowed, raised by `read()` and never at import, so that a typing mistake cannot take down
a host that only imports the package.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from calidrift_agent.errors import ConfigurationError

__all__ = [
    "CALIDRIFT_CANARY",
    "CALIDRIFT_CAPTURE_KEYS",
    "CALIDRIFT_DISABLED",
    "CALIDRIFT_NO_NATIVE",
    "CALIDRIFT_STATE_DIR",
    "CALIDRIFT_STRICT",
    "Environment",
    "native_allowed",
    "read",
    "read_capture_keys",
]

CALIDRIFT_CANARY = "CALIDRIFT_CANARY"
"""`1` marks a replica whose `follow(...)` does not say: it serves versions that are tried on
canaries before the others do. Default `0`."""

CALIDRIFT_CAPTURE_KEYS = "CALIDRIFT_CAPTURE_KEYS"
"""Fernet keys of encrypted captures, separated by commas: the first encrypts, all decrypt, in the
writing process as in the analyzer. Default: none."""

CALIDRIFT_DISABLED = "CALIDRIFT_DISABLED"
"""`1` switches the agent off: `watch(...)` returns a watch that observes nothing. Default `0`."""

CALIDRIFT_STRICT = "CALIDRIFT_STRICT"
"""`1` raises failures of the agent into the caller; for staging, never for production. Default
`0`: they are counted, and logged once per kind."""

CALIDRIFT_STATE_DIR = "CALIDRIFT_STATE_DIR"
"""Folder of state files where `watch(...)` is given none. Default: no files, in memory only."""

CALIDRIFT_NO_NATIVE = "CALIDRIFT_NO_NATIVE"
"""`1` leaves the native tap alone, where it was built; at installation it leaves it out. Looked at
when the package is imported, so that any word but those for "no" counts as `1`. Default `0`."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


@final
@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment says about the agent.

    Attributes:
        disabled: Whether the agent is switched off.
        state_dir: Folder of state files for callers that name none; `None` where unset.
        strict: Whether failures of the agent are raised into the caller.
        canary: Whether this replica serves canaries first.
    """

    disabled: bool = False
    state_dir: Path | None = None
    strict: bool = False
    canary: bool = False


def read(variables: Mapping[str, str] | None = None) -> Environment:
    """Read the agent's variables.

    Args:
        variables: The variables to read; the process environment where not given.

    Returns:
        The parsed values.

    Raises:
        ConfigurationError: A variable has a value outside its closed set.

    >>> read({"CALIDRIFT_DISABLED": "1"}).disabled
    True
    >>> read({"CALIDRIFT_STATE_DIR": ""}).state_dir is None
    True
    """
    source = os.environ if variables is None else variables
    state_dir = source.get(CALIDRIFT_STATE_DIR, "").strip()
    return Environment(
        disabled=_switch(source, CALIDRIFT_DISABLED),
        state_dir=folder_at(state_dir) if state_dir else None,
        strict=_switch(source, CALIDRIFT_STRICT),
        canary=_switch(source, CALIDRIFT_CANARY),
    )


def folder_at(path: str | os.PathLike[str]) -> Path:
    """The path of a folder as it is meant: `~` is somebody's home; never raises.

    >>> folder_at("a/b").as_posix(), folder_at("~/a").name
    ('a/b', 'a')
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - that of pathlib raises without a home


def native_allowed(variables: Mapping[str, str] | None = None) -> bool:
    """Whether the native tap may be used; never raises.

    >>> native_allowed({}), native_allowed({"CALIDRIFT_NO_NATIVE": "1"})
    (True, False)
    """
    source = os.environ if variables is None else variables
    return source.get(CALIDRIFT_NO_NATIVE, "").strip().lower() in _FALSE


def read_capture_keys(variables: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Read the keys of encrypted captures; a secret, hence no part of `Environment`.

    Args:
        variables: The variables to read; the process environment where not given.

    Returns:
        The keys in order, empty where unset.

    >>> read_capture_keys({"CALIDRIFT_CAPTURE_KEYS": "new, old,"})
    ('new', 'old')
    """
    source = os.environ if variables is None else variables
    words = source.get(CALIDRIFT_CAPTURE_KEYS, "").split(",")
    return tuple(word for word in map(str.strip, words) if word)


def _switch(source: Mapping[str, str], name: str) -> bool:
    """Parse an on/off variable exactly: `2` or `ture` is an error, not a guess."""
    word = source.get(name, "").strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigurationError(
        f"{name} is {source[name]!r}; allowed are 1, true, yes, on and 0, false, no, off: "
        "correct it or unset it"
    )
