"""Which kind takes a model, and how it is observed: as the table of supported models says."""

import copy
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from calidrift_agent import WatchOptions
from calidrift_agent._attach import KINDS, AttachRequest, plan_attachment
from calidrift_agent.errors import AttachError

TABLE = Path(__file__).resolve().parents[2] / "contract" / "support_matrix.toml"
ROWS = tomllib.loads(TABLE.read_text(encoding="utf-8"))["row"]
CASES = [
    pytest.param(sample, row["kind"], strategy, id=sample)
    for row in ROWS
    for sample, strategy in zip(row["samples"], row["strategies"], strict=True)
]


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


class Hidden(nn.Module):
    def forward(self, x):
        return torch.tanh(x)


def in_place(model):
    model.compile(backend="eager")
    return model


def session():
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    weight = numpy_helper.from_array(torch.ones(4, 3).numpy(), "w")
    graph = helper.make_graph([node], "net", [given], [onnx.ValueInfoProto(name="y")], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


PLAIN = {
    "eager": net,
    "eager_bfloat16": lambda: net().bfloat16(),
    "compiled": lambda: torch.compile(net(), backend="eager"),
    "compiled_in_place": lambda: in_place(net()),
    "compiled_part": lambda: nn.Sequential(torch.compile(net(), backend="eager")),
    "encoder_layer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
    "onnx_session": session,
    "torchscript": lambda: torch.jit.trace(net(), torch.ones(1, 4)),
    "exported": lambda: torch.export.export(net(), (torch.ones(2, 4),)).module(),
    "callable": lambda: torch.relu,
    "module_without_layers": Hidden,
}


@pytest.fixture
def sample(request, name):
    """A model of the name that the table gives it."""
    get = request.getfixturevalue
    if name in PLAIN:
        return PLAIN[name]()
    if name.startswith("pt2e"):
        graph = get("copy_graph")(get("tiny_int8").graph)
        return graph if name == "pt2e" else torch.compile(graph, backend="eager")
    if name.startswith("torch_ao"):
        return copy.deepcopy(get("ao_stub" if name == "torch_ao_modules" else "ao_graph").model)
    settings = {
        "torchao_dynamic": "Int8DynamicActivationInt8WeightConfig",
        "torchao_weight_only": "Int8WeightOnlyConfig",
    }
    return get("quantize_torchao")(net(), settings[name])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript and torch.ao as a whole
@pytest.mark.parametrize(("name", "kind", "strategy"), CASES)
def test_a_model_is_taken_and_observed_as_the_table_says(sample, kind, strategy):
    before = dict(getattr(sample, "__dict__", {}))
    chosen = next(one for one in KINDS if one.recognises(sample))
    assert chosen.__name__.rpartition(".")[2] == kind
    attachment = plan_attachment(AttachRequest(sample, None, WatchOptions()))
    assert attachment.strategy == strategy
    assert attachment.points
    assert len(attachment.table) == len(attachment.points)
    assert dict(getattr(sample, "__dict__", {})).keys() - {"forward"} == before.keys() - {"forward"}


@pytest.mark.parametrize("given", ["text", 5, None, nn.Linear], ids=repr)
def test_what_nobody_takes(given):
    assert not any(kind.recognises(given) for kind in KINDS)
    with pytest.raises(AttachError, match="got"):
        plan_attachment(AttachRequest(given, None, WatchOptions()))
