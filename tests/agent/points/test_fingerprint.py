import copy
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import calidrift_agent
from calidrift_agent._points import cpu_isa, fingerprint_of
from calidrift_agent.errors import AttachError


def test_equal_models_have_equal_fingerprints(tiny_cnn):
    one = fingerprint_of(tiny_cnn, data="d", preprocessing="p")
    assert one == fingerprint_of(copy.deepcopy(tiny_cnn), data="d", preprocessing="p")
    assert (one.data, one.preprocessing) == ("d", "p")
    assert one.versions["torch"] == torch.__version__
    assert one.versions["calidrift"] == calidrift_agent.__version__
    assert len(one.weights) == len(one.graph) == 64
    assert pickle.loads(pickle.dumps(one)) == one


def test_one_changed_weight_is_another_model_with_the_same_graph(tiny_cnn):
    before = fingerprint_of(tiny_cnn)
    with torch.no_grad():
        tiny_cnn.head.bias[3] += 1e-6
    after = fingerprint_of(tiny_cnn)
    assert before.weights != after.weights
    assert before.graph == after.graph


def test_another_dtype_is_another_model(tiny_cnn):
    before = fingerprint_of(tiny_cnn).weights
    assert fingerprint_of(tiny_cnn.to(torch.bfloat16)).weights != before


def test_a_changed_setting_is_another_graph(tiny_cnn):
    before = fingerprint_of(tiny_cnn)
    tiny_cnn.stem.stride = (2, 2)
    after = fingerprint_of(tiny_cnn)
    assert before.weights == after.weights
    assert before.graph != after.graph


def test_compiling_changes_nothing(tiny_cnn):
    with warnings.catch_warnings():
        # torch 2.13 defines a deprecated TorchScript class while it imports Inductor.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.compile(tiny_cnn)
    assert fingerprint_of(compiled) == fingerprint_of(tiny_cnn)


def test_saving_and_loading_a_graph_changes_nothing(mixed, tiny_int8, save_and_load):
    assert fingerprint_of(mixed.reloaded) == fingerprint_of(mixed.graph)
    batch = torch.export.Dim("batch", min=2, max=1024)
    reloaded = save_and_load(tiny_int8.graph, (tiny_int8.example,), dynamic_shapes=({0: batch},))
    assert fingerprint_of(reloaded) == fingerprint_of(tiny_int8.graph)


def test_weights_that_a_graph_does_not_read_do_not_count(tiny_int8, copy_graph):
    stripped = copy_graph(tiny_int8.graph)
    used = {str(node.target) for node in stripped.graph.nodes if node.op == "get_attr"}
    dead = [name for name, _ in stripped.named_parameters() if name not in used]
    assert dead
    for name in dead:
        owner, _, attribute = name.rpartition(".")
        delattr(stripped.get_submodule(owner), attribute)
    assert fingerprint_of(stripped) == fingerprint_of(tiny_int8.graph)


def test_another_range_is_another_graph(tiny_int8, copy_graph):
    changed = copy_graph(tiny_int8.graph)
    for node in changed.graph.nodes:
        if "quantize_per_tensor" in str(node.target):
            node.args = (node.args[0], node.args[1] * 2, *node.args[2:])
    changed.recompile()
    before, after = fingerprint_of(tiny_int8.graph), fingerprint_of(changed)
    assert before.weights == after.weights
    assert before.graph != after.graph


def test_another_operation_is_another_graph(tiny_int8, copy_graph):
    changed = copy_graph(tiny_int8.graph)
    node = next(one for one in changed.graph.nodes if "aten.relu" in str(one.target))
    node.target = torch.ops.aten.gelu.default
    changed.recompile()
    assert fingerprint_of(changed).graph != fingerprint_of(tiny_int8.graph).graph


def test_unusual_tensors_have_fingerprints():
    model = nn.Module()
    model.register_buffer("none", torch.zeros(0))
    model.register_buffer("scalar", torch.tensor(3))
    model.register_buffer("flags", torch.tensor([True, False]))
    model.register_buffer("strided", torch.arange(6.0).reshape(2, 3).t())
    model.register_buffer("sparse", torch.eye(2).to_sparse())
    one = fingerprint_of(model)
    model.strided = model.strided.contiguous()
    assert fingerprint_of(model) == one
    model.flags = torch.tensor([True, True])
    assert fingerprint_of(model).weights != one.weights


def test_what_is_not_a_model_is_refused():
    with pytest.raises(AttachError):
        fingerprint_of("model")


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        ("fpu avx avx2 fma", "avx2"),
        ("avx2 avx512f avx512_vnni amx_int8", "amx avx2 avx512 avx512_vnni"),
        ("avx2 avx_vnni", "avx2 avx_vnni"),
        ("fpu sse2", "baseline"),
    ],
)
def test_instruction_sets_are_read_from_the_kernel(tmp_path: Path, flags, isa):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    assert cpu_isa(file) == isa


def test_instruction_sets_are_unknown_elsewhere(tmp_path: Path):
    assert cpu_isa(tmp_path / "missing") == "unknown"
    other = tmp_path / "cpuinfo"
    other.write_text("processor\t: 0\nFeatures\t: asimd\n")
    assert cpu_isa(other) == "unknown"


def test_where_a_dynamic_size_is_read_from_does_not_matter(mixed, copy_graph):
    changed = copy_graph(mixed.graph)
    x = next(node for node in changed.graph.nodes if node.op == "placeholder")
    (size,) = [one for one in changed.graph.nodes if "sym_size" in str(one.target)]
    assert size.args[0] is not x
    size.args = (x, *size.args[1:])
    changed.recompile()
    assert fingerprint_of(changed) == fingerprint_of(mixed.graph)


class Buffered(nn.Module):
    def __init__(self, tensor):
        super().__init__()
        self.register_buffer("table", tensor)


@pytest.mark.parametrize(
    "form",
    [
        lambda values: values.to_sparse(),
        lambda values: torch.quantize_per_tensor(values, 1.0, 0, torch.qint32),
        lambda values: torch.complex(values, values).conj(),
    ],
    ids=["sparse", "quantized", "conjugated"],
)
@pytest.mark.filterwarnings("ignore")  # torch warns that quantized tensors are deprecated
def test_one_value_in_the_middle_of_a_large_odd_tensor_is_another_model(form):
    values = torch.arange(5000.0)
    other = values.clone()
    other[2500] = 7.0
    one, same, two = (fingerprint_of(Buffered(form(v))) for v in (values, values.clone(), other))
    assert one.weights == same.weights != two.weights


@pytest.mark.parametrize("model", [nn.Linear(2, 2, device="meta"), nn.LazyLinear(2)])
def test_weights_without_values_are_refused(model):
    with pytest.raises(AttachError, match="has no values"):
        fingerprint_of(model)
