"""A few requests under observation."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import nn

from calidrift_agent._doctor._subject import Request, Subject
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import Window
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage
from calidrift_agent._watch import AttachReport, WatchOptions, slowest_detection, watch
from calidrift_agent.errors import ConfigurationError

LEAST_REQUESTS: Final = 4
"""The first two observed requests are not measured: they make plans and fill caches."""
MOST_REQUESTS: Final = 100_000
_OPTIONS: Final = WatchOptions(
    budget=None, seed=0, drain_seconds=3_600.0, window_seconds=86_400.0, retention_seconds=None
)


@final
@dataclass(frozen=True, slots=True)
class Prescription:
    """What is examined for.

    Attributes:
        requests: How many are run, 4 to 100,000.
        traffic: Requests per second of the service; None where it is not known.
        exceedance: Share of requests outside the range that is to be detected, in (0, 1).
        budget: Share of the forward time that observing may take, in (0, 1].
    """

    requests: int = 20
    traffic: float | None = None
    exceedance: float = 0.01
    budget: float = 0.01

    def __post_init__(self) -> None:
        if self.requests < LEAST_REQUESTS:
            raise ConfigurationError(
                f"requests is {self.requests}, but must be at least {LEAST_REQUESTS}: the first "
                "two are not measured"
            )
        if self.requests > MOST_REQUESTS:
            raise ConfigurationError(
                f"requests is {self.requests}, but must be at most {MOST_REQUESTS}: the figures "
                "do not become better; 20 are enough for most models"
            )
        if self.traffic is not None and not 0.0 < self.traffic < math.inf:
            raise ConfigurationError(
                f"traffic is {self.traffic!r}, but is a number of requests per second above 0"
            )


@final
@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """What was found.

    Attributes:
        report: Of the watch, after the last request.
        prescription: What was asked for.
        training: Whether the model is in training mode.
        errors: Failures of the agent by stage; empty where all is well.
        dropped: What the agent could not keep, by reason.
    """

    report: AttachReport
    prescription: Prescription
    training: bool
    errors: Mapping[str, int]
    dropped: Mapping[str, int]

    @property
    def ratio(self) -> float | None:
        """Sampling ratio that the budget buys; None where nothing was measured."""
        cost = self.report.cost
        return None if cost is None else cost.ratio_within(self.prescription.budget)

    @property
    def detection_requests(self) -> int | None:
        """Observed requests until the exceedance would be detected; None for never."""
        return slowest_detection(self.report.references, self.prescription.exceedance)

    @property
    def detection_seconds(self) -> float | None:
        """Time until then at the traffic and the ratio; None for never, or where not known."""
        traffic, ratio = self.prescription.traffic, self.ratio
        if traffic is None or ratio is None:
            return None
        report = replace(self.report, sampling_ratio=ratio)
        return report.detection_seconds(traffic, self.prescription.exceedance)


def examine(
    subject: Subject, prescription: Prescription, profile: CalibrationProfile | None = None
) -> Examination:
    """Watch every one of a few requests, with a state file in a folder that is removed again.

    Args:
        subject: Model and example requests, which are repeated as often as is needed.
        prescription: How many requests, and what for.
        profile: Where the bounds come from; None for none.

    Raises:
        AttachError: The model cannot be watched.
        ProfileMismatchError: The profile is another model's.
        ConfigurationError: The agent is switched off, or the model fails on its inputs.
    """
    model = subject.model
    with (
        tempfile.TemporaryDirectory(prefix="calidrift-doctor-") as folder,
        watch(
            model,
            name="doctor",
            profile=profile,
            state_dir=Path(folder),
            sample_rate=1.0,
            options=_OPTIONS,
        ) as one,
    ):
        if one.report().cost is None:
            raise ConfigurationError(
                f"nothing can be examined: {'; '.join(one.report().notes)}; unset that and repeat"
            )
        call = one if callable(model) else model.run
        with torch.no_grad():
            for request in islice(cycle(subject.requests), prescription.requests):
                _serve(call, request, by_run=not callable(model))
                one.snapshot()
        report, (_, total) = one.report(), one.snapshot()
        return Examination(
            report,
            prescription,
            training=isinstance(model, nn.Module) and model.training,
            errors=_happened(total, RequestColumn.ERROR_FIRST, Stage),
            dropped=_happened(total, RequestColumn.DROP_FIRST, DropReason),
        )


def _serve(call: Callable[..., Any], request: Request, *, by_run: bool) -> None:
    args, kwargs = request.args, dict(request.kwargs)
    try:
        if by_run and kwargs:  # an ONNX session takes its feeds as one mapping
            call(None, kwargs)
        else:
            call(*args, **kwargs)
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise ConfigurationError(
            f"the model fails on its example inputs, {type(error).__name__}: {text}; give the "
            "inputs that requests give"
        ) from error


def _happened(total: Window, first: int, words: type[StrEnum]) -> dict[str, int]:
    counted = {word.value: int(total.requests[first + at]) for at, word in enumerate(words)}
    return {word: times for word, times in counted.items() if times}
