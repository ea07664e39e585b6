"""(vii) What 1 % of one core buys: observed requests per second, for each way of observing.

The agent's own time for one observed request is what it counts itself: in the request, in the
drain, and in the shadow pass. The share is that of all requests where one thread does nothing else.
"""

import sys
from collections.abc import Callable

import torch
from children import leave, measure_apart
from torch import Tensor, nn

from calidrift_agent import WatchOptions, calibrate, watch
from calidrift_agent._vocabulary import RequestColumn

BUDGET = 0.01
OPTIONS = WatchOptions(budget=None, drain_seconds=3600.0, window_seconds=86_400.0)


def instead() -> tuple[object, Tensor, object]:
    from networks import encoder

    model, x = encoder(1, 32)
    return model, x, calibrate(model, [x])


def beside_compiled() -> tuple[object, Tensor, object]:
    from networks import encoder

    model, x = encoder(1, 32)
    profile = calibrate(model, [x])
    made = torch.compile(model)
    made(x)
    return made, x, profile


def beside_int8() -> tuple[object, Tensor, object]:
    from int8 import compiled, quantized_resnet18

    graph, images = quantized_resnet18(160)
    x = images[:1].clone()
    return compiled(graph, x), x, calibrate(graph, [images])


def edges() -> tuple[object, Tensor, object]:
    layer = nn.Linear(384, 384).eval()
    return (lambda x: layer(x)), torch.randn(8, 64, 384), None


KINDS: dict[str, Callable[[], tuple[object, Tensor, object]]] = {
    "instead, eager encoder 1x32": instead,
    "beside, compiled encoder 1x32": beside_compiled,
    "beside, compiled INT8 ResNet-18": beside_int8,
    "edges, a function of 8x64x384": edges,
}


def here(kind: str, quick: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    with torch.no_grad():
        model, x, profile = KINDS[kind]()
    with (
        torch.inference_mode(),
        watch(model, name="bench", profile=profile, sample_rate=1.0, options=OPTIONS) as one,
    ):
        call = one if not isinstance(model, nn.Module) else model
        for _ in range(5):
            call(x)
        before = one.snapshot()[1].requests
        for _ in range(10 if quick else 100):
            call(x)
            one.flush()
        spent = one.snapshot()[1].requests - before
    observed = int(spent[RequestColumn.OBSERVED])
    own = float(spent[RequestColumn.OVERHEAD_NS]) * 1e-9 / observed
    forward = float(spent[RequestColumn.FORWARD_NS]) * 1e-9 / int(spent[RequestColumn.SEEN])
    rate, share = BUDGET / own, min(1.0, BUDGET * forward / own)
    print(
        f"  {kind}: {own * 1e3:.2f} ms for one observed request of {forward * 1e3:.2f} ms; "
        f"{rate:.2g} a second, {share:.2%} of requests"
    )
    return {"own_ms": own * 1e3, "request_ms": forward * 1e3, "per_second": rate, "share": share}


def main(quick: bool) -> dict[str, object]:
    print(f"What {BUDGET:.0%} of one core buys")
    words = ["--quick"] if quick else []
    return {kind: measure_apart("budget", "--kind", kind, *words) for kind in KINDS}


if __name__ == "__main__":
    leave(here(sys.argv[sys.argv.index("--kind") + 1], "--quick" in sys.argv), sys.argv)
