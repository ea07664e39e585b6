"""State directories that are not there: told once, because nothing else would be heard of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from calidrift_agent.errors import ConfigurationError

_log = logging.getLogger("calidrift_agent")


def require_possible(directory: Path) -> None:
    """Refuse what can never become a state directory: a file, or something below a file.

    Raises:
        ConfigurationError: It is one of these.
    """
    for place in (directory, *directory.parents):
        try:
            there = place.is_dir() or place.exists()
        except OSError:  # not for this user to see: it may be there all the same
            return
        if not there:
            continue
        if place.is_dir():
            return
        where = "is not a folder" if place == directory else f"lies below {place}, which is a file"
        raise ConfigurationError(
            f"the state directory {directory} {where}; give the state_dir of the watches"
        )


def tell_missing(directories: Iterable[Path]) -> None:
    """Log a sentence for each directory that is not there, or that cannot be looked into."""
    for directory in directories:
        try:
            missing = not directory.is_dir()
        except OSError as error:
            _log.warning(
                "the state directory %s cannot be looked into (%s); there are no figures of it "
                "until this user may read it",
                directory,
                error.strerror,
            )
            continue
        if missing:
            _log.warning(
                "the state directory %s does not exist; there are no figures of it until a watch "
                "creates it: check the spelling if the service runs already",
                directory,
            )
