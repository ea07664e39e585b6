"""(i) What an unsampled request pays: added µs per root call, at 10, 100 and 1,000 layers.

The layers of `held` are registered but not run, so that one call is short enough to resolve tens
of nanoseconds; the layers of `run` are all executed, to show that nothing grows with the network.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from gates import gate_of, take_out
from networks import chain
from paired import median_interval
from torch import Tensor, nn

from calidrift_agent import WatchOptions, watch

TARGET_US = 1.0


class Held(nn.Module):
    """Holds `layers` linear layers and gives its input back."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = chain(layers)

    def forward(self, x: Tensor) -> Tensor:
        return x


def per_call_us(model: nn.Module, x: Tensor, calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        model(x)
    return (time.perf_counter_ns() - start) * 1e-3 / calls


def added(
    model: nn.Module, gate: object | None, x: Tensor, calls: int, rounds: int
) -> tuple[float, float, float]:
    """Gives the median paired difference in µs per call with its 95 % interval.

    The gate is put into the model and taken out again: two copies of one network differ by more
    than the gate costs, by where their weights lie in memory. Without a gate it is the control.
    """
    differences = np.empty(rounds)
    for index in range(rounds):
        before = per_call_us(model, x, calls)
        if gate is not None:
            model.__dict__["forward"] = gate
        took = per_call_us(model, x, calls)
        model.__dict__.pop("forward", None)
        after = per_call_us(model, x, calls)
        differences[index] = took - (before + after) / 2
    low, high = median_interval(differences)
    return float(np.median(differences)), low, high


def main(quick: bool) -> dict[str, object]:
    rounds = 30 if quick else 150
    x = torch.randn(1, 8)
    result: dict[str, object] = {}
    print(f"Unsampled request: added µs per root call (target <= {TARGET_US} and flat)")
    options = WatchOptions(budget=None, drain_seconds=30.0)
    for kind in ("held", "run"):
        for layers in (10, 100, 1000):
            torch.manual_seed(0)
            model = (Held(layers) if kind == "held" else chain(layers)).eval()
            calls = 2000 if kind == "held" else max(2, 2000 // layers)
            with (
                torch.inference_mode(),
                watch(model, name="bench", sample_rate=1e-9, options=options),
            ):
                gate = model.__dict__.pop("forward")
                control = added(model, None, x, calls, rounds)
                median, low, high = added(model, gate, x, calls, rounds)
            print(
                f"  {kind:4s} {layers:5d} layers: {median:+7.3f} [{low:+.3f}, {high:+.3f}] µs"
                f"   A/A {control[0]:+7.3f} [{control[1]:+.3f}, {control[2]:+.3f}] µs"
            )
            result[f"{kind}_{layers}"] = {"us": median, "low": low, "high": high, "aa": control}
    for name, make in {"beside": beside, "edges": edges}.items():
        median, low, high = others(make, x, options, rounds)
        print(f"  {name}: {median:+.3f} [{low:+.3f}, {high:+.3f}] µs")
        result[name] = {"us": median, "low": low, "high": high}
    return result


def beside() -> object:
    """A compiled module, which is observed beside; its backend adds nothing of its own."""
    return torch.compile(Held(10).eval(), backend="eager")


def edges() -> object:
    """A function: its callers call the watch instead."""
    return lambda x: x


def others(
    make: Callable[[], object], x: Tensor, options: WatchOptions, rounds: int
) -> tuple[float, float, float]:
    """Gives the added µs per call of the other strategies, as `added` does."""
    model, differences = make(), np.empty(rounds)
    with torch.inference_mode():
        model(x)
        with watch(model, name="bench", sample_rate=1e-9, options=options) as one:
            gate = gate_of(one)
            watched = one if gate._attribute is None else model
            for index in range(rounds):
                gate.attach()
                took = per_call_us(watched, x, 2000)
                take_out(gate)
                differences[index] = took - per_call_us(model, x, 2000)
            gate.attach()
    low, high = median_interval(differences)
    return float(np.median(differences)), low, high
