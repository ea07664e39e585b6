"""Counting INT8 kernels: as many as ran, whatever caches held the code."""

import json
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch import nn

from calidrift_agent._follow import count_int8_kernels, planned_int8_kernels
from calidrift_agent._registry import Version
from calidrift_agent.errors import RegistryError


def version(folder: Path) -> Version:
    return Version("net", "000001-0123456789abcdef", folder, MappingProxyType({}))


def test_what_was_validated_is_read_from_the_report(tmp_path):
    layers = [{"name": "a", "planned": 2}, {"name": "b", "planned": 1}]
    (tmp_path / "report.json").write_text(json.dumps({"kernels": {"layers": layers}}))
    assert planned_int8_kernels(version(tmp_path)) == 3
    for said in ({}, {"kernels": {"layers": []}}, []):
        (tmp_path / "report.json").write_text(json.dumps(said))
        assert planned_int8_kernels(version(tmp_path)) is None
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(RegistryError, match=r"report\.json cannot be read"):
        planned_int8_kernels(version(tmp_path))


def test_float_layers_have_no_int8_kernel():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    assert count_int8_kernels(lambda: model(torch.zeros(1, 1, 8, 8))) == 0


@pytest.mark.slow
def test_the_kernels_of_a_compiled_int8_network_are_counted_each_time():
    from calidrift_analyzer.backend import PreparedModel, compile_int8

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    x = torch.rand(2, 1, 8, 8)
    graph = PreparedModel(network, (x,)).convert()
    for _ in range(2):  # the second one finds its code in a cache
        compiled = compile_int8(graph, (x,))
        assert compiled.kernels.planned == 2
        assert count_int8_kernels(lambda module=compiled.module: module(x)) == 2
    assert count_int8_kernels(lambda: graph(x)) == 0  # the q/dq graph runs in float
