"""Nothing the agent does may fail a request: every stage is broken, one after the other."""

import logging
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from calidrift_agent import (
    CaptureOptions,
    StateReader,
    Watch,
    WatchOptions,
    calibrate,
    watch,
)
from calidrift_agent._capture import list_captures
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage
from calidrift_agent.errors import ConfigurationError, ProfileMismatchError

OPTIONS = WatchOptions(budget=None, window_seconds=600.0, drain_seconds=3600.0, seed=1)
X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def errors(one: Watch) -> dict[str, int]:
    """Errors by stage, the ones that were counted only."""
    requests = one.snapshot()[1].requests
    first = int(RequestColumn.ERROR_FIRST)
    counted = {stage.value: int(requests[first + i]) for i, stage in enumerate(Stage)}
    return {stage: count for stage, count in counted.items() if count}


def drops(one: Watch, reason: DropReason) -> int:
    requests = one.snapshot()[1].requests
    return int(requests[RequestColumn.DROP_FIRST + list(DropReason).index(reason)])


@contextmanager
def broken(target: str, error: BaseException | None = None) -> Iterator[list[str]]:
    """Replace an attribute, given by its dotted path, by a function that raises.

    Yields a list that grows with each time that it did.
    """
    from importlib import import_module

    module, name = target.split(":")
    owner: Any = import_module(f"calidrift_agent.{module}")
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)

    raised: list[str] = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        raised.append(target)
        raise error or ZeroDivisionError("planted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, last, fail)
        yield raised


def wait_for(condition: Callable[[], object]) -> None:
    """Let the drain's thread work until something is so; 20 s at most."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


PLACES = [
    ("_observe._sampling:Sampler.row", Stage.SAMPLE),
    ("_observe._instead:rows_of", Stage.SAMPLE),
    ("_observe._instead:current_context", Stage.SAMPLE),
    ("_observe._intake:Intake.put", Stage.SAMPLE),
    ("_observe._instead:is_traced", Stage.SAMPLE),
    ("_observe._armed:arm", Stage.TAP),
    ("_taps._memory:Shelf.keep", Stage.TAP),
    ("_taps._fold:Folder.fold_ranges", Stage.DRAIN),
    ("_taps._harvest:Harvest.seen", Stage.DRAIN),
    ("_capture:CaptureWriter.offer", Stage.CAPTURE),
]


@pytest.mark.usefixtures("python_taps")
@pytest.mark.parametrize(("place", "stage"), PLACES, ids=[place for place, _ in PLACES])
def test_a_broken_stage_costs_no_request(
    tiny_cnn: nn.Module, tmp_path: Path, place: str, stage: Stage, caplog: Any
) -> None:
    """The output stays, the error is counted under its stage, and later requests are observed."""
    expected = tiny_cnn(X)
    with watch(
        tiny_cnn,
        name="net",
        sample_rate=1.0,
        state_dir=tmp_path,
        capture=CaptureOptions(),
        options=OPTIONS,
    ) as one:
        with broken(place), caplog.at_level(logging.WARNING, "calidrift_agent"):
            for _ in range(2):
                assert torch.equal(tiny_cnn(X), expected)
                one.snapshot()
        counted = errors(one)
        assert list(counted) == [stage]
        assert 2 <= counted[stage] < 20
        said = [r.message for r in caplog.records if "planted" in r.message]
        assert len(said) == 1, "an error is logged once per kind"
        assert one.report().active
        before = one.report().observed_calls
        assert torch.equal(tiny_cnn(X), expected)
        assert one.report().observed_calls == before + 1
        assert one.report().never_fired == ()
        assert errors(one) == counted


@pytest.mark.usefixtures("python_taps")
@pytest.mark.parametrize(("place", "stage"), PLACES, ids=[place for place, _ in PLACES])
def test_twenty_errors_in_a_row_end_the_watch(
    tiny_cnn: nn.Module, tmp_path: Path, place: str, stage: Stage
) -> None:
    """It lets go of the model and says so; 19 and one success do not."""
    expected = tiny_cnn(X)
    keys = [list(module.__dict__) for module in tiny_cnn.modules()]
    with watch(
        tiny_cnn,
        name="net",
        sample_rate=1.0,
        state_dir=tmp_path,
        capture=CaptureOptions(),
        options=OPTIONS,
    ) as one:
        for _ in range(40):
            with broken(place):
                assert torch.equal(tiny_cnn(X), expected)
                one.snapshot()
        if stage is Stage.CAPTURE:  # the observation itself went all the way
            assert one.report().active
            return
        report = one.report()
        assert not report.active
        assert any("too many errors in a row" in note for note in report.notes)
        assert [list(module.__dict__) for module in tiny_cnn.modules()] == keys
        seen = int(one.snapshot()[1].requests[RequestColumn.SEEN])
        assert torch.equal(tiny_cnn(X), expected)
        assert int(one.snapshot()[1].requests[RequestColumn.SEEN]) == seen


def test_a_broken_shadow_costs_no_request(tiny_int8: Any, copy_graph: Callable[[Any], Any]) -> None:
    """Beside as well: copying fails in the request, replaying fails in the drain."""
    graph = copy_graph(tiny_int8.graph)
    expected = graph(tiny_int8.example)
    with watch(graph, name="int8", sample_rate=1.0, options=OPTIONS) as one:
        for place in ("_observe._beside:copy_rows", "_observe._shadow:GraphShadow.run"):
            with broken(place):
                assert torch.equal(graph(tiny_int8.example), expected)
                one.snapshot()
        assert errors(one) == {"sample": 1, "shadow": 1}
        graph(tiny_int8.example)
        assert one.report().observed_calls == 1


def test_errors_with_successes_between_them_do_not_end_the_watch(tiny_cnn: nn.Module) -> None:
    """Only errors in a row count."""
    with watch(tiny_cnn, name="net", sample_rate=1.0, options=OPTIONS) as one:
        for _ in range(30):
            with broken("_observe._sampling:Sampler.row"):
                tiny_cnn(X)
            tiny_cnn(X)
            one.snapshot()
        assert one.report().active
        assert errors(one) == {"sample": 30}


def test_a_broken_drain_tick_is_counted(tiny_cnn: nn.Module) -> None:
    """The thread survives what its work raises."""
    options = WatchOptions(budget=None, window_seconds=600.0, drain_seconds=0.01)
    with watch(tiny_cnn, name="net", sample_rate=1.0, options=options) as one:
        with broken("_watch._books:Books.drain") as raised:
            tiny_cnn(X)
            wait_for(lambda: len(raised) >= 2)
        tiny_cnn(X)
        wait_for(lambda: one.report().observed_calls == 2)
        assert errors(one)["drain"] >= 1


@pytest.mark.parametrize("name", ["StateWriter.write_open", "StateWriter.write_closed"])
@pytest.mark.parametrize("kind", [OSError, ValueError, ZeroDivisionError])
def test_a_broken_state_write_goes_on_in_memory(
    tiny_cnn: nn.Module, tmp_path: Path, name: str, kind: type[Exception]
) -> None:
    """Counted as a state error; the counts themselves are all there."""
    options = WatchOptions(budget=None, window_seconds=600.0, drain_seconds=0.01)
    with watch(tiny_cnn, name="net", sample_rate=1.0, state_dir=tmp_path, options=options) as one:
        with broken(f"_state:{name}", kind("planted")) as raised:
            tiny_cnn(X)
            if name.endswith("closed"):
                one.flush()
            wait_for(lambda: raised)
        tiny_cnn(X)
        one.flush()
        assert one.report().observed_calls == 2
        assert one.report().active
        assert list(errors(one)) == ["state"]
        assert drops(one, DropReason.STATE_UNAVAILABLE) >= 1


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: a full disk for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_space_for_the_state_file(tiny_cnn: nn.Module, tmp_path: Path) -> None:
    """Memory only, counted; nothing is left in the directory but the lock of sweepers."""
    expected = tiny_cnn(X)
    with no_room(64 * 1024):
        one = watch(tiny_cnn, name="net", sample_rate=1.0, state_dir=tmp_path, options=OPTIONS)
    with one:
        assert torch.equal(tiny_cnn(X), expected)
        report = one.report()
        assert report.state_file is None
        assert report.observed_calls == 1
        assert errors(one) == {"state": 1}
        assert drops(one, DropReason.STATE_UNAVAILABLE) == 1
        one.flush()
        assert drops(one, DropReason.STATE_UNAVAILABLE) == 2
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in left if path.stat().st_size] == []
    assert {path.name for path in left} <= {".sweep.lock"}


def test_state_dir_that_cannot_be_used(tiny_cnn: nn.Module, tmp_path: Path) -> None:
    """Refused at once, in one sentence, and the model is as it was."""
    taken = tmp_path / "file"
    taken.write_text("not a folder")
    for folder in (taken, taken / "below", Path("/proc/calidrift")):
        with pytest.raises(ConfigurationError, match=r"state_dir .* cannot be used"):
            watch(tiny_cnn, name="net", state_dir=folder)
        assert "forward" not in tiny_cnn.__dict__


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_state_dir(tiny_cnn: nn.Module, tmp_path: Path) -> None:
    """Permissions are checked by trying."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigurationError, match=r"state_dir .* cannot be used"):
            watch(tiny_cnn, name="net", state_dir=tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert "forward" not in tiny_cnn.__dict__


def test_state_dir_removed_while_running(tiny_cnn: nn.Module, tmp_path: Path) -> None:
    """Requests go on, captures make their folder again, and closing is clean."""
    folder = tmp_path / "state"
    expected = tiny_cnn(X)
    with watch(
        tiny_cnn,
        name="net",
        sample_rate=1.0,
        state_dir=folder,
        capture=CaptureOptions(),
        options=OPTIONS,
    ) as one:
        tiny_cnn(X)
        one.flush()
        shutil.rmtree(folder)
        for _ in range(3):
            assert torch.equal(tiny_cnn(X), expected)
            one.flush()
        assert one.report().active
        assert one.report().observed_calls == 4
        assert one.report().state_file is None, "nobody can read what is written there"
        assert errors(one) == {"state": 1}
        assert drops(one, DropReason.STATE_UNAVAILABLE) == 3


def test_disk_full_for_captures(tiny_cnn: nn.Module, tmp_path: Path) -> None:
    """Dropped and counted by reason; the state file is not harmed, and room may come back."""
    profile = calibrate(tiny_cnn, [X * 0.01])
    with watch(
        tiny_cnn,
        name="net",
        profile=profile,
        sample_rate=1.0,
        state_dir=tmp_path,
        capture=CaptureOptions(reservoir=0),
        options=OPTIONS,
    ) as one:
        with no_room(100):
            tiny_cnn(X)
            one.flush()
        assert drops(one, DropReason.DISK_FULL) == 3
        assert errors(one) == {}
        assert list_captures(tmp_path / "captures") == []
        assert [path for path in (tmp_path / "captures").rglob("*") if path.is_file()] == []
        tiny_cnn(X)
        one.flush()
        assert len(list_captures(tmp_path / "captures")) == 3
        path = one.report().state_file
        assert path is not None
        with StateReader.open(path) as reader:
            assert reader.total().requests[RequestColumn.OBSERVED] == 2


def test_kill_file(tiny_cnn: nn.Module, tmp_path: Path) -> None:
    """A file named DISABLED switches a running watch off, and a new one is not begun."""
    options = WatchOptions(budget=None, drain_seconds=0.01)
    expected = tiny_cnn(X)
    with watch(tiny_cnn, name="net", sample_rate=1.0, state_dir=tmp_path, options=options) as one:
        tiny_cnn(X)
        (tmp_path / "DISABLED").touch()
        wait_for(lambda: not one.report().active)
        assert any("kill file" in note for note in one.report().notes)
        assert "forward" not in tiny_cnn.__dict__
        assert torch.equal(tiny_cnn(X), expected)
        assert one.report().observed_calls == 1
    with watch(tiny_cnn, name="net", sample_rate=1.0, state_dir=tmp_path) as off:
        assert torch.equal(tiny_cnn(X), expected)
        assert not off.report().active
        assert "forward" not in tiny_cnn.__dict__


def test_disabled_by_environment(
    tiny_cnn: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything can be asked of a watch that is off; no file appears."""
    monkeypatch.setenv("CALIDRIFT_DISABLED", "1")
    with watch(
        tiny_cnn, name="net", sample_rate=1.0, state_dir=tmp_path, capture=CaptureOptions()
    ) as off:
        tiny_cnn(X)
        assert "forward" not in tiny_cnn.__dict__
        report = off.report()
        assert (report.active, report.observed_calls, report.sampling_ratio) == (False, 0, 0.0)
        assert report.notes == ("switched off by CALIDRIFT_DISABLED",)
        off.flush()
        assert list(off.collector().collect()) is not None
    assert list(tmp_path.iterdir()) == []


class Idle(nn.Module):
    """One of its layers is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def test_a_point_that_never_fires_is_reported() -> None:
    """Silence is visible, and is not confused with "nothing was observed yet"."""
    model = Idle().eval()
    with watch(model, name="net", sample_rate=1.0, options=OPTIONS) as one:
        assert one.report().never_fired == ()
        model(torch.ones(1, 2))
        report = one.report()
        assert report.points == ("used:input", "idle:input")
        assert report.observed == ("used:input",)
        assert report.never_fired == ("idle:input",)


def test_profile_of_another_model_is_refused(tiny_cnn: nn.Module) -> None:
    """Other layers, or other weights; the message names what differs, the model is untouched."""
    other = calibrate(Idle().eval(), [torch.ones(2, 2)])
    with pytest.raises(ProfileMismatchError, match=r"idle:input|used:input|stem:input"):
        watch(tiny_cnn, name="net", profile=other)
    profile = calibrate(tiny_cnn, [X])
    with torch.no_grad():
        tiny_cnn.head.weight.add_(1.0)
    with pytest.raises(ProfileMismatchError, match="weights"):
        watch(tiny_cnn, name="net", profile=profile)
    assert "forward" not in tiny_cnn.__dict__
