"""Trains the demo's network so that FP32 itself withstands every condition."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calidrift_analyzer.demo._data import Part, originals
from calidrift_analyzer.demo._network import DigitNetwork

EPOCHS: Final = 60
"""Passes over the training pictures: 15 s on one core."""

_CONTRASTS = (0.7, 1.7)
_NOISIEST = 0.35
_NOISY_SHARE = 0.6
_DARKEST = 0.1
_DIMMED_SHARE = 0.5
_SMOOTHING = 0.1


@final
@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        seed: Decides split, first weights, order and augmentation.
        epochs: Passes over the training part.
        batch: Rows per step.
        peak: Highest learning rate of the one-cycle schedule.
        decay: Weight decay of AdamW.
    """

    seed: int = 0
    epochs: int = EPOCHS
    batch: int = 128
    peak: float = 4e-3
    decay: float = 1e-2


def augment(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Random brightness, contrast and noise; always inside [0, 1].

    The conditions of the demo lie inside what is drawn here, none of them is drawn exactly.

    Args:
        images: (rows, 1, 8, 8) float32 in [0, 1].
        rng: Source of all randomness.

    Returns:
        New images of the same shape and type.
    """
    shape = (len(images), 1, 1, 1)
    contrast = rng.uniform(*_CONTRASTS, shape)
    spread = rng.uniform(0.0, _NOISIEST, shape) * (rng.random(shape) < _NOISY_SHARE)
    light = np.exp(rng.uniform(np.log(_DARKEST), 0.0, shape))
    seen = (images - 0.5) * contrast + 0.5
    seen = np.clip(seen + rng.normal(0.0, 1.0, images.shape) * spread, 0.0, 1.0)
    seen = seen * np.where(rng.random(shape) < _DIMMED_SHARE, light, 1.0)
    return seen.astype(np.float32)


def train(
    options: TrainOptions, progress: Callable[[int, int], None] | None = None
) -> DigitNetwork:
    """Trains one network.

    Args:
        options: How.
        progress: Called after each epoch with (epochs done, epochs in all).

    Returns:
        The network in eval mode. The global random state of torch is left as it was.
    """
    data = originals(Part.TRAIN, options.seed)
    rng = np.random.default_rng([options.seed, 2])
    labels = torch.from_numpy(data.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = DigitNetwork()
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.peak, weight_decay=options.decay)
    steps = -(-len(data) // options.batch) * options.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.peak, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=_SMOOTHING)
    for epoch in range(options.epochs):
        seen = torch.from_numpy(augment(data.images, rng))
        order = torch.from_numpy(rng.permutation(len(data)))
        for start in range(0, len(data), options.batch):
            chosen = order[start : start + options.batch]
            loss = loss_of(network(seen[chosen]), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        if progress is not None:
            progress(epoch + 1, options.epochs)
    return network.eval()
