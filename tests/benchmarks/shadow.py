"""(v) What a shadow pass of one row costs, in compiled INT8 requests of one and of eight rows.

Both instruments: the graph with its activation quantizers bypassed, and in place; with the drain.
Beside it the floor: two plain eager passes of the FP32 network with one row, of which nothing is
observed. What the pass costs beyond that is ours; the floor itself is torch's.
"""

import sys
from functools import partial

import numpy as np
import torch
from children import leave, measure_apart
from gates import gate_of, take_out
from paired import clock, median_interval

SIZE = 160
TARGET = 1.5


def here(quick: bool) -> dict[str, object]:
    import networks
    from int8 import compiled, quantized_resnet18

    from calidrift_agent import WatchOptions, watch

    torch.set_num_threads(1)
    graph, images = quantized_resnet18(SIZE)
    row = images[:1].clone()
    model, eager = compiled(graph, images, row), networks.ResNet18().eval()
    options = WatchOptions(budget=None, drain_seconds=3600.0, window_seconds=86_400.0)
    found: dict[str, object] = {}
    with (
        torch.inference_mode(),
        watch(model, name="bench", sample_rate=1.0, options=options) as one,
    ):
        assert one._active is not None
        engine, gate = one._active.engine, gate_of(one)
        for batch in (8, 1):
            x = images[:batch].clone()
            plain, passes, floors = [], [], []
            for _ in range(2):
                model(x)
                engine.tick()
                eager(row)
            for _ in range(4 if quick else 30):
                take_out(gate)
                before = clock(partial(model, x))
                gate.attach()
                model(x)
                took = clock(engine.tick)
                take_out(gate)
                after = clock(partial(model, x))
                gate.attach()
                plain.append((before + after) / 2)
                passes.append(took / plain[-1])
                floors.append(2 * clock(partial(eager, row)) / plain[-1])
            low, high = median_interval(np.array(passes))
            median, floor = float(np.median(passes)), float(np.median(floors))
            verdict = f" (target <= {TARGET})" if batch == 8 else ""
            print(
                f"  request of {batch}: {np.median(plain) * 1e3:.1f} ms; one-row shadow pass and "
                f"drain ÷ request {median:.2f} [{low:.2f}, {high:.2f}]{verdict}; floor {floor:.2f}"
            )
            found[f"over_batch_{batch}"] = {
                "median": median,
                "low": low,
                "high": high,
                "floor": floor,
            }
            found[f"request_{batch}_ms"] = float(np.median(plain)) * 1e3
    return found


def main(quick: bool) -> dict[str, object]:
    print(f"Shadow pass of a PT2E INT8 ResNet-18 at {SIZE} x {SIZE}, one thread")
    return measure_apart("shadow", *(["--quick"] if quick else []))


if __name__ == "__main__":
    leave(here("--quick" in sys.argv), sys.argv)
