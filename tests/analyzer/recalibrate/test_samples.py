"""Captured rows become batches that the model takes."""

import numpy as np
import pytest
import torch
from torch import nn

from calidrift_agent.errors import CaptureError
from calidrift_analyzer.backend import export_graph
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.recalibrate._samples import sample_batches


class Two(nn.Module):
    def forward(self, x, mask):
        return x * mask.to(x.dtype)


@pytest.fixture(scope="module")
def graph():
    return export_graph(Two().eval(), (torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)))


def row(value, columns=3):
    return np.full((1, columns), value, np.float32), np.ones((1, columns), bool)


def test_positional_and_keyword_inputs_get_the_names_of_the_forward(capture, graph):
    x, mask = row(1.0)
    paths = [
        capture({"arg0": x, "arg1": mask}),
        capture({"x": 2 * x, "mask": mask}),
        capture({"arg0": 3 * x, "mask": mask}),
    ]

    (batch,) = sample_batches(paths, graph)

    x, mask = batch
    assert x[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert mask.dtype == torch.bool
    assert graph(*batch).shape == (3, 3)


def test_rows_of_another_shape_start_a_new_batch(capture, graph):
    first, second = row(1.0, 3), row(2.0, 5)
    paths = [capture(dict(zip(("x", "mask"), one, strict=True))) for one in (first, first, second)]

    assert [batch[0].shape for batch in sample_batches(paths, graph)] == [(2, 3), (1, 5)]


def test_batches_hold_at_most_64_rows(capture, graph):
    x, mask = row(1.0)
    path = capture({"x": x, "mask": mask})

    assert [len(batch[0]) for batch in sample_batches([path] * 130, graph)] == [64, 64, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_become_what_the_fp32_model_takes(capture, graph, dtype):
    x, mask = row(1.5)

    (batch,) = sample_batches([capture({"x": x.astype(dtype), "mask": mask})], graph)

    assert batch[0].dtype == torch.float32
    assert batch[0][0, 0] == 1.5


def test_bfloat16_bits_become_their_values(capture, graph):
    mask = row(0.0)[1]
    bits = torch.full((1, 3), -2.5, dtype=torch.bfloat16).view(torch.uint16).numpy()

    (batch,) = sample_batches([capture({"x": bits, "mask": mask}, bfloat16=["x"])], graph)

    assert batch[0].tolist() == [[-2.5] * 3]


@pytest.mark.parametrize("names", [("arg0",), ("arg0", "arg1", "arg2"), ("arg0.0", "mask")])
def test_a_capture_with_other_inputs_is_named(capture, graph, names):
    path = capture({name: row(1.0)[0] for name in names})

    with pytest.raises(ContractError, match=rf"{path} holds the inputs .*model takes x, mask"):
        list(sample_batches([path], graph))


def test_a_damaged_capture_is_named(capture, graph):
    path = capture({"x": row(1.0)[0], "mask": row(1.0)[1]})
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(CaptureError, match=str(path)):
        list(sample_batches([path], graph))


def test_no_samples_are_no_batches(graph):
    assert list(sample_batches([], graph)) == []
