"""How much of the traffic may be kept, and of which inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from numpy.typing import NDArray

from calidrift_agent.errors import ConfigurationError

Inputs: TypeAlias = Mapping[str, NDArray[Any]]
Redaction: TypeAlias = Callable[[Inputs], Inputs | None]


@final
@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """Limits of the captures of one process. Captures are inputs of users: off by default.

    Attributes:
        max_bytes: All files together, by default 256 MiB.
        max_count: All files together, by default 512, the uniform reservoir included.
        max_sample_bytes: Largest single request row that is kept, by default 1 MiB of tensors.
        reservoir: Files that are a uniform sample of everything observed, covered or not.
        per_point: Uncovered rows that each point keeps for its largest maxima, whatever comes
            after them; lowered where the points together would fill the store.
        inputs: Names of the inputs that may be kept; None for all of them.
        redact: Called with the inputs of every offered row, off the request thread; returns what
            may be kept, or None for nothing. A redaction that raises drops the row.
        seed: Seed of the random choices; None for a random one.
    """

    max_bytes: int = 256 * 1024 * 1024
    max_count: int = 512
    max_sample_bytes: int = 1024 * 1024
    reservoir: int = 64
    per_point: int = 4
    inputs: tuple[str, ...] | None = None
    redact: Redaction | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, lowest in (
            ("max_bytes", 1),
            ("max_count", 1),
            ("max_sample_bytes", 1),
            ("reservoir", 0),
            ("per_point", 1),
        ):
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
        if isinstance(self.inputs, str):
            raise ConfigurationError(
                f"capture option inputs must be a tuple of names, got the text {self.inputs!r}; "
                f"write ({self.inputs!r},)"
            )
        if self.inputs is not None and not all(isinstance(name, str) for name in self.inputs):
            raise ConfigurationError(
                f"capture option inputs must be a tuple of names, got {self.inputs!r}; name the "
                "inputs as the model's forward does"
            )
        if self.redact is not None and not callable(self.redact):
            raise ConfigurationError(
                f"capture option redact must be a function of the inputs, got {self.redact!r}"
            )
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise ConfigurationError(
                f"capture option seed must be a whole number of at least 0, got {self.seed!r}"
            )
