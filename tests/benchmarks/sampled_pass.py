"""(ii) and (iii) What a sampled pass costs, watched ÷ plain, with observers as peers.

`in-request` is what the request waits for; `total` adds the drain, run right after the request on
the same thread, so that nothing of it hides on the other core. `self` is the time inside the taps
(a clock around each tap, summed) as a share of the plain request. The peers are forward pre-hooks
with torch.ao observers on the same modules, the usual way to collect ranges from a live model.

Everything twice: with the native tap, and with torch and numpy alone; each in a process of its own.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from children import leave, measure_apart
from networks import encoder, resnet18
from paired import Ratio, Variant, paired
from peers import HookedObservers, histogram_observer, minmax_observer
from torch import Tensor, nn

from calidrift_agent import Watch, WatchOptions, calibrate, watch
from calidrift_agent._taps import Tap
from calidrift_agent._taps._native import NATIVE

IN_REQUEST_TARGET = 1.03 if NATIVE is None else 1.01
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
    """A model under watch whose gate can be put in and taken out between two calls."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        profile = calibrate(model, [x, x + 0.01 if x.is_floating_point() else x])
        self.model = model
        self.watch: Watch = watch(
            model, name="bench", profile=profile, sample_rate=1.0, options=OPTIONS
        )
        assert self.watch._active is not None
        self.engine = self.watch._active.engine
        self._gate = model.__dict__.pop("forward")
        self.tap_ns: list[int] = []

    def attach(self) -> None:
        self.model.__dict__["forward"] = self._gate

    def detach(self) -> None:
        """Takes the gate out and empties the queue, outside of the measured time."""
        del self.model.__dict__["forward"]
        if len(self.engine.intake):
            recorder = self.engine.intake._calls[-1].ranges
            assert recorder is not None
            self.tap_ns.append(recorder.own_ns)
        self.engine.tick()


def modules_of(watched: Watched) -> list[str]:
    names = [point.rpartition(":")[0] for point in watched.watch.report().points]
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name in names if isinstance(watched.model.get_submodule(name), kinds)]


def measure(case: Case, rounds: int) -> dict[str, object]:
    model, x = case.make()
    watched = Watched(model, x)
    names = modules_of(watched)
    peers = {
        "MinMaxObserver": HookedObservers(model, names, minmax_observer),
        "HistogramObserver": HookedObservers(model, names, histogram_observer),
    }

    def request() -> None:
        model(x)

    def request_and_drain() -> None:
        model(x)
        watched.engine.tick()

    variants = {
        "in-request": Variant(request, watched.attach, watched.detach),
        "total": Variant(request_and_drain, watched.attach, watched.detach),
    }
    for name, peer in peers.items():
        variants[name] = Variant(request, peer.attach, peer.detach)
    with torch.inference_mode():
        ratios = paired(request, variants, rounds=rounds)
    plain_ms = ratios["A/A"].baseline_ms
    self_time = {"calidrift": share(watched.tap_ns, plain_ms)}
    for name, peer in peers.items():
        self_time[name] = share(peer.nanoseconds, plain_ms)
    watched.attach()
    watched.watch.close()
    targets = {"in-request": IN_REQUEST_TARGET, "total": case.total_target}
    return show(case, ratios, self_time, targets)


def share(nanoseconds: list[int], plain_ms: float) -> float:
    """Gives the median of times per request as % of the plain request."""
    return float(np.median(nanoseconds)) * 1e-6 / plain_ms * 100


def show(
    case: Case, ratios: dict[str, Ratio], self_time: dict[str, float], targets: dict[str, float]
) -> dict[str, object]:
    base = ratios["A/A"].baseline_ms
    print(f"  {case.name}: plain {base:.1f} ms")
    for name, ratio in ratios.items():
        print(f"    {ratio.show(targets.get(name))}")
    shares = ", ".join(f"{name} {value:.2f} %" for name, value in self_time.items())
    over = self_time["calidrift"] / self_time["MinMaxObserver"]
    print(f"    self-time: {shares}; {over:.2f} of MinMaxObserver's")
    added = (ratios["total"].median - 1) / (ratios["HistogramObserver"].median - 1)
    print(f"    total added cost ÷ HistogramObserver's: {added:.3f}")
    return {
        "plain_ms": base,
        **{name: as_row(ratio) for name, ratio in ratios.items()},
        "self_percent": self_time,
        "self_over_minmax": over,
        "over_histogram": added,
    }


def as_row(ratio: Ratio) -> dict[str, float]:
    return {"median": ratio.median, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds}


def here(quick: bool, threads: int) -> dict[str, object]:
    """Measures in this process, with the tap that it has."""
    torch.set_num_threads(threads)
    native = Tap.__module__.endswith("_tap") and "python" not in Tap.__module__
    print(f"Sampled pass, watched ÷ plain, {threads} thread(s), {'native' if native else 'python'}")
    shorter = 6 if quick else 1 if threads == 1 else 4
    return {case.name: measure(case, max(3, case.rounds // shorter)) for case in CASES}


def main(quick: bool) -> dict[str, object]:
    words = ["--quick"] if quick else []
    figures: dict[str, object] = {}
    for kind, off in (("native", "0"), ("python", "1")):
        if kind == "native" and NATIVE is None:
            continue
        figures[kind] = measure_apart("sampled_pass", *words, CALIDRIFT_NO_NATIVE=off)
        figures[f"{kind}, 2 threads"] = measure_apart(
            "sampled_pass", "--threads", "2", *words, CALIDRIFT_NO_NATIVE=off
        )
    return figures


if __name__ == "__main__":
    given = sys.argv[1:]
    wanted = int(given[given.index("--threads") + 1]) if "--threads" in given else 1
    leave(here("--quick" in given, wanted), given)
