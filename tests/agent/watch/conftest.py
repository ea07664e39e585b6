"""A watch that observes everything and drops nothing, and models that misbehave."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from calidrift_agent._profile import (
    CalibrationProfile,
    Fingerprint,
    ObservedBound,
    PointProfile,
    utc_now,
)
from calidrift_agent._vocabulary import Instrument
from calidrift_agent._watch import Watch, WatchOptions, watch

QUIET = WatchOptions(budget=None, drain_seconds=3600, window_seconds=86_400, seed=0)


class Net(nn.Module):
    """Convolution, embedding-free head, a plain attribute that scales the output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 3)
        self.scale = 1.0

    def forward(self, x: torch.Tensor, *, shift: float = 0.0) -> torch.Tensor:
        return self.fc(self.act(self.conv(x)).mean((2, 3))) * self.scale + shift


@pytest.fixture
def python_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the native tap alone: for faults that are planted in the one of Python."""
    monkeypatch.setattr("calidrift_agent._taps._memory.NATIVE", None)


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def watch_all():
    """`watch` with every call observed; all watches are closed at the end of the test."""
    made: list[Watch] = []

    def make(model: nn.Module, **options) -> Watch:
        options = {"name": "net", "sample_rate": 1.0, "options": QUIET, **options}
        made.append(watch(model, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def bounded() -> Callable[..., CalibrationProfile]:
    """A profile with an observed bound per point."""

    def make(**bounds: float | None) -> CalibrationProfile:
        points = {}
        for key, bound in bounds.items():
            name = key.replace("__", ":").replace("_", ".")
            observed = None if bound is None else ObservedBound(bound, 1, 1, (bound,))
            points[name] = PointProfile(name=name, observed_bound=observed)
        return CalibrationProfile(points, 1, Instrument.RANGE, Fingerprint(), utc_now())

    return make
