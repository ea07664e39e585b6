"""(ii) and (iii) What a sampled pass costs, watched ÷ plain, with observers as peers.

`in-request` is what the request waits for; `total` adds the drain, run right after the request on
the same thread, so that nothing of it hides on the other core. `self` is the time inside the taps
(a clock around each tap, summed) as a share of the plain request. The peers are forward pre-hooks
with torch.ao observers on the same modules, the usual way to collect ranges from a live model.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from networks import encoder, resnet18
from paired import Ratio, paired
from peers import HookedObservers, histogram_observer, minmax_observer
from torch import Tensor, nn

from calidrift_agent import Watch, WatchOptions, calibrate, watch

IN_REQUEST_TARGET = 1.03
OPTIONS = WatchOptions(budget=None, drain_seconds=60.0, window_seconds=3600.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One network at one batch size, with its rounds and its target for the total."""

    name: str
    make: Callable[[], tuple[nn.Module, Tensor]]
    rounds: int
    total_target: float


CASES = (
    Case("encoder 1x32", lambda: encoder(1, 32), 150, 1.10),
    Case("encoder 8x64", lambda: encoder(8, 64), 24, 1.04),
    Case("resnet18 1x3x224x224", lambda: resnet18(1), 60, 1.04),
    Case("resnet18 8x3x224x224", lambda: resnet18(8), 12, 1.04),
)


class Watched:
    """A copy of a model under watch: calls with and without the drain, and time in its taps."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model = copy.deepcopy(model)
        self.x = x
        profile = calibrate(self.model, [x, x + 0.01 if x.is_floating_point() else x])
        self.watch: Watch = watch(
            self.model, name="bench", profile=profile, sample_rate=1.0, options=OPTIONS
        )
        assert self.watch._active is not None
        self.engine = self.watch._active.engine
        self.tap_ns: list[int] = []

    def in_request(self) -> None:
        self.model(self.x)

    def drain(self) -> None:
        """Empties the queue outside of the measured time."""
        call = self.engine.intake._calls[-1] if len(self.engine.intake) else None
        if call is not None and call.ranges is not None:
            self.tap_ns.append(call.ranges.own_ns)
        self.engine.tick()

    def total(self) -> None:
        self.model(self.x)
        self.engine.tick()


def modules_of(watched: Watched) -> list[str]:
    names = [point.rpartition(":")[0] for point in watched.watch.report().points]
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name in names if isinstance(watched.model.get_submodule(name), kinds)]


def measure(case: Case, rounds: int) -> dict[str, object]:
    model, x = case.make()
    watched = Watched(model, x)
    names = modules_of(watched)
    hooked = {}
    peers = {"MinMaxObserver": minmax_observer, "HistogramObserver": histogram_observer}
    for name, make in peers.items():
        twin = copy.deepcopy(model)
        hooked[name] = (twin, HookedObservers(twin, names, make))
    calls: dict[str, Callable[[], object]] = {"total": watched.total}
    for name, (twin, _observers) in hooked.items():
        calls[name] = lambda twin=twin: twin(x)
    with torch.inference_mode():
        in_request = paired(
            lambda: model(x),
            {"in-request": watched.in_request},
            rounds=rounds,
            after={"in-request": watched.drain},
        )
        for _twin, observers in hooked.values():
            observers.seconds = 0.0
        others = paired(lambda: model(x), calls, rounds=rounds)
    plain_ms = others["A/A"].baseline_ms
    self_time = {"calidrift": self_share(watched, plain_ms)}
    for name, (_twin, observers) in hooked.items():
        runs = rounds + 3
        self_time[name] = observers.seconds * 1e3 / runs / plain_ms * 100
    watched.watch.close()
    return show(case, in_request, others, self_time)


def self_share(watched: Watched, plain_ms: float) -> float:
    return float(np.median(watched.tap_ns)) * 1e-6 / plain_ms * 100


def show(
    case: Case, in_request: dict[str, Ratio], others: dict[str, Ratio], self_time: dict[str, float]
) -> dict[str, object]:
    base = others["A/A"].baseline_ms
    print(f"  {case.name}: plain {base:.1f} ms")
    for line in (
        in_request["A/A"].show(),
        in_request["in-request"].show(IN_REQUEST_TARGET),
        others["A/A"].show(),
        others["total"].show(case.total_target),
        others["MinMaxObserver"].show(),
        others["HistogramObserver"].show(),
    ):
        print(f"    {line}")
    share = ", ".join(f"{name} {value:.2f} %" for name, value in self_time.items())
    below = self_time["calidrift"] < self_time["MinMaxObserver"]
    print(f"    self-time: {share}; below MinMaxObserver: {'yes' if below else 'NO'}")
    added = (others["total"].median - 1) / (others["HistogramObserver"].median - 1)
    verdict = "met" if added <= 0.2 else "missed"
    print(f"    total added cost ÷ HistogramObserver's: {added:.3f} (target <= 0.2: {verdict})")
    return {
        "plain_ms": base,
        "in_request": as_row(in_request["in-request"]),
        **{name: as_row(ratio) for name, ratio in others.items()},
        "self_percent": self_time,
        "added_over_histogram": added,
    }


def as_row(ratio: Ratio) -> dict[str, float]:
    return {"median": ratio.median, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds}


def main(quick: bool) -> dict[str, object]:
    print("Sampled pass, watched ÷ plain, one thread")
    torch.set_num_threads(1)
    return {
        case.name: measure(case, max(3, case.rounds // 6) if quick else case.rounds)
        for case in CASES
    }
