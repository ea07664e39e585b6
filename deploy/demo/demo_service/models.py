"""Two tiny networks, built from code, with seeded weights: there is nothing to download."""

import torch
from torch import Tensor, nn

import calidrift_agent as calidrift

WIDTH = 32
TOKENS = 24
CLASSES = 10
SIDE = 8


class TextEncoder(nn.Module):
    """Bytes to an embedding: one attention block over the characters, then their mean.

    Input: int64 (B, 24). Output: float32 (B, 32).
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed texts."""
        x = self.embed(tokens)
        attended = nn.functional.scaled_dot_product_attention(
            self.query(x), self.key(x), self.value(x)
        )
        x = self.norm(x + self.mix(attended))
        return (x + self.narrow(torch.relu(self.wide(x)))).mean(1)


class ImageModel(nn.Module):
    """A residual network for 8 x 8 grey images.

    Input: float32 (B, 1, 8, 8). Output: float32 (B, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes of images."""
        x = torch.relu(self.stem(images))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


def build_text_encoder() -> nn.Module:
    """The encoder, in eval mode; the same weights at each call."""
    return _seeded(TextEncoder)


def build_image_model() -> nn.Module:
    """The image model, in eval mode; the same weights at each call."""
    return _seeded(ImageModel)


def tokens_of(text: str) -> Tensor:
    """The first 24 bytes of a text, filled up with spaces: int64 (1, 24)."""
    raw = text.encode()[:TOKENS].ljust(TOKENS)
    return torch.tensor([list(raw)])


def text_profile(model: nn.Module) -> calidrift.CalibrationProfile:
    """Calibrate on random texts. A real service does this once, offline, and loads a file."""
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(32, 127, (8, TOKENS), generator=generator) for _ in range(8)]
    return calidrift.calibrate(model, batches)


def image_profile(model: nn.Module) -> calidrift.CalibrationProfile:
    """Calibrate on random images with values from 0 to 1."""
    generator = torch.Generator().manual_seed(2)
    batches = [torch.rand(8, 1, SIDE, SIDE, generator=generator) for _ in range(8)]
    return calidrift.calibrate(model, batches)


def _seeded(make: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()
