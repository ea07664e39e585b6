"""The demo's network: small, residual, with BatchNorm and one ReLU that is called many times."""

from typing import final

from torch import Tensor, nn

CLASSES = 10
SIDE = 8


def _convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


@final
class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; both activations are the same `nn.ReLU` object.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Step of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                _convolution(inputs, outputs, size=1, stride=stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (rows, inputs, side, side) to (rows, outputs, side / stride, side / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


@final
class DigitNetwork(nn.Module):
    """Classifier of 8 x 8 digits, about 0.58 million weights.

    It is deliberately ordinary: what a ResNet does (BatchNorm, shortcuts, one ReLU module called
    twice per block), at a size that trains in seconds. The inner width is 128 because a 3 x 3
    kernel over 128 channels has 1,152 weights per scale, so that INT8 tensors *with* their scales
    and zero points stay more than 3.9 times smaller than FP32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(1, 32)
        self.bn = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        self.block1 = ResidualBlock(32, 64, stride=2)
        self.block2 = ResidualBlock(64, 128, stride=2)
        self.block3 = ResidualBlock(128, 128)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (rows, 1, 8, 8) images in [0, 1] to (rows, 10) logits."""
        y = self.relu(self.bn(self.stem(x)))
        y = self.block3(self.block2(self.block1(y)))
        out: Tensor = self.head(self.pool(y).flatten(1))
        return out
