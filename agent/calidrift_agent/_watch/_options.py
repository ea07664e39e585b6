"""The rarer options of `watch`."""

from dataclasses import dataclass
from typing import final

from calidrift_agent.errors import ConfigurationError


@final
@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a watch works; the defaults suit a service.

    Attributes:
        budget: Share of the forward time that the agent may take for observing, e.g. 0.01 for
            1 %. The sampling ratio is lowered as far as that needs, and raised again up to
            `sample_rate`. None for no control: then nothing is dropped for lack of time either,
            and a request waits for the drain where the queue is full (tests, offline runs).
        window_seconds: Length of a window, 0.001 to 86400; ends fall on its multiples in UTC.
        drain_seconds: Longest time that an observed call waits to be counted, 0.01 to 3600.
        seed: Seed of the sampling decisions; None for entropy of the system.
        outputs: Observe the outputs of convolution and linear layers too (eager models only).
    """

    budget: float | None = 0.01
    window_seconds: float = 10.0
    drain_seconds: float = 1.0
    seed: int | None = None
    outputs: bool = False

    def __post_init__(self) -> None:
        if self.budget is not None and not 0.0 < self.budget <= 1.0:
            raise ConfigurationError(
                f"budget is {self.budget!r}, but is a share of the forward time above 0 and up to "
                "1, e.g. 0.01 for 1 %, or None for no control"
            )
        if not 0.001 <= self.window_seconds <= 86_400:
            raise ConfigurationError(
                f"window_seconds is {self.window_seconds!r}, but must be 0.001 to 86400; 10 suits "
                "a service"
            )
        if not 0.01 <= self.drain_seconds <= 3_600:
            raise ConfigurationError(
                f"drain_seconds is {self.drain_seconds!r}, but must be 0.01 to 3600; 1 suits a "
                "service"
            )
