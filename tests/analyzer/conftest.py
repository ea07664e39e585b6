"""Hand-made windows and profiles: what agents write, without an agent."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from calidrift_agent._profile import (
    CalibrationProfile,
    ClipBound,
    Fingerprint,
    ObservedBound,
    PointProfile,
)
from calidrift_agent._sketch import CELLS, MagnitudeSketch
from calidrift_agent._state import PointMeta, SegmentCount, StateMeta, Window
from calidrift_agent._vocabulary import (
    COUNT_COLUMNS,
    REQUEST_COLUMNS,
    VALUE_COLUMNS,
    CountColumn,
    Instrument,
    RequestColumn,
    Strategy,
    ValueColumn,
    WindowFlag,
)

SECOND = 1_000_000_000
EPOCH = 1_800_000_000 * SECOND


@dataclass
class Traffic:
    """Makes windows and profiles; every number comes from one seeded generator."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def meta(self, points=("a:input", "b:input"), **changes) -> StateMeta:
        fields = {
            "process": f"{int(self.rng.integers(2**62)):032x}",
            "boot": "b" * 32,
            "pid": 4242,
            "started_ns": EPOCH,
            "model": "net",
            "profile": "",
            "instrument": Instrument.RANGE,
            "strategy": Strategy.INSTEAD,
            "agent_version": "0.1.0",
            "window_seconds": 10.0,
            "points": tuple(PointMeta(name, 1.0, -1.0, 1.0, ("alias",)) for name in points),
        }
        return StateMeta(**{**fields, **changes})

    def random_window(self, number, points=2, flags=WindowFlag.NONE) -> Window:
        rng = self.rng
        counts = rng.integers(0, 50, (points, COUNT_COLUMNS))
        counts[:, CountColumn.UNITS] = rng.integers(50, 99, points)
        cells = rng.integers(0, 2**40, (points, CELLS)) * (rng.random((points, CELLS)) < 0.05)
        values = rng.random((points, VALUE_COLUMNS))
        values[:, ValueColumn.LOWEST] *= -1
        return Window(
            number=number,
            start_ns=EPOCH + number * 10 * SECOND + 123,
            end_ns=EPOCH + (number + 1) * 10 * SECOND + 123,
            flags=flags,
            sampling_ratio=float(rng.random()),
            requests=rng.integers(1, 1000, REQUEST_COLUMNS),
            segments=(SegmentCount("day", 3, 2), SegmentCount("night", 5, 5)),
            counts=counts,
            values=values,
            cells=cells,
        )

    def unit_window(self, number, values, bounds, *, start_ns=EPOCH, seen=None) -> Window:
        """A window of observed units.

        Args:
            number: Number of the window.
            values: Per point an array `(units, elements)`.
            bounds: Observed bound per point; `None` without one.
        """
        window = Window.empty(len(values), number=number, at_ns=start_ns + number * SECOND)
        units = len(values[0])
        inside = np.ones(units, bool)
        for row, (tensor, bound) in enumerate(zip(values, bounds, strict=True)):
            peaks = np.abs(tensor).max(axis=1)
            above = peaks > bound if bound is not None else np.zeros(units, bool)
            inside &= ~above
            sketch = MagnitudeSketch()
            sketch.update(tensor.astype(np.float32).ravel())
            window.cells[row] = sketch.cells
            window.counts[row, CountColumn.UNITS] = 0 if bound is None else units
            window.counts[row, CountColumn.ROWS] = units
            whole = peaks[np.isfinite(peaks)]
            window.counts[row, CountColumn.UNITS_MEASURED] = units
            window.counts[row, CountColumn.UNITS_NOT_FINITE] = units - whole.size
            window.values[row, ValueColumn.UNIT_HIGHEST] = whole.max(initial=-np.inf)
            window.counts[row, CountColumn.EXCEEDANCES] = above.sum()
            window.counts[row, CountColumn.ELEMENTS] = tensor.size
            window.values[row, ValueColumn.LOWEST] = sketch.minimum
            window.values[row, ValueColumn.HIGHEST] = sketch.maximum
            over = np.maximum(np.abs(tensor) - (bound or np.inf), 0.0)
            window.values[row, ValueColumn.CLIPPED_ENERGY] = (over**2).sum()
            window.values[row, ValueColumn.ENERGY] = (tensor**2).sum()
        window.requests[RequestColumn.SEEN] = units if seen is None else seen
        window.requests[RequestColumn.SAMPLED] = units
        window.requests[RequestColumn.OBSERVED] = units
        if any(bound is not None for bound in bounds):  # as agents do: else nothing is compared
            window.requests[RequestColumn.UNITS] = units
            window.requests[RequestColumn.UNITS_COVERED] = inside.sum()
        return Window(
            number=number,
            start_ns=window.start_ns,
            end_ns=window.start_ns + SECOND,
            flags=WindowFlag.NONE,
            sampling_ratio=1.0,
            requests=window.requests,
            segments=(),
            counts=window.counts,
            values=window.values,
            cells=window.cells,
        )

    def profile(self, values, *, rank=1, clip=True, sketches=True, **changes):
        """A profile calibrated on `{point: (units, elements)}`, ranges by absmax."""
        points = {}
        for name, tensor in values.items():
            sketch = MagnitudeSketch()
            sketch.update(tensor.astype(np.float32).ravel())
            bound = ObservedBound.from_absmax(np.abs(tensor).max(axis=1), rank=rank)
            top = float(np.abs(tensor).max())
            points[name] = PointProfile(
                name=name,
                clip_bound=ClipBound.of_quantizer(2 * top / 255, 128, 0, 255, "uint8")
                if clip
                else None,
                observed_bound=bound,
                sketch=sketch if sketches else None,
            )
        fields = {
            "points": points,
            "units": len(next(iter(values.values()))),
            "instrument": Instrument.RANGE,
            "fingerprint": Fingerprint(),
            "created": "2030-01-01T00:00:00+00:00",
        }
        return CalibrationProfile(**{**fields, **changes})


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


TINY_CODE = '''
import numpy as np
import torch
from torch import nn

from calidrift_analyzer.recalibrate import Evaluation

torch.set_num_threads(1)
PATTERNS = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.block = Block(16)
        self.head = nn.Linear(16 * 64, 4)

    def features(self, x):
        return self.block(torch.relu(self.stem(x))).flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


def data(rows, seed, light=(1.0, 3.0)):
    """Patterns of four classes under noise, by day (bright) and by night."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 4
    noise = torch.randn(rows, 1, 8, 8, generator=generator)
    scale = torch.where(torch.arange(rows) // 4 % 2 == 0, *light)[:, None, None, None]
    return (PATTERNS[labels] + 0.5 * noise) * scale, labels


def factory():
    torch.manual_seed(1)
    model = Tiny().eval()
    with torch.no_grad():
        x, labels = data(400, 2)
        found = model.features(x)
        wanted = nn.functional.one_hot(labels, 4).float()
        gram = found.T @ found + 10.0 * torch.eye(found.shape[1])
        model.head.weight.copy_(torch.linalg.solve(gram, found.T @ wanted).T)
        model.head.bias.zero_()
    return model


def example_inputs():
    return (data(16, 3)[0],)


def calibration():
    yield from data(512, 4)[0].split(64)


def by_night():
    yield from data(256, 4, (1.0, 1.0))[0].split(64)


def evaluate(model, split):
    x, labels = data(200, {"select": 5, "gate": 6, "report": 7}[split])
    model.eval()
    device = next(model.parameters()).device
    correct = [
        (model(part.to(device)).argmax(1) == wanted).numpy()
        for part, wanted in zip(x.split(48), labels.split(48))
    ]
    segments = ["night" if row // 4 % 2 == 0 else "day" for row in range(200)]
    return Evaluation(correct=np.concatenate(correct), segments=segments)


def without_labels(model, split):
    model(data(200, {"select": 5, "gate": 6, "report": 7}[split])[0])
    return Evaluation()


def raises(model, split):
    raise RuntimeError("the labels are gone")


def never_runs(model, split):
    return Evaluation(correct=[True])


calls = 0


def moody(model, split):
    global calls
    calls += 1
    x, labels = data(100 + calls, 100 + calls)
    return Evaluation(correct=(model(x).argmax(1) == labels).numpy())


def deaf(model, split):
    """Never looks at `split`; smaller batches do not make other samples of them."""
    x, labels = data(200, 5)
    parts = x.split(48 if split == "select" else 200)
    return Evaluation(correct=(torch.cat([model(part) for part in parts]).argmax(1) == labels))


def kills(model, split):
    import os
    os.kill(os.getpid(), 9)
'''


@pytest.fixture(scope="session")
def tiny_contract(tmp_path_factory):
    """The contract of a tiny residual CNN; its user code can be varied by `dataclasses.replace`."""
    from calidrift_analyzer.config import ModelContract

    root = tmp_path_factory.mktemp("tiny")
    (root / "tiny_user.py").write_text(TINY_CODE, encoding="utf-8")
    return ModelContract(
        name="tiny",
        root=root,
        factory="tiny_user:factory",
        example_inputs="tiny_user:example_inputs",
        calibration="tiny_user:calibration",
        evaluate="tiny_user:evaluate",
        registry=root / "registry",
        min_size_ratio=3.5,
        coverage_target=0.9,
    )


@pytest.fixture(scope="session")
def tiny_candidates(tiny_contract, tmp_path_factory):
    """Its candidates: every estimator from samples, one from sketches alone."""
    from calidrift_analyzer.ranges import Estimator
    from calidrift_analyzer.recalibrate import recalibrate
    from calidrift_analyzer.records import Production

    folder = tmp_path_factory.mktemp("candidates")
    sampled = recalibrate(tiny_contract, folder)
    profile = CalibrationProfile.load(sampled[0].path / "profile.json")
    production = Production(
        {name: point.sketch for name, point in profile.points.items()}, profile.units
    )
    sketched = recalibrate(
        tiny_contract, folder, production=production, samples=None, estimators=[Estimator.MSE]
    )
    return (*sampled, *sketched)
