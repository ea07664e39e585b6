"""Sampling and counting when requests come from many threads, and forwards that misbehave."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions, calibrate, request_context, watch
from calidrift_agent._vocabulary import CountColumn, DropReason, RequestColumn, Stage

OPTIONS = WatchOptions(budget=None, window_seconds=600.0, seed=3)
THREADS = 8


def run_threads(work: Callable[[int], None]) -> None:
    """Run `work(index)` in 8 threads that start together; the first error is raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def run(index: int) -> None:
        barrier.wait()
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a request hangs"
    if errors:
        raise errors[0]


def outcome(requests: Any) -> tuple[int, int, int, int, int]:
    """SEEN, SAMPLED, OBSERVED, errors, drops."""
    error, drop = int(RequestColumn.ERROR_FIRST), int(RequestColumn.DROP_FIRST)
    return (
        *(int(requests[c]) for c in list(RequestColumn)[:3]),
        int(requests[error : error + len(Stage)].sum()),
        int(requests[drop : drop + len(DropReason)].sum()),
    )


def test_no_count_is_lost_in_eight_threads(tiny_cnn: nn.Module) -> None:
    """SEEN, SAMPLED, OBSERVED, units, rows, elements and segments are exact; outputs too."""
    profile = calibrate(tiny_cnn, [torch.randn(8, 1, 8, 8)])
    inputs = [torch.randn(index + 1, 1, 8, 8) for index in range(THREADS)]
    expected = [tiny_cnn(x) for x in inputs]
    calls = 60

    with watch(tiny_cnn, name="net", profile=profile, sample_rate=1.0, options=OPTIONS) as one:

        def serve(index: int) -> None:
            for turn in range(calls):
                mode = torch.inference_mode if (index + turn) % 2 else torch.no_grad
                with mode(), request_context(segment=f"s{index % 2}"):
                    assert torch.equal(tiny_cnn(inputs[index]), expected[index])
                if turn % 20 == 0:
                    one.flush()

        run_threads(serve)
        total = one.snapshot()[1]
    rows = calls * sum(len(x) for x in inputs)
    assert outcome(total.requests) == (THREADS * calls,) * 3 + (0, 0)
    assert total.requests[RequestColumn.UNITS] == THREADS * calls
    assert (total.counts[:, CountColumn.ROWS] == rows).all()
    assert total.counts[0, CountColumn.ELEMENTS] == rows * 64
    assert {s.name: s.units for s in total.segments} == {
        "s0": THREADS * calls // 2,
        "s1": THREADS * calls // 2,
    }
    for module in tiny_cnn.modules():
        assert "forward" not in module.__dict__


def test_no_count_is_lost_beside(tiny_int8: Any, copy_graph: Callable[..., Any]) -> None:
    """The queue of one makes requests wait when nothing may be dropped."""
    graph = copy_graph(tiny_int8.graph)
    expected = graph(tiny_int8.example)
    with watch(graph, name="int8", sample_rate=1.0, options=OPTIONS) as one:

        def serve(index: int) -> None:
            for _ in range(5):
                assert torch.equal(graph(tiny_int8.example), expected)

        run_threads(serve)
        total = one.snapshot()[1]
    seen, sampled, observed, errors, drops = outcome(total.requests)
    assert (seen, sampled, errors) == (40, 40, 0)
    assert observed + drops == 40
    assert drops == 0


def test_every_request_is_seen_at_a_low_rate() -> None:
    """Decisions are consumed exactly once by racing threads."""
    model = nn.Linear(2, 2).eval()
    x = torch.zeros(1, 2)
    calls = 3000
    with watch(model, name="net", sample_rate=0.05, options=OPTIONS) as one:

        def serve(index: int) -> None:
            for _ in range(calls):
                model(x)

        with torch.inference_mode():
            run_threads(serve)
        seen, sampled, observed, errors, drops = outcome(one.snapshot()[1].requests)
    assert (seen, errors, drops) == (THREADS * calls, 0, 0)
    assert sampled == observed
    # Binomial(24000, 0.05): 1200 +- 34; 6 deviations.
    assert abs(sampled - 1200) < 204


def test_drops_are_counted_not_lost(tiny_cnn: nn.Module) -> None:
    """With a budget a full queue drops, and SAMPLED = OBSERVED + dropped."""
    options = WatchOptions(budget=1.0, drain_seconds=3600.0, window_seconds=86_400.0)
    x = torch.randn(1, 1, 8, 8)
    with watch(tiny_cnn, name="net", sample_rate=1.0, options=options) as one:

        def serve(index: int) -> None:
            for _ in range(80):
                tiny_cnn(x)

        run_threads(serve)
        seen, sampled, observed, errors, drops = outcome(one.snapshot()[1].requests)
    assert (seen, errors) == (80 * THREADS, 0)
    assert sampled == observed + drops


def decisions(calls: int, *, rate: float, read_each: int, seed: int | None) -> np.ndarray:
    """Which calls are sampled; statistics are read after each `read_each` calls."""
    model = nn.Linear(2, 2).eval()
    x = torch.zeros(1, 2)
    options = WatchOptions(budget=None, window_seconds=600.0, drain_seconds=3600.0, seed=seed)
    found = np.zeros(calls, bool)
    with (
        torch.inference_mode(),
        watch(model, name="net", sample_rate=rate, options=options) as one,
    ):
        before = 0
        for call in range(calls):
            with request_context(segment=f"{call}"):
                model(x)
            if (call + 1) % read_each == 0:
                after = int(one.snapshot()[1].requests[RequestColumn.SAMPLED])
                found[call] = after > before
                before = after
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_sampling_is_binomial_and_not_periodic(seed: int) -> None:
    """Reading the counters after each call neither consumes nor repeats decisions."""
    length = 3 * 4096
    found = decisions(length, rate=0.1, read_each=1, seed=seed)
    deviation = np.sqrt(length * 0.09)
    assert abs(found.sum() - 0.1 * length) < 5 * deviation
    # Gaps between samples are geometric: no fixed stride.
    gaps = np.diff(np.flatnonzero(found))
    assert len(set(gaps.tolist())) > 20
    assert 7.0 < gaps.std() < 12.0
    # A repeated table would agree with itself everywhere; independent ones agree by chance.
    blocks = found.reshape(3, 4096)
    both = int((blocks[0] & blocks[1]).sum()), int((blocks[1] & blocks[2]).sum())
    assert max(both) < 90, "the same decisions are used again"  # 41 +- 6.4 expected


def test_equal_seeds_decide_equally() -> None:
    """A seed makes a run repeatable, another one does not repeat it."""
    one, two, other = (decisions(300, rate=0.3, read_each=1, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


class Awkward(nn.Module):
    """Raises, holds a lock, counts its calls in an attribute, and calls itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.last = nn.Linear(3, 3)
        self.lock = threading.Lock()
        self.calls = 0
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor, depth: int = 0) -> torch.Tensor:
        with self.lock:
            self.calls += 1
            self.seen.append(self.calls)
            y = self.first(x)
            if bool((x > 100).any()):
                raise self.Refused(f"too large in call {self.calls}")
        if depth:
            return self(y, depth - 1)
        return self.last(y)

    class Refused(RuntimeError):
        """What this model raises."""


@pytest.mark.parametrize("sample_rate", [1.0, 0.0])
def test_errors_of_the_model_pass_unchanged(sample_rate: float) -> None:
    """Type, message and frames are the model's own; later requests are counted as before."""
    model = Awkward().eval()
    bad, good = torch.full((2, 3), 101.0), torch.ones(2, 3)
    with watch(model, name="net", sample_rate=sample_rate, options=OPTIONS) as one:
        for turn in range(30):  # more than the errors in a row that end a watch
            with pytest.raises(Awkward.Refused, match=f"^too large in call {2 * turn + 1}$"):
                model(bad)
            model(good)
        assert one.report().active
        seen, sampled, observed, errors, drops = outcome(one.snapshot()[1].requests)
    observing = 60 if sample_rate else 0
    assert (seen, sampled, errors, drops) == (60, observing, 0, 0)
    assert observed == observing // 2
    assert model.calls == 60
    assert model.seen == list(range(1, 61))


def test_base_exceptions_pass_and_leave_no_tap() -> None:
    """KeyboardInterrupt in a forward, then ordinary requests."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval()
    handle = model[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with watch(model, name="net", sample_rate=1.0, options=OPTIONS) as one:
        with pytest.raises(KeyboardInterrupt):
            model(torch.ones(2, 3))
        assert "forward" not in model[0].__dict__
        handle.remove()
        model(torch.ones(2, 3))
        assert one.report().observed_calls == 1
        assert one.report().never_fired == ()


def test_attributes_and_locks_under_threads() -> None:
    """What forwards write stays written; a call inside a call is part of the outer one."""
    model = Awkward().eval()
    x = torch.ones(2, 3)
    expected = Awkward.forward(model, x, 2)
    model.calls = 0
    with watch(model, name="net", sample_rate=1.0, options=OPTIONS) as one:

        def serve(index: int) -> None:
            for _ in range(20):
                assert torch.equal(model(x, depth=2), expected)

        run_threads(serve)
        assert model.calls == 3 * 20 * THREADS
        requests = one.snapshot()[1].requests
        assert requests[RequestColumn.OBSERVED] == 20 * THREADS
        assert requests[RequestColumn.SEEN] == 3 * 20 * THREADS
