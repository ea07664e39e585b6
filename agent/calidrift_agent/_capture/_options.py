"""How much of the traffic may be kept, and of which inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from numpy.typing import NDArray

from calidrift_agent.errors import ConfigurationError

Inputs: TypeAlias = Mapping[str, NDArray[Any]]
Redaction: TypeAlias = Callable[[Inputs], Inputs | None]

_LOWEST: Final = {
    "max_bytes": 1,
    "max_count": 1,
    "max_sample_bytes": 1,
    "reservoir": 0,
    "per_point": 1,
    "segments": 0,
    "max_per_hour": 1,
}


@final
@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """Limits of the captures of one process. Captures are inputs of users: off by default.

    They are files in the state directory, of mode 0600 in folders of mode 0700. Nothing sends
    them anywhere; the analyzer reads them where they are.

    Attributes:
        max_bytes: All files together, by default 256 MiB.
        max_count: All files together, by default 512, the uniform reservoirs included.
        max_sample_bytes: Largest single request row that is kept, by default 1 MiB of tensors.
        reservoir: Files that are a uniform sample of everything observed of one segment, covered
            or not.
        per_point: Uncovered rows that each point keeps for its largest maxima, whatever comes
            after them; lowered where the points together would fill the store.
        inputs: Names of the inputs that may be kept, as the model's forward calls them (what is
            given by position is also known as `arg0`, `arg1`); None for all of them. The name of
            a container stands for all tensors in it.
        redact: Called with a copy of the inputs of every offered row, off the request thread;
            returns what may be kept, or None for nothing. A redaction that raises, or returns
            anything else, drops the row.
        seed: Seed of the random choices; None for a random one.
        segments: The first so many segments (of `request_context`, "none" being one) have a
            reservoir of their own, all others share one; fewer where the reservoirs would take
            more than half of `max_count`.
        max_per_hour: Rows that are written within any 60 minutes, by default 1,000.
        max_disk_use: Used share of the file system, in (0, 1], above which nothing is written.
        ttl_hours: Captures of this model in this state directory are deleted before they are
            older than this, those of dead processes too; by default 720 (30 days). None: never.
        encrypt: Encrypt every capture with the first key of `CALIDRIFT_CAPTURE_KEYS`; needs the
            extra `crypto`. Without a key nothing is written.
    """

    max_bytes: int = 256 * 1024 * 1024
    max_count: int = 512
    max_sample_bytes: int = 1024 * 1024
    reservoir: int = 64
    per_point: int = 4
    inputs: tuple[str, ...] | None = None
    redact: Redaction | None = None
    seed: int | None = None
    segments: int = 3
    max_per_hour: int = 1000
    max_disk_use: float = 0.9
    ttl_hours: float | None = 720.0
    encrypt: bool = False

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise ConfigurationError(
                    f"capture option {name} must be a whole number of at least {lowest}, "
                    f"got {value!r}"
                )
        if self.max_sample_bytes > self.max_bytes:
            raise ConfigurationError(
                f"max_sample_bytes ({self.max_sample_bytes}) must not be larger than max_bytes "
                f"({self.max_bytes}): no such row could ever be kept"
            )
        if self.reservoir > self.max_count:
            raise ConfigurationError(
                f"reservoir ({self.reservoir}) is a part of max_count ({self.max_count}) and "
                "must not be larger"
            )
        self._require_inputs()
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise ConfigurationError(
                f"capture option seed must be a whole number of at least 0, got {self.seed!r}"
            )
        if not (_is_number(self.max_disk_use) and 0.0 < self.max_disk_use <= 1.0):
            raise ConfigurationError(
                f"capture option max_disk_use is {self.max_disk_use!r}, but is a share of the "
                "disk above 0 and up to 1; 0.9 stops when it is 90 % full"
            )
        ttl = self.ttl_hours
        if ttl is not None and not (_is_number(ttl) and 0.0 < ttl < math.inf):
            raise ConfigurationError(
                f"capture option ttl_hours is {ttl!r}, but is a number of hours above 0, or None "
                "to keep captures until others take their place"
            )
        if not isinstance(self.encrypt, bool):
            raise ConfigurationError(
                f"capture option encrypt is {self.encrypt!r}, but must be True or False; keys "
                "belong into the environment, not here"
            )

    def _require_inputs(self) -> None:
        names: object = self.inputs
        if isinstance(names, str):
            raise ConfigurationError(
                f"capture option inputs must be a tuple of names, got the text {names!r}; "
                f"write ({names!r},)"
            )
        good = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
        if names is not None and not good:
            raise ConfigurationError(
                f"capture option inputs must be a tuple of names, got {names!r}; name the "
                "inputs as the model's forward does"
            )
        if names is not None and not names:
            raise ConfigurationError(
                f"capture option inputs is {names!r}, which allows none: nothing could ever be "
                "kept; name the inputs as the model's forward does, or give capture=None to "
                "keep nothing"
            )
        if self.redact is not None and not callable(self.redact):
            raise ConfigurationError(
                f"capture option redact must be a function of the inputs, got {self.redact!r}"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
