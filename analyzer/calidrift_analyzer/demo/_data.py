"""Images of the demo: disjoint splits of the digits in scikit-learn, under four conditions.

scikit-learn counts the inked pixels of each 4 x 4 block; a camera sees dark ink on white paper, so
brightness here is 1 - ink. Every picture belongs to exactly one part, so that nothing that the
recalibration saw decides whether the recalibration is accepted. All randomness comes from one seed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

LOW_LIGHT = 0.15
"""Brightness of the low-light condition, as a factor on the original."""
CONTRAST = 1.5
"""Slope around middle gray of the high-contrast condition."""
NOISE = 0.25
"""Standard deviation of the noisy condition, on a scale where white is 1."""


class Condition(StrEnum):
    """How the camera saw the digit; each one is a segment of the traffic."""

    ORIGINAL = "original"
    LOW_LIGHT = "low-light"
    HIGH_CONTRAST = "high-contrast"
    NOISY = "noisy"


class Part(StrEnum):
    """What a set of images is used for; no image is in two parts."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    TRAFFIC = "traffic"
    SELECT = "select"
    GATE = "gate"
    REPORT = "report"


PART_SIZES = {
    Part.TRAIN: 800,
    Part.CALIBRATION: 256,
    Part.TRAFFIC: 301,
    Part.SELECT: 100,
    Part.GATE: 170,
    Part.REPORT: 170,
}
"""Images in each part; together all 1,797."""


@final
@dataclass(frozen=True, slots=True)
class Pictures:
    """Images with their labels and conditions.

    Attributes:
        images: (rows, 1, 8, 8) float32 in [0, 1].
        labels: (rows,) int64, the digit.
        conditions: (rows,) one condition per row.
        sources: (rows,) int64, index of the picture in scikit-learn's file.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    conditions: tuple[Condition, ...]
    sources: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, order: NDArray[np.int64]) -> "Pictures":
        """The given rows, in the given order."""
        conditions = tuple(self.conditions[i] for i in order.tolist())
        return Pictures(self.images[order], self.labels[order], conditions, self.sources[order])


def see(
    images: NDArray[np.float32], condition: Condition, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Images as a camera would deliver them under a condition; always inside [0, 1].

    Args:
        images: (rows, 1, 8, 8) float32 in [0, 1].
        condition: What to do to them.
        rng: Source of the noise.

    Returns:
        New images of the same shape and type.
    """
    seen: NDArray[np.floating[Any]]
    match condition:
        case Condition.ORIGINAL:
            seen = images
        case Condition.LOW_LIGHT:
            seen = images * LOW_LIGHT
        case Condition.HIGH_CONTRAST:
            seen = (images - 0.5) * CONTRAST + 0.5
        case Condition.NOISY:
            seen = images + rng.normal(0.0, NOISE, images.shape)
    return np.clip(seen, 0.0, 1.0).astype(np.float32)


def originals(part: Part, seed: int) -> Pictures:
    """The untouched pictures of one part.

    Args:
        part: Which part.
        seed: Decides which picture falls into which part.

    Returns:
        `PART_SIZES[part]` pictures in the original condition.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng([seed, 0]).permutation(len(digits.target))
    ends = np.cumsum(list(PART_SIZES.values()))
    end = int(ends[list(PART_SIZES).index(part)])
    chosen = np.sort(order[end - PART_SIZES[part] : end]).astype(np.int64)
    images = (1.0 - digits.images[chosen] / 16.0).astype(np.float32)[:, None]
    labels = digits.target[chosen].astype(np.int64)
    return Pictures(images, labels, (Condition.ORIGINAL,) * len(chosen), chosen)


def pictures(part: Part, seed: int, conditions: tuple[Condition, ...]) -> Pictures:
    """Every picture of a part once under each of the conditions.

    Args:
        part: Which part.
        seed: Decides the split and the noise.
        conditions: The conditions, in the order in which they are stacked.

    Returns:
        `PART_SIZES[part] * len(conditions)` rows.
    """
    base = originals(part, seed)
    rng = np.random.default_rng([seed, 1, list(Part).index(part)])
    seen = [see(base.images, condition, rng) for condition in conditions]
    return Pictures(
        np.concatenate(seen),
        np.tile(base.labels, len(conditions)),
        tuple(condition for condition in conditions for _ in range(len(base))),
        np.tile(base.sources, len(conditions)),
    )
