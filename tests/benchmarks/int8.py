"""A ResNet-18 that torchao quantized and Inductor compiled; import it in a process of its own.

Importing torchao's x86 quantizer changes Inductor for the whole process.
"""

import os
import warnings

os.environ.setdefault("TORCHINDUCTOR_FREEZING", "1")

import networks
import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore")


class OwnReLU(networks.BasicBlock):
    """A block whose two activations are two modules: the quantizer refuses a shared one."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__(inside, outside, stride)
        self.last = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.last(self.bn2(self.conv2(y)) + identity)


def quantized_resnet18(size: int) -> tuple[torch.fx.GraphModule, Tensor]:
    """Gives the converted graph (any batch from 1 to 64) and eight images of `size` x `size`."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    plain, networks.BasicBlock = networks.BasicBlock, OwnReLU
    try:
        torch.manual_seed(0)
        model = networks.ResNet18().eval()
    finally:
        networks.BasicBlock = plain
    images = torch.randn(8, 3, size, size)
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        exported = torch.export.export(model, (images,), dynamic_shapes=({0: batch},)).module()
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(exported, quantizer)
        prepared(images)
        return convert_pt2e(prepared), images


def compiled(graph: torch.fx.GraphModule, *examples: Tensor) -> nn.Module:
    """Gives the graph compiled with frozen weights, ready for batches like the examples."""
    made = torch.compile(graph)
    with torch.no_grad():
        for example in examples:
            made(example)
            made(example)
    return made
