import warnings

import pytest
import torch
from torch import nn

from calidrift_agent._points import discover, require_module, unwrap
from calidrift_agent._vocabulary import Role
from calidrift_agent.errors import AttachError


def names(model, **options):
    return [point.name for point in discover(model, **options).points]


def test_inputs_of_convolutions_and_linear_layers_and_outputs_of_embeddings():
    model = nn.ModuleDict(
        {
            "c1": nn.Conv1d(1, 1, 1),
            "c2": nn.Conv2d(1, 1, 1),
            "c3": nn.Conv3d(1, 1, 1),
            "t1": nn.ConvTranspose1d(1, 1, 1),
            "t2": nn.ConvTranspose2d(1, 1, 1),
            "t3": nn.ConvTranspose3d(1, 1, 1),
            "fc": nn.Linear(1, 1),
            "em": nn.Embedding(2, 2),
            "bag": nn.EmbeddingBag(2, 2),
            "norm": nn.LayerNorm(2),
            "act": nn.ReLU(),
        }
    )
    inputs = [f"{name}:input" for name in ("c1", "c2", "c3", "t1", "t2", "t3", "fc")]
    assert names(model) == [*inputs, "em:output", "bag:output"]
    assert discover(model).points[0].role is Role.INPUT
    assert discover(model).points[-1].role is Role.OUTPUT
    assert not discover(model).skipped


def test_outputs_on_request():
    assert names(nn.Sequential(nn.Linear(1, 1), nn.Embedding(2, 2)), outputs=True) == [
        "0:input",
        "0:output",
        "1:output",
    ]


def test_names_are_those_of_named_modules(tiny_cnn):
    expected = ["stem", "block.conv1", "block.conv2", "block.skip", "head"]
    assert names(tiny_cnn) == [f"{one}:input" for one in expected]
    assert [point.module for point in discover(tiny_cnn).points] == expected


def test_a_root_that_is_itself_a_layer_has_an_empty_module_name():
    assert names(nn.Linear(1, 1)) == [":input"]


def test_a_module_registered_twice_is_one_point_with_an_alias():
    shared = nn.Linear(2, 2)
    points = discover(nn.Sequential(shared, nn.ReLU(), shared)).points
    assert [(point.name, point.aliases) for point in points] == [("0:input", ("2:input",))]


def test_modules_that_cannot_be_observed_are_listed_with_the_reason():
    model = nn.ModuleDict(
        {
            "attn": nn.MultiheadAttention(4, 2),
            "rnn": nn.LSTM(2, 2),
            "cell": nn.GRUCell(2, 2),
            "two": nn.Bilinear(2, 2, 2),
            "lazy": nn.LazyLinear(2),
        }
    )
    discovery = discover(model)
    assert discovery.points == ()
    assert "never called" in discovery.skipped["attn.out_proj"]
    assert "in-projection" in discovery.skipped["attn"]
    assert "dynamically" in discovery.skipped["rnn"]
    assert "dynamically" in discovery.skipped["cell"]
    assert "two inputs" in discovery.skipped["two"]
    assert "not initialised" in discovery.skipped["lazy"]


def test_a_lazy_layer_is_a_point_once_it_has_run():
    model = nn.Sequential(nn.LazyLinear(2))
    model(torch.zeros(1, 3))
    assert names(model) == ["0:input"]


def test_a_compiled_model_is_looked_through(tiny_cnn):
    with warnings.catch_warnings():
        # torch 2.13 defines a deprecated TorchScript class while it imports Inductor.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.compile(tiny_cnn)
    assert unwrap(compiled) is tiny_cnn
    assert names(compiled) == names(tiny_cnn)


def test_a_quantized_graph_has_the_points_that_it_quantizes(tiny_int8):
    assert names(tiny_int8.graph) == [
        "stem:input",
        "block.conv1:input",
        "block.conv2:input",
        "block.add:input",
        "pool.adaptive_avg_pool2d:input",
        "flatten:input",
        "head:input",
    ]


@pytest.mark.parametrize("given", [None, 3, "model", nn.Linear, lambda x: x])
def test_what_is_not_a_model_is_refused(given):
    with pytest.raises(AttachError, match=r"only a torch\.nn\.Module"):
        require_module(given)


def test_a_torchscript_module_is_refused():
    with warnings.catch_warnings():
        # TorchScript is deprecated as a whole; that is why it is refused.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(nn.Linear(2, 2).eval(), torch.zeros(1, 2))
        scripted = torch.jit.script(nn.Linear(2, 2).eval())
    for model in (traced, scripted):
        with pytest.raises(AttachError, match="TorchScript"):
            discover(model)


def scripted(module, how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if how == "traced":
            return torch.jit.trace(module.eval(), torch.zeros(1, 4))
        made = torch.jit.script(module.eval())
        return torch.jit.freeze(made) if how == "frozen" else made


@pytest.mark.parametrize("how", ["scripted", "traced", "frozen"])
def test_a_torchscript_part_of_an_eager_model_is_reported_and_not_passed_over(how):
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4)))
    model = nn.Sequential(nn.Linear(4, 4), scripted(inner, how), nn.Linear(4, 4))

    found = discover(model)

    assert [point.name for point in found.points] == ["0:input", "2:input"]
    assert list(found.skipped) == ["1"], "once, not for every module inside"
    assert "TorchScript" in found.skipped["1"]


def test_a_module_beside_a_torchscript_one_with_a_longer_name_is_observed():
    model = nn.ModuleDict({"part": scripted(nn.Linear(4, 4), "scripted"), "part2": nn.Linear(4, 4)})

    assert names(model) == ["part2:input"]


class Experts(nn.Module):
    """Keeps the matrices of several experts stacked, and a matrix and a bias beside them."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, 8, 8))
        self.bias = nn.Parameter(torch.randn(8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 6, 8))
        self.counts = nn.Parameter(torch.ones(2, 2, dtype=torch.int64), requires_grad=False)
        self.gate = nn.Linear(8, 4)


def test_matrices_that_no_layer_holds_are_mentioned():
    found = discover(nn.Sequential(Experts(), nn.Linear(8, 8)))
    assert [point.name for point in found.points] == ["0.gate:input", "1:input"]
    assert list(found.skipped) == ["0"]
    assert "parameters of its own (up)" in found.skipped["0"]


def test_norms_and_parametrizations_own_no_such_matrices():
    weighted = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    norms = [nn.LayerNorm((6, 8)), nn.RMSNorm((6, 8)), nn.BatchNorm1d(6), nn.PReLU(6)]
    lazy = nn.Module()
    lazy.weight = nn.UninitializedParameter()
    assert not discover(nn.Sequential(weighted, *norms, lazy)).skipped
