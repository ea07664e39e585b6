"""What a run with the real servers is told, and what it measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from calidrift_analyzer.errors import ConfigurationError

__all__ = ["Shortened", "StackOptions", "StackResult", "StackStep"]

_SLOWEST: Final = 10.0
_FASTEST: Final = 600.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """How the loop with the real servers runs.

    Attributes:
        workdir: Folder for its files; new, empty, or of an earlier demo.
        seed: Decides splits, weights, noise and traffic.
        epochs: Passes over the training pictures; fewer than those of `calidrift demo`, because
            FP32 is not what is shown here.
        speed: Every time in rules and routes is divided by it: 60 makes seconds of minutes.
        least_hold_seconds: But no `for` becomes shorter than this: a repair needs enough of the
            new traffic to learn from.
        rate: Requests per second until the alert has led to a job; a third of it from then on.
        sample_rate: Share of the requests that is observed.
        calm_units: Units that are judged before the traffic shifts.
        limit_seconds: The whole run; nothing waits longer.
    """

    workdir: Path
    seed: int = 0
    epochs: int = 20
    speed: float = 60.0
    least_hold_seconds: float = 20.0
    rate: float = 25.0
    sample_rate: float = 1.0
    calm_units: int = 60
    limit_seconds: float = 350.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigurationError(f"the seed is {self.seed}, but must be a whole number from 0")
        if not _SLOWEST <= self.speed <= _FASTEST:
            raise ConfigurationError(
                f"the speed is {self.speed:g}, but must be from {_SLOWEST:g} to {_FASTEST:g}: "
                "times in the rules are divided by it, and the run ends within 6 minutes"
            )


@final
@dataclass(frozen=True, slots=True)
class StackStep:
    """One step of the loop.

    Attributes:
        name: What happened.
        at_seconds: When, since the traffic shifted.
        took_seconds: Time since the step before.
        told: What was seen, in words.
    """

    name: str
    at_seconds: float
    took_seconds: float
    told: str


@final
@dataclass(frozen=True, slots=True)
class Shortened:
    """How long an alert's condition must hold.

    Attributes:
        alert: Name of the alert.
        committed: As the rules in `dashboards/` say it.
        used: In this run.
    """

    alert: str
    committed: str
    used: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StackResult:
    """Everything that a run measured.

    Attributes:
        seed: As given.
        speed: As given.
        least_hold_seconds: As given.
        rules: What these made of the `for` of each alert.
        setup_seconds: From the start to the shift of the traffic, by step.
        steps: The loop, from the shift to the end, and the way back and forward again.
        alerts: Alerts that fired and ask for new ranges.
        other_alerts: Other alerts that fired meanwhile.
        job: Number of the job that the alert led to.
        first: Version that served before, and once more after the rollback.
        version: Version that serves in the end.
        candidate: What it was before.
        coverage_before: Request coverage when the alert fired.
        coverage_after: The same in the end, of the new version.
        requests: Requests that were sent.
        lost: Those that had no good answer.
        loss: What the first lost ones got instead.
        answers: Answers by version.
        slowest_seconds: The slowest answer of all.
        addresses: Where each program listened.
        wall_seconds: The whole run.
        workdir: Folder with every file of the run.
        config: Its `calidrift.toml`.
    """

    seed: int
    speed: float
    least_hold_seconds: float
    rules: tuple[Shortened, ...]
    setup_seconds: Mapping[str, float]
    steps: tuple[StackStep, ...]
    alerts: tuple[str, ...]
    other_alerts: tuple[str, ...]
    job: int
    first: str
    version: str
    candidate: str
    coverage_before: float | None
    coverage_after: float
    requests: int
    lost: int
    loss: tuple[str, ...]
    answers: Mapping[str, int]
    slowest_seconds: float
    addresses: Mapping[str, str]
    wall_seconds: float
    workdir: Path
    config: Path
