"""The rarer options of `watch`."""

from dataclasses import dataclass
from typing import final

from calidrift_agent._observe import SALT_BYTES, STEP_LIMIT
from calidrift_agent._state import SweepOptions
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
        inputs: Names of the inputs to observe where only inputs and outputs can be; None for all
            that the model names and that may be floating point. One that never holds
            floating-point values (token ids) would be reported as never seen.
        retention_seconds: How long the state file of a dead process stays in the state directory,
            so that the analyzer reads its windows, before its counts are merged into one
            carry-over file; 0 to 31622400. None: this process removes nothing.
        steps_per_request: Decode steps of one observed request (a text that is being generated)
            that are observed too, at most, 0 to 62: one random step of each doubling of their
            number, so 16 see the whole of a text of 65,535 tokens.
        key_salt: Changes which keys of `request_context(key=)` are observed; up to 64 bytes. The
            same in all processes that are to decide alike, and a secret where users choose keys.
    """

    budget: float | None = 0.01
    window_seconds: float = 10.0
    drain_seconds: float = 1.0
    seed: int | None = None
    outputs: bool = False
    inputs: tuple[str, ...] | None = None
    retention_seconds: float | None = 3_600.0
    steps_per_request: int = 16
    key_salt: str = ""

    def __post_init__(self) -> None:
        if self.budget is not None and not (_is_number(self.budget) and 0.0 < self.budget <= 1.0):
            raise ConfigurationError(
                f"budget is {self.budget!r}, but is a share of the forward time above 0 and up to "
                "1, e.g. 0.01 for 1 %, or None for no control"
            )
        if not (_is_number(self.window_seconds) and 0.001 <= self.window_seconds <= 86_400):
            raise ConfigurationError(
                f"window_seconds is {self.window_seconds!r}, but must be 0.001 to 86400; 10 suits "
                "a service"
            )
        if not (_is_number(self.drain_seconds) and 0.01 <= self.drain_seconds <= 3_600):
            raise ConfigurationError(
                f"drain_seconds is {self.drain_seconds!r}, but must be 0.01 to 3600; 1 suits a "
                "service"
            )
        if self.retention_seconds is not None:
            if not _is_number(self.retention_seconds):
                raise ConfigurationError(
                    f"retention_seconds is {self.retention_seconds!r}, but must be a number of "
                    "seconds, or None for never; 3600 suits an analyzer that comes by every few "
                    "minutes"
                )
            SweepOptions(retention_seconds=self.retention_seconds)
        steps = self.steps_per_request
        if not _is_whole(steps) or steps not in range(STEP_LIMIT + 1):
            raise ConfigurationError(
                f"steps_per_request is {self.steps_per_request!r}, but must be 0 to {STEP_LIMIT}; "
                "16 suits a service, 0 observes prompts only"
            )
        self._require_choices()

    def _require_choices(self) -> None:
        if self.seed is not None and (not _is_whole(self.seed) or self.seed < 0):
            raise ConfigurationError(
                f"seed is {self.seed!r}, but must be a whole number of at least 0, or None for "
                "entropy of the system"
            )
        if not isinstance(self.outputs, bool):
            raise ConfigurationError(
                f"outputs is {self.outputs!r}, but must be True or False; True observes the "
                "outputs of convolution and linear layers too"
            )
        names: object = self.inputs
        good = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
        if names is not None and not good:
            raise ConfigurationError(
                f"inputs is {names!r}, but must be a tuple of names (none: the output only), or "
                'None for all that may be floating point; write ("image",) for one'
            )
        salt: object = self.key_salt
        if not isinstance(salt, str) or not _fits(salt):
            raise ConfigurationError(
                f"key_salt is {salt!r}, but must be a text of up to {SALT_BYTES} bytes; "
                "give a shorter one, or a digest of it"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(salt: str) -> bool:
    try:
        return len(salt.encode()) <= SALT_BYTES
    except UnicodeEncodeError:  # half a character
        return False


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
