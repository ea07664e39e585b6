"""Captures: off by default, exact, private, bounded, and never a reason to fail a request."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import (
    CalibrationProfile,
    CaptureOptions,
    WatchOptions,
    calibrate,
    request_context,
    watch,
)
from calidrift_agent._capture import list_captures, read_capture
from calidrift_agent._capture._file import Capture
from calidrift_agent._vocabulary import CaptureKind, DropReason, RequestColumn, Stage
from calidrift_agent.errors import ConfigurationError

OPTIONS = WatchOptions(budget=None, window_seconds=600.0, seed=1)


def images(rows: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def row_maxima(model: nn.Module, batch: torch.Tensor) -> dict[str, np.ndarray]:
    """Largest magnitude per row of what each layer is called with; infinite with NaN or Inf."""
    found: dict[str, np.ndarray] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):

            def hook(module: nn.Module, args: Any, name: str = name) -> None:
                folded = args[0].detach().float().abs().reshape(len(batch), -1).amax(1)
                found[f"{name}:input"] = torch.nan_to_num(folded, nan=float("inf")).numpy()

            handles.append(module.register_forward_pre_hook(hook))
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return found


def exceeding(profile: CalibrationProfile, maxima: dict[str, np.ndarray]) -> np.ndarray:
    """Which rows are outside of at least one observed bound."""
    outside = np.zeros(len(next(iter(maxima.values()))), bool)
    for name, absmax in maxima.items():
        bound = profile.points[name].observed_bound
        assert bound is not None
        outside |= absmax > bound.value
    return outside


def captures_in(folder: Path, kind: CaptureKind | None = None) -> list[Capture]:
    found = [read_capture(path) for path in list_captures(folder)]
    return [one for one in found if kind is None or one.kind is kind]


@pytest.fixture
def profile(tiny_cnn: nn.Module) -> CalibrationProfile:
    return calibrate(tiny_cnn, [images(64, 100)])


def test_off_by_default(tiny_cnn: nn.Module, profile: Any, tmp_path: Path) -> None:
    """Not one byte of an input reaches the disk unless somebody asked for it."""
    with watch(
        tiny_cnn,
        name="net",
        profile=profile,
        sample_rate=1.0,
        state_dir=tmp_path,
        options=OPTIONS,
    ) as one:
        tiny_cnn(images(4, 1, 100.0))
        one.flush()
    assert not (tmp_path / "captures").exists()
    assert list_captures(tmp_path) == []


def test_captures_need_a_folder(tiny_cnn: nn.Module) -> None:
    """Asked for, but nowhere to put them: refused before the model is touched."""
    with pytest.raises(ConfigurationError, match="capture was given but no state_dir"):
        watch(tiny_cnn, name="net", capture=CaptureOptions())
    assert "forward" not in tiny_cnn.__dict__


def test_uncovered_rows_are_kept_exactly(tiny_cnn: nn.Module, profile: Any, tmp_path: Path) -> None:
    """Every row outside a bound, none inside; input, maxima, segment, time as they were."""
    batches = [images(3, 1, 0.2), images(4, 2, 1.3), images(5, 3), images(2, 4, 9.0)]
    batches[2][1, 0, 3, 3] = 40.0
    batches[2][4, 0, 0, 0] = float("nan")
    expected: dict[bytes, tuple[str, int, np.ndarray]] = {}
    for index, batch in enumerate(batches):
        maxima = row_maxima(tiny_cnn, batch)
        for row in np.flatnonzero(exceeding(profile, maxima)):
            values = np.array([maxima[name][row] for name in profile.points], np.float32)
            expected[batch[row : row + 1].numpy().tobytes()] = (f"s{index}", int(row), values)
    assert 0 < len(expected) < sum(len(batch) for batch in batches)
    before = time.time_ns()
    with watch(
        tiny_cnn,
        name="net",
        profile=profile,
        sample_rate=1.0,
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
        options=OPTIONS,
    ) as one:
        for index, batch in enumerate(batches):
            with request_context(segment=f"s{index}"):
                tiny_cnn(batch)
        one.flush()
    after = time.time_ns()
    found = captures_in(tmp_path)
    assert len(found) == len(expected)
    for capture in found:
        segment, row, maxima = expected.pop(capture.inputs["arg0"].tobytes())
        assert (capture.segment, capture.row) == (segment, row)
        assert capture.points == tuple(profile.points)
        assert np.array_equal(capture.maxima, maxima)
        assert capture.inputs["arg0"].shape == (1, 1, 8, 8)
        assert before <= capture.time_ns <= after
        assert capture.kind is CaptureKind.UNCOVERED
        assert (capture.model, capture.profile) == ("net", profile.digest)
        assert capture.inclusion == 1.0
    assert expected == {}


def test_files_are_private(tiny_cnn: nn.Module, profile: Any, tmp_path: Path) -> None:
    """0600 in 0700, whatever the umask; and no temporary file stays."""
    old = os.umask(0)
    try:
        with watch(
            tiny_cnn,
            name="net",
            profile=profile,
            sample_rate=1.0,
            state_dir=tmp_path / "state",
            capture=CaptureOptions(),
            options=OPTIONS,
        ) as one:
            tiny_cnn(images(4, 1, 100.0))
            one.flush()
    finally:
        os.umask(old)
    files = [
        path
        for path in (tmp_path / "state").rglob("*")
        if path.is_file() and "profiles" not in path.parts
    ]
    assert len([path for path in files if path.suffix == ".safetensors"]) >= 4
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    folders = {path.parent for path in files if "captures" in path.parts}
    for folder in (*folders, tmp_path / "state", tmp_path / "state" / "captures"):
        assert oct(folder.stat().st_mode & 0o777) == "0o700", folder
    assert not [path for path in files if path.name.endswith(".tmp")]


def test_inclusion_is_the_sampling_probability(
    tiny_cnn: nn.Module, profile: Any, tmp_path: Path
) -> None:
    """At a quarter of the calls, each kept row says 1/4: Horvitz-Thompson gives the traffic."""
    with watch(
        tiny_cnn,
        name="net",
        profile=profile,
        sample_rate=0.25,
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
        options=OPTIONS,
    ) as one:
        for seed in range(300):
            tiny_cnn(images(1, seed, 20.0))
        one.flush()
    found = captures_in(tmp_path)
    assert {capture.inclusion for capture in found} == {0.25}
    assert abs(sum(1 / c.inclusion for c in found) - 300) < 5 * np.sqrt(300 * 0.75 / 0.25)


def test_inclusion_beside_counts_the_row_that_was_drawn(
    tiny_int8: Any, copy_graph: Any, tmp_path: Path
) -> None:
    """One row of eight is replayed: it stands for eight."""
    graph = copy_graph(tiny_int8.graph)
    profile = calibrate(copy_graph(graph), [tiny_int8.example])
    batch = 50.0 * tiny_int8.example[:8]
    with watch(
        graph,
        name="int8",
        profile=profile,
        sample_rate=1.0,
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
        options=OPTIONS,
    ) as one:
        for _ in range(40):
            graph(batch)
        one.flush()
    found = captures_in(tmp_path)
    assert len(found) == 40
    assert {capture.inclusion for capture in found} == {1 / 8}
    rows = {row.numpy().tobytes(): index for index, row in enumerate(batch)}
    drawn = Counter(rows[capture.inputs["arg0"].tobytes()] for capture in found)
    assert len(drawn) >= 5, "the row is not random"  # P(fewer than 5 of 8 in 40) < 1e-6


def test_uniform_reservoir_is_uniform(tiny_cnn: nn.Module, profile: Any, tmp_path: Path) -> None:
    """Early and late rows, covered or not, are kept alike; the inclusion says k / n."""
    counts = np.zeros(4, int)
    for repeat in range(8):
        folder = tmp_path / str(repeat)
        with watch(
            tiny_cnn,
            name="net",
            profile=profile,
            sample_rate=1.0,
            state_dir=folder,
            capture=CaptureOptions(reservoir=10, seed=repeat, segments=0),
            options=OPTIONS,
        ) as one:
            for part in range(4):
                with request_context(segment=str(part)):
                    for _ in range(5):
                        tiny_cnn(images(4, part, 0.2))
            one.flush()
        found = captures_in(folder, CaptureKind.UNIFORM)
        assert len(found) == 10
        assert {capture.inclusion for capture in found} == {10 / 80}
        for capture in found:
            counts[int(capture.segment)] += 1
    assert counts.sum() == 80
    assert counts.min() >= 6, counts  # 20 expected, 3.7 standard deviation
    assert counts.max() <= 36, counts


def test_limits_hold(tiny_cnn: nn.Module, profile: Any, tmp_path: Path) -> None:
    """Bytes and count are never passed, drops are counted, and the extremes stay."""
    limit = CaptureOptions(
        max_count=12, max_bytes=15_000, max_sample_bytes=1000, reservoir=4, per_point=1, seed=1
    )
    batches = [images(6, seed, 5.0 + seed % 7) for seed in range(12)]
    largest = {
        name: max(float(row_maxima(tiny_cnn, batch)[name].max()) for batch in batches)
        for name in profile.points
    }
    with watch(
        tiny_cnn,
        name="net",
        profile=profile,
        sample_rate=1.0,
        state_dir=tmp_path,
        capture=limit,
        options=OPTIONS,
    ) as one:
        for batch in batches:
            tiny_cnn(batch)
            one.flush()
            paths = list_captures(tmp_path)
            assert len(paths) <= 12
            assert sum(path.stat().st_size for path in paths) <= 15_000
        requests = one.snapshot()[1].requests
    column = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.CAPTURE_LIMIT)
    assert requests[column] > 0
    kept = captures_in(tmp_path, CaptureKind.UNCOVERED)
    for index, name in enumerate(profile.points):
        assert max(float(capture.maxima[index]) for capture in kept) == np.float32(largest[name])


def redact(inputs: Any) -> Any:
    """Gives up rows that begin with a positive value, and raises on none."""
    return None if inputs["arg0"].ravel()[0] > 0 else inputs


def test_redaction_and_sessions(tiny_cnn: nn.Module, profile: Any, tmp_path: Path) -> None:
    """The host's function has the last word; the session's name is not on the disk."""
    batch = images(16, 5, 50.0)
    allowed = int((batch[:, 0, 0, 0] <= 0).sum())
    assert 0 < allowed < 16
    with watch(
        tiny_cnn,
        name="net",
        profile=profile,
        sample_rate=1.0,
        state_dir=tmp_path,
        capture=CaptureOptions(redact=redact),
        options=OPTIONS,
    ) as one:
        with request_context(session="alice@example.org"):
            tiny_cnn(batch)
        one.flush()
        requests = one.snapshot()[1].requests
    first = int(RequestColumn.ERROR_FIRST)
    assert requests[first : first + len(Stage)].sum() == 0
    found = captures_in(tmp_path, CaptureKind.UNCOVERED)
    assert len(found) == allowed
    assert all(capture.inputs["arg0"].ravel()[0] <= 0 for capture in found)
    assert len({capture.session for capture in found}) == 1
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"alice" not in path.read_bytes()


class InPlace(nn.Module):
    """Writes to its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mul_(0.0).add_(7.0))


def test_the_input_is_kept_as_it_came(tmp_path: Path) -> None:
    """Not as the model left it; bfloat16 comes back bit for bit."""
    model = InPlace().eval().to(torch.bfloat16)
    x = torch.tensor([[1.5, -2.25, 3.0]], dtype=torch.bfloat16)
    with (
        watch(
            model,
            name="net",
            sample_rate=1.0,
            state_dir=tmp_path,
            capture=CaptureOptions(),
            options=OPTIONS,
        ) as one,
        torch.inference_mode(),
    ):
        model(x)
        one.flush()
    (capture,) = captures_in(tmp_path)
    assert capture.bfloat16 == ("arg0",)
    assert capture.as_float32("arg0").tolist() == [[1.5, -2.25, 3.0]]
    assert capture.maxima.tolist() == [7.0]
