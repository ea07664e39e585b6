"""Where the reference units of a profile come from, and so what may be concluded from them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from calidrift_agent._vocabulary import ReferenceSource
from calidrift_agent.errors import ConfigurationError


@final
@dataclass(frozen=True, slots=True)
class ReferenceOrigin:
    """Where the reference units of a profile come from.

    Attributes:
        source: What they are.
        learned_from: Of units of production: digest of the profile under which they were observed.
        began: Of units of production: start of the first window with such a unit, ISO 8601.
        ended: Of units of production: end of the last window with such a unit.

    Example:
        >>> ReferenceOrigin().is_random
        True
    """

    source: ReferenceSource = ReferenceSource.CALIBRATION
    learned_from: str = ""
    began: str = ""
    ended: str = ""

    def __post_init__(self) -> None:
        parts = (self.learned_from, self.began, self.ended)
        learned = self.source is ReferenceSource.PRODUCTION
        if any(bool(part) != learned for part in parts):
            raise ConfigurationError(
                f"a reference of {self.source} units names learned_from={self.learned_from!r}, "
                f"began={self.began!r} and ended={self.ended!r}; one of production units needs all "
                "three, and no other has any"
            )
        if learned and _moment(self.began) > _moment(self.ended):
            raise ConfigurationError(
                f"a reference began at {self.began} and ended at {self.ended}, but must begin "
                "before it ends"
            )

    @property
    def is_random(self) -> bool:
        """Whether the units were drawn at random, so that traffic may be held against them."""
        return self.source is not ReferenceSource.PROVISIONAL


CALIBRATED: Final = ReferenceOrigin()
"""The origin of a profile that says nothing about it."""


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.min
    if found.utcoffset() is None:
        raise ConfigurationError(
            f"a reference names the time {text!r}, but times must be ISO 8601 with their offset, "
            'e.g. "2030-01-31T12:00:00+00:00"'
        )
    return found
