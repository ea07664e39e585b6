"""(vi) A server with two request threads, watched and not, with one scrape a second.

Both states in turn, in blocks of a second or two; the ratio of the p50 and of the p99 of two
neighbouring blocks. The watch has its defaults: 1 % of requests at most, a budget of 1 %.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from children import leave, measure_apart
from gates import gate_of, take_out
from paired import median_interval
from prometheus_client import CollectorRegistry, generate_latest
from torch import Tensor

from calidrift_agent import Watch, calibrate, watch

THREADS = 2
QUANTILES = {"p50": 0.50, "p99": 0.99}
TARGETS = {"p50": 1.01, "p99": 1.05}


def serve(call: Callable[[Tensor], object], x: Tensor, seconds: float) -> np.ndarray:
    """Gives the latencies of two threads that call as often as they can for so long."""
    found: list[list[float]] = [[] for _ in range(THREADS)]
    end = time.perf_counter() + seconds

    def run(mine: list[float]) -> None:
        clock = time.perf_counter
        with torch.inference_mode():
            while (start := clock()) < end:
                call(x)
                mine.append(clock() - start)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.concatenate([np.array(mine) for mine in found])


@contextmanager
def scraped(one: Watch) -> Iterator[None]:
    """Asks for all metrics once a second, as Prometheus would."""
    registry, stop = CollectorRegistry(), threading.Event()
    registry.register(one.collector())

    def scrape() -> None:
        while not stop.wait(1.0):
            generate_latest(registry)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def compare(model: torch.nn.Module, x: Tensor, one: Watch, quick: bool) -> dict[str, object]:
    """Gives ratios of quantiles, watched ÷ plain, and plain ÷ plain as the control."""
    blocks, seconds = (3, 0.6) if quick else (30, 2.0)
    gate = gate_of(one)
    ratios: dict[str, list[float]] = {f"{q}{kind}": [] for q in QUANTILES for kind in ("", " A/A")}
    serve(model, x, seconds)
    for _ in range(blocks):
        take_out(gate)
        first = serve(model, x, seconds)
        gate.attach()
        with scraped(one):
            watched = serve(model, x, seconds)
        take_out(gate)
        second = serve(model, x, seconds)
        gate.attach()
        for name, q in QUANTILES.items():
            before, during, after = (np.quantile(part, q) for part in (first, watched, second))
            ratios[name].append(during / np.sqrt(before * after))
            ratios[f"{name} A/A"].append(after / before)
    found: dict[str, object] = {}
    for name, values in ratios.items():
        low, high = median_interval(np.array(values))
        median = float(np.median(values))
        target = f", target <= {TARGETS[name]}" if name in TARGETS else ""
        print(f"    {name}: {median:.4f} [{low:.4f}, {high:.4f}]{target}")
        found[name] = {"median": median, "low": low, "high": high}
    report = one.report()
    print(f"    observed {report.observed_calls} requests, ratio now {report.sampling_ratio:.2g}")
    return found


def eager(quick: bool) -> dict[str, object]:
    from networks import encoder

    model, x = encoder(1, 32)
    with torch.inference_mode():
        profile = calibrate(model, [x])
    with watch(model, name="bench", profile=profile) as one:
        return compare(model, x, one, quick)


def int8(quick: bool) -> dict[str, object]:
    from int8 import compiled, quantized_resnet18

    graph, images = quantized_resnet18(160)
    x = images[:1].clone()
    with torch.inference_mode():
        profile = calibrate(graph, [images])
        model = compiled(graph, x)
    with watch(model, name="bench", profile=profile) as one:
        return compare(model, x, one, quick)


KINDS = {"eager": eager, "int8": int8}


def main(quick: bool) -> dict[str, object]:
    print("A server with two request threads, 1 % budget, a scrape a second; watched ÷ plain")
    words = ["--quick"] if quick else []
    figures: dict[str, object] = {}
    for kind in KINDS:
        print(f"  {kind}", flush=True)
        figures[kind] = measure_apart("server", "--kind", kind, *words)
    return figures


if __name__ == "__main__":
    torch.set_num_threads(1)
    leave(KINDS[sys.argv[sys.argv.index("--kind") + 1]]("--quick" in sys.argv), sys.argv)
