"""A tiny residual network and its prepared form, shared by the tests of this folder."""

import pytest
import torch
from torch import nn

from calidrift_agent._points import QuantizedGraph
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.backend import PreparedModel


class Block(nn.Module):
    """One ReLU object, called twice: what torchvision's ResNet does."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.block = Block(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.pool(self.block(torch.relu(self.stem(x)))).flatten(1))


LAYERS = ["stem", "block.conv1", "block.conv2", "head"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny():
    torch.manual_seed(0)
    model = Tiny().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


@pytest.fixture(scope="session")
def inputs():
    return (torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)),)


@pytest.fixture(scope="session")
def prepared(tiny, inputs):
    return PreparedModel(tiny, inputs)


@pytest.fixture(scope="session")
def sketches(prepared, inputs):
    """What the range instrument sees of the example inputs."""
    graph = QuantizedGraph(prepared.convert())
    found = {quantizer.name: MagnitudeSketch() for quantizer in graph.quantizers}
    names = list(found)
    with torch.no_grad():
        graph.run(
            inputs,
            bypass=True,
            observe=lambda index, value: found[names[index]].update(value.contiguous().numpy()),
        )
    return found
