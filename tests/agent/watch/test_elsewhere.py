"""Tensors of another device: nothing is asked of it, and that nothing was observed is said.

The stand-in for a GPU is the meta device: a tensor there has no data, so whatever would wait for a
GPU to know them (`.item()`, `.cpu()`, `bool()`, a copy) fails here.
"""

import pytest
import torch

from calidrift_agent._observe._suitable import ELSEWHERE, NESTED, why_unsuitable
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage

UNSUITABLE = RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.UNSUITABLE_INPUT)
ERRORS = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))


def nested():
    return torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=torch.jagged)


class Hop(torch.nn.Module):
    """Inputs on the CPU, layers elsewhere."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.to("meta"))


@pytest.fixture
def strict(monkeypatch):
    """Whatever fails is raised."""
    monkeypatch.setenv("CALIDRIFT_STRICT", "1")


def test_a_call_with_inputs_elsewhere_is_not_observed(strict, net, x, watch_all):
    watch = watch_all(net.to("meta"))
    for _ in range(3):
        assert net(x.to("meta")).is_meta
    total = watch.flush().requests
    assert total[RequestColumn.SAMPLED] == 3
    assert total[RequestColumn.OBSERVED] == total[ERRORS].sum() == 0
    assert total[UNSUITABLE] == 3
    assert any("another device" in note for note in watch.report().notes)


def test_layers_elsewhere_are_points_that_never_fired(strict, net, x, watch_all):
    watch = watch_all(Hop(net.to("meta")))
    for _ in range(2):
        watch(x)
    report = watch.report()
    assert report.observed == ()
    total = watch.flush().requests
    assert total[RequestColumn.OBSERVED] == total[ERRORS].sum() == 0
    assert any("no point fired in 2 sampled calls" in note for note in report.notes)


def test_back_on_the_cpu_it_is_observed_again(strict, net, x, watch_all):
    weights = net.state_dict()
    watch = watch_all(net.to("meta"))
    net(x.to("meta"))
    net.load_state_dict(weights, assign=True)
    net(x)
    assert watch.report().observed_calls == 1


def test_a_shadow_pass_copies_nothing_from_elsewhere(strict, tiny_int8, copy_graph, watch_all):
    graph = copy_graph(tiny_int8.graph)
    watch = watch_all(graph)
    watch._active.gate.own = lambda x: x  # the host's graph, as far as the agent can see
    graph(tiny_int8.example.to("meta"))
    total = watch.flush().requests
    assert total[UNSUITABLE] == 1
    assert total[RequestColumn.OBSERVED] == total[ERRORS].sum() == 0


@pytest.mark.parametrize(
    ("args", "kwargs", "found"),
    [
        ((torch.ones(2), 3, "text", None), {}, ""),
        ((torch.ones(2, device="meta"),), {}, ELSEWHERE),
        ((), {"x": torch.ones(2, device="meta")}, ELSEWHERE),
        (([torch.ones(1), {"a": torch.ones(1, device="meta")}],), {}, ELSEWHERE),
        (([torch.ones(1), {"a": torch.ones(1)}],), {"y": (1, 2)}, ""),
        ((nested(),), {}, NESTED),
        ((1, [{"a": nested()}]), {}, NESTED),
        ((), {"x": nested()}, NESTED),
    ],
)
def test_where_inputs_are(args, kwargs, found):
    assert why_unsuitable(args, kwargs) == found
