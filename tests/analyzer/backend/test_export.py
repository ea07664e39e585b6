"""Graphs out of models, and to and from disk."""

import pytest
import torch
from torch import nn

from calidrift_analyzer.backend import (
    export_graph,
    first_tensor,
    load_graph,
    rows_of,
    save_graph,
)
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.ranges import Estimator


def test_a_saved_graph_is_the_same_for_any_number_of_rows(prepared, sketches, inputs, tmp_path):
    graph = prepared.convert(prepared.estimate(sketches, Estimator.MSE))
    save_graph(graph, inputs, tmp_path / "model.pt2")

    loaded = load_graph(tmp_path / "model.pt2")

    for rows in (1, 3, 8):
        given = inputs[0][:rows]
        assert torch.equal(loaded(given), graph(given))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_one_example_row_is_enough(tiny, inputs):
    graph = export_graph(tiny, (inputs[0][:1],))

    with torch.no_grad():
        assert torch.allclose(graph(*inputs), tiny(*inputs), atol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"not a program" * 100])
def test_a_file_that_is_no_program_is_named(tmp_path, content):
    path = tmp_path / "model.pt2"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ContractError, match=r"model\.pt2 cannot be read as an exported model"):
        load_graph(path)


def test_a_forward_that_looks_at_its_data_is_named():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ContractError, match="Branching cannot be exported with a variable number"):
        export_graph(Branching(), (torch.randn(4, 2),))


def test_a_forward_with_a_fixed_batch_is_named():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(4, 2) + 1

    with pytest.raises(ContractError, match="independent of the batch size"):
        export_graph(Fixed(), (torch.randn(4, 2),))


@pytest.mark.parametrize(
    "inputs",
    [(), (1, "a"), (torch.zeros(3, 1), torch.zeros(4, 1)), (torch.tensor(1.0),)],
    ids=["empty", "no tensor", "differ", "scalar"],
)
def test_rows_need_one_first_dimension(inputs):
    with pytest.raises(ContractError, match="first dimension"):
        rows_of(inputs)


def test_the_first_floating_point_output_counts():
    scores = torch.randn(2, 3)

    assert first_tensor({"ids": torch.zeros(2, dtype=torch.long), "scores": scores}) is scores
    with pytest.raises(ContractError, match="without a floating-point tensor"):
        first_tensor((torch.zeros(2, dtype=torch.long), "text"))
