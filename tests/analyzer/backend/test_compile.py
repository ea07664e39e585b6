"""Real compilation: INT8 is proven, and its absence noticed."""

import re

import pytest
import torch
from torch import nn

from calidrift_analyzer.backend import (
    FixedRows,
    compile_float,
    compile_int8,
    require_compiler,
)
from calidrift_analyzer.errors import ContractError, ToolchainError
from calidrift_analyzer.ranges import Estimator


@pytest.fixture(scope="module")
def graph(prepared, sketches):
    return prepared.convert(prepared.estimate(sketches, Estimator.MSE))


@pytest.fixture(scope="module")
def compiled(graph, inputs):
    return compile_int8(graph, inputs)


@pytest.mark.slow
def test_every_planned_layer_runs_in_int8(compiled):
    assert [(one.name, one.planned, one.found) for one in compiled.kernels.layers] == [
        ("stem", 1, 1),
        ("block.conv1", 1, 1),
        ("block.conv2", 1, 1),
        ("head", 1, 1),
    ]
    assert compiled.kernels.complete


@pytest.mark.slow
def test_the_compiled_model_computes_what_its_graph_says(compiled, graph, inputs):
    with torch.no_grad():
        difference = (compiled.module(*inputs) - graph(*inputs)).abs().max()
        assert difference < 0.02 * graph(*inputs).abs().max()


@pytest.mark.slow
def test_without_freezing_the_count_fails_though_the_output_is_right(prepared, sketches, inputs):
    graph = prepared.convert(prepared.estimate(sketches, Estimator.MSE))
    try:
        floated = compile_int8(graph, inputs, freezing=False)
    finally:
        import torch._inductor.config as inductor

        inductor.freezing = True

    assert not floated.kernels.complete
    assert floated.kernels.found == 0
    assert set(floated.kernels.missing) == {"stem", "block.conv1", "block.conv2", "head"}
    with torch.no_grad():  # which is why nothing else would have noticed
        difference = (floated.module(*inputs) - graph(*inputs)).abs().max()
        assert difference < 0.02 * graph(*inputs).abs().max()


@pytest.mark.slow
def test_a_caller_with_gradients_on_still_runs_in_int8(compiled, inputs):
    from torch._inductor.codecache import PyCodeCache

    before = len(PyCodeCache.modules)
    with torch.enable_grad():
        output = compiled.module(*inputs)

    assert not output.requires_grad
    assert len(PyCodeCache.modules) == before  # nothing was compiled again


@pytest.mark.slow
def test_any_number_of_rows_goes_through_one_compilation(compiled, graph):
    from torch._inductor.codecache import PyCodeCache

    before = len(PyCodeCache.modules)
    fixed = FixedRows(compiled.module, (torch.zeros(8, 1, 8, 8),))
    fixed.eval()
    given = torch.randn(21, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for rows in (1, 8, 21):
            output = fixed(given[:rows])
            assert output.shape == (rows, 4)
            difference = (output - graph(given[:rows])).abs().max()
            assert difference < 0.02 * graph(given).abs().max()

    assert len(PyCodeCache.modules) == before


@pytest.mark.slow
def test_the_float_baseline_computes_the_model(prepared, tiny, inputs):
    with torch.no_grad():
        given = compile_float(prepared.float_graph, inputs)(*inputs)
        assert torch.allclose(given, tiny(*inputs), atol=1e-4)


def test_fixed_rows_pass_containers_and_other_inputs_on():
    class Echo(nn.Module):
        def forward(self, x, factor, flag):
            assert x.shape == (4, 2)
            assert flag == "flag"
            return {"scaled": x * factor[:, None], "scalar": torch.tensor(3.0), "flag": flag}

    x = torch.arange(14.0).reshape(7, 2)
    factor = torch.arange(7.0)

    output = FixedRows(Echo(), (x[:4], factor[:4], "flag"))(x, factor, "flag")

    assert torch.equal(output["scaled"], x * factor[:, None])
    assert output["scalar"] == 3.0
    assert output["flag"] == "flag"


def test_a_float_graph_is_not_compiled_as_int8(prepared, inputs):
    with pytest.raises(ContractError, match="nothing is planned in INT8"):
        compile_int8(prepared.float_graph, inputs)


@pytest.mark.parametrize("path", ["/nowhere/g++", "/", "/etc/hostname"])
def test_a_missing_compiler_is_one_sentence(path):
    import torch._inductor.config as inductor

    expected = rf"no C\+\+ compiler works here \(tried '{re.escape(path)}'\).*CXX"
    with inductor.patch({"cpp.cxx": (None, path)}), pytest.raises(ToolchainError, match=expected):
        require_compiler()


def test_missing_headers_of_python_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(ToolchainError, match=r"Python\.h is missing.*python3-dev"):
        require_compiler()
