"""Layers that exist but are not observed are named, with the reason."""

import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions, watch
from calidrift_agent._attach._apart import kept_apart, unobserved
from calidrift_agent._points import discover
from calidrift_agent._vocabulary import Strategy

QUIET = WatchOptions(budget=None, drain_seconds=3600, window_seconds=86_400, seed=0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        for name, one in sorted(vars(self).items()):
            if name.startswith("kept"):
                for layer in one.values() if isinstance(one, dict) else one:
                    x = layer(x)
        return self.fc(x)


@pytest.fixture
def net():
    return Net().eval()


def look(model):
    return unobserved(model, discover(model).points)


def test_nothing_to_report(net):
    net.alias = net.fc
    net.kept = [net.fc, nn.ReLU(), torch.relu, 5, "text", torch.ones(1)]
    assert look(net) == {}


def test_layers_that_were_added(net):
    points = discover(net).points
    net.adapter = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))
    net.table = nn.Embedding(3, 2)
    found = unobserved(net, points)
    assert list(found) == ["adapter.0", "adapter.2", "table"]
    assert set(found.values()) == {
        "it was added after watch(): close this watch and call watch() again to observe it"
    }


def test_a_layer_that_was_wrapped(net):
    points = discover(net).points
    net.fc = nn.Sequential(net.fc, nn.Linear(4, 4))
    assert list(unobserved(net, points)) == ["fc.0", "fc.1"]


def test_another_name_of_a_known_layer_is_none(net):
    points = discover(net).points
    net.alias = net.fc
    assert unobserved(net, points) == {}
    del net.alias
    assert unobserved(net, points, outputs=True) == {"fc": look_reason(net, points)}


def look_reason(net, points):
    """Outputs are points of their own."""
    return unobserved(net, points, outputs=True)["fc"]


@pytest.mark.parametrize(
    ("kept", "places"),
    [
        ([nn.Linear(4, 4), nn.ReLU()], ["kept[0]"]),
        ((nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Linear(4, 4))), ["kept[1].1"]),
        ({"a": nn.Linear(4, 4)}, ["kept['a']"]),
        ({"a": {"b": [nn.Linear(4, 4)]}}, ["kept['a']['b'][0]"]),
        ([[[[[nn.Linear(4, 4)]]]]], []),  # too deep to be looked for
        ([torch.compile(nn.Linear(4, 4), backend="eager")], ["kept[0]"]),
    ],
    ids=["list", "tuple", "dict", "nested", "deep", "compiled"],
)
def test_layers_in_plain_containers(net, kept, places):
    net.kept = kept
    found = look(net)
    assert list(found) == places
    assert all("torch.nn.ModuleList" in reason for reason in found.values())


def test_a_module_that_was_kept_from_being_registered(net):
    inner = nn.Sequential(nn.Linear(2, 2))
    object.__setattr__(net, "hidden", inner)
    net.part = nn.Sequential(net.fc)
    net.part.more = (nn.Linear(2, 2),)
    assert sorted(look(net)) == ["hidden.0", "part.more[0]"]
    assert {place for place, _ in kept_apart(net)} == {"hidden", "part.more[0]"}


@pytest.mark.parametrize("compiled", [False, True])
def test_the_report_names_them(net, compiled):
    torch._dynamo.reset()
    net.kept = [nn.Linear(4, 4)]
    served = torch.compile(net, backend="eager") if compiled else net
    with watch(served, name="net", sample_rate=1.0, options=QUIET) as one, torch.no_grad():
        assert list(one.report().skipped) == ["kept[0]"]
        net.adapter = nn.Linear(4, 4)
        expected = net.fc(net.kept[0](torch.ones(1, 4)))
        assert torch.equal(served(torch.ones(1, 4)), expected)
        report = one.report()
        assert sorted(report.skipped) == ["adapter", "kept[0]"]
        assert report.points == ("fc:input",)
        del net.adapter
        assert list(one.report().skipped) == ["kept[0]"]
    torch._dynamo.reset()


def test_a_report_survives_a_model_that_cannot_be_walked(net):
    with watch(net, name="net", sample_rate=1.0, options=QUIET) as one:
        net.odd = {}
        net.odd["self"] = net.odd  # deeper than is looked
        net.__dict__["broken"] = type("Broken", (dict,), {"items": lambda _: 1 / 0})()
        assert dict(one.report().skipped) == {}


@pytest.mark.parametrize("way", ["wrapper", "function", "attribute"])
def test_compiled_parts_over_observed_layers_are_never_given_taps(net, way):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    if way == "wrapper":
        net.kept = [torch.compile(net.fc, backend="eager", fullgraph=True)]
    elif way == "function":
        net.kept = {"f": torch.compile(net.fc.forward, backend="eager", fullgraph=True)}
    else:
        object.__setattr__(net, "kept", (torch.compile(net.fc, backend="eager"),))
    x = torch.ones(1, 4)
    with torch.no_grad():
        expected = net(x)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        with watch(net, name="net", sample_rate=1.0, options=QUIET) as one:
            for _ in range(3):
                assert torch.equal(net(x), expected)
            report = one.report()
    assert report.strategy is Strategy.EDGES
    assert "is compiled by itself" in report.skipped["fc"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs == 1
    torch._dynamo.reset()
