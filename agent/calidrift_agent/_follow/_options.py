"""How a registry is followed."""

from dataclasses import dataclass
from os import PathLike
from types import NoneType
from typing import Final, final

from calidrift_agent._registry import is_url
from calidrift_agent.errors import ConfigurationError

_LONGEST: Final = 86_400
_LEAST_KEPT: Final = 2


@final
@dataclass(frozen=True, slots=True)
class FollowOptions:
    """How a registry is followed.

    Attributes:
        poll_seconds: How often the pointer is read; above 0. It is a file of 150 bytes; of a URL,
            each look is one request to the store.
        retry_seconds: When a version that could not be loaded or read is tried again. One whose
            INT8 kernels were missing is not, until the registry names another one.
        cache: Folder for the copies of versions; needed where the registry is a URL, and only
            there. Processes of one machine may share it.
        keep_versions: Most copies that stay in it, from 2: those that were used last, the one that
            serves and the one that is wanted first.
        canary: Whether this replica serves a version that is tried on canaries, while the registry
            names one; otherwise, as all others, what all serve. None asks the variable
            CALIDRIFT_CANARY, which is off where it is not set.
    """

    poll_seconds: float = 5.0
    retry_seconds: float = 60.0
    cache: str | PathLike[str] | None = None
    keep_versions: int = 2
    canary: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("poll_seconds", "retry_seconds"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value <= _LONGEST:
                raise ConfigurationError(
                    f"{name} must be a number of seconds above 0 and at most {_LONGEST} (a day), "
                    f"got {value!r}"
                )
        cache: object = self.cache
        if not isinstance(cache, str | PathLike | NoneType) or is_url(cache):
            raise ConfigurationError(
                f"cache must be the path of a folder of this machine, or None, got {cache!r}"
            )
        keep: object = self.keep_versions
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < _LEAST_KEPT:
            raise ConfigurationError(
                f"keep_versions must be a whole number from {_LEAST_KEPT} (one that serves and one "
                f"that will), got {keep!r}"
            )
        canary: object = self.canary
        if not isinstance(canary, bool | NoneType):
            raise ConfigurationError(
                "canary must be True, False, or None for what CALIDRIFT_CANARY says, "
                f"got {canary!r}"
            )
