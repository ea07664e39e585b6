"""How users call the agent, fully typed. mypy --strict reads this file; nothing runs it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from torch import nn

from calidrift_agent import (
    AttachReport,
    CalibrateOptions,
    CalibrationProfile,
    CaptureOptions,
    MagnitudeSketch,
    PointProfile,
    StateReader,
    Version,
    Watch,
    WatchOptions,
    calibrate,
    open_version,
    request_context,
    watch,
)
from calidrift_agent.errors import CalidriftError, ConfigurationError


def serve(model: nn.Module, requests: Iterator[torch.Tensor]) -> None:
    watched = watch(
        model,
        name="resnet18",
        profile="resnet18.profile.json",
        state_dir=Path("/run/calidrift"),
        sample_rate=0.01,
        capture=CaptureOptions(max_bytes=2**20),
        reference=nn.Linear(2, 2),
        options=WatchOptions(budget=0.005),
    )
    assert_type(watched, Watch)
    with watched, request_context(segment="night", session="a"):
        for request in requests:
            model(request)
    assert_type(watched.report(), AttachReport)
    assert_type(watched.report().points, tuple[str, ...])
    assert_type(watched.report().skipped, Mapping[str, str])


def reference(model: nn.Module, batches: list[torch.Tensor]) -> CalibrationProfile:
    profile = calibrate(model, batches, options=CalibrateOptions(rank=2))
    assert_type(profile, CalibrationProfile)
    assert_type(profile.points, Mapping[str, PointProfile])
    profile.save("resnet18.profile.json")
    return CalibrationProfile.load(Path("resnet18.profile.json"))


def positional_and_keyword_batches(model: nn.Module, x: torch.Tensor) -> None:
    calibrate(model, [(x, x)])
    calibrate(model, ({"x": x} for _ in range(3)))


def magnitudes() -> float:
    sketch = MagnitudeSketch()
    sketch.update(np.ones(3, dtype=np.float32))
    sketch.merge(MagnitudeSketch())
    assert_type(sketch.count, int)
    assert_type(sketch.absmax, float)
    return sketch.quantile(0.999)


def another_process(path: Path) -> int:
    with StateReader.open(path) as reader:
        return len(reader.meta.points)


def load_served_version() -> Path:
    try:
        version = open_version("registry", "resnet18")
    except ConfigurationError:
        raise
    except CalidriftError as error:
        assert_type(int(error.exit_code), int)
        raise
    assert_type(version, Version)
    return version.path
